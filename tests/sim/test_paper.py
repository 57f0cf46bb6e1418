"""Small versions of the papers' tables, with tolerance, and what they rest on."""

from random import Random

import pytest
from click.testing import CliRunner

from pastryd.cli.sim import sim
from pastryd.config import Config
from pastryd.sim.direct import DirectRing, random_key, settled_world, walk
from pastryd.sim.latency import Sphere
from pastryd.sim.paper.failures import failures
from pastryd.sim.world import World
from pastryd.state.leaf_set import LeafSet
from pastryd.state.routing_table import RoutingTable


def mean_hops(paths: list[list[int]]) -> float:
    return sum(len(path) - 1 for path in paths) / len(paths)


def world_hops(world: World, lookups: int) -> float:
    """Route by the tables of a world's nodes; return the average number of hops."""
    rng = Random(5)
    by_id = {node.id: node for node in world.nodes}
    total = 0
    for _ in range(lookups):
        node, goal = rng.choice(world.nodes), rng.choice(world.nodes)
        while (hop := node.core.router.next_hop(goal.id)) is not None:
            node = by_id[hop.id]
            total += 1
        assert node is goal
    return total / lookups


def filled_slots(table: RoutingTable) -> set[tuple[int, int]]:
    return {table.slot_of(handle.id) for handle in table.entries()}


def ids_of(leaf_set: LeafSet) -> list[int]:
    return [handle.id for handle in leaf_set.members()]


def test_a_direct_ring_is_what_the_protocol_builds() -> None:
    built = World(3, Config.wan(), Sphere(Random(3)), checked=False, keep_log=False)
    # Long enough for exchanges of leaf sets: this is about the outcome.
    built.ring(150, settle_s=150.0, gap_s=0.3)
    assert built.is_consistent()
    direct = DirectRing(150, 3, Config.wan(), Sphere(Random(3)))
    # The same nodes, tables made from their sorted ids.
    direct.handles = sorted((node.core.identity for node in built.nodes), key=lambda h: h.id)
    direct.ids = [handle.id for handle in direct.handles]
    direct.index_of = {node_id: index for index, node_id in enumerate(direct.ids)}
    slots = missing = 0
    for node in built.nodes:
        leaf_set, table, _ = direct.tables(direct.index_of[node.id])
        theirs = node.core.context
        assert ids_of(leaf_set) == ids_of(theirs.leaf_set)
        wanted, held = filled_slots(table), filled_slots(theirs.table)
        assert held <= wanted, "the direct table has every slot that can be filled"
        slots += len(wanted)
        missing += len(wanted - held)
    assert missing < 0.02 * slots
    rng = Random(4)
    paths = [walk(direct, rng.randrange(150), rng.choice(direct.ids)) for _ in range(3_000)]
    hops = mean_hops([path for path in paths if path is not None])
    assert world_hops(built, 3_000) == pytest.approx(hops, rel=0.03)


def test_a_settled_world_is_consistent_stays_so_and_asks_nobody_for_leaf_sets() -> None:
    ring = DirectRing(200, 1, Config.wan(), Sphere(Random(1)))
    world = settled_world(ring, 1, Sphere(Random(1)))
    assert world.is_consistent()
    world.run(60.0)
    assert world.is_consistent()
    assert world.datagrams / 60 / 200 < 0.5, "messages per second and node of an idle ring"


def test_every_route_of_a_direct_ring_ends_at_the_root() -> None:
    ring = DirectRing(500, 2)
    rng = Random(2)
    for _ in range(500):
        key = random_key(rng)
        path = walk(ring, rng.randrange(500), key)
        assert path is not None and path[-1] == ring.root_of(key)


def test_dead_nodes_are_passed_by_on_the_way_to_the_live_root() -> None:
    ring = DirectRing(500, 2)
    rng = Random(2)
    dead = set(rng.sample(range(500), 50))
    for _ in range(300):
        key, start = random_key(rng), rng.randrange(500)
        if start in dead:
            continue
        path = walk(ring, start, key, dead=dead)
        assert path is not None and path[-1] == ring.root_of(key, dead)
        assert not dead.intersection(path)


def test_a_tenth_of_the_nodes_fails_and_the_rest_repair_their_tables() -> None:
    table = failures(seed=1, size=300, failed=30, lookups=2_000, repair_s=120.0)
    before = table.figure("hops before").ours
    assert before < table.figure("hops after, no repair").ours < 1.15 * before
    assert table.figure("hops repaired").ours == pytest.approx(before, rel=0.03)
    assert table.figure("routes to a wrong node, repaired, of 2000").ours == 0
    assert table.figure("messages per failed node").ours < 100


def test_a_join_costs_about_as_many_messages_as_it_tells_nodes_of_itself() -> None:
    world = World(1, Config.wan(), Sphere(Random(1)), checked=False, keep_log=False)
    world.ring(200, settle_s=5.0, gap_s=0.1)
    assert all(node.core.active for node in world.nodes)
    assert world.datagrams / 200 < 130


def test_an_unknown_table_is_refused_with_the_known_ones() -> None:
    result = CliRunner().invoke(sim, ["paper", "--table", "nonsense"])
    assert result.exit_code == 2
    assert "histogram" in result.output
