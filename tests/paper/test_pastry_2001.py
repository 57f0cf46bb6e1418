"""Rowstron & Druschel 2001, what concerns the tables alone: state per node, where routes lead."""

from math import ceil, log
from random import Random

from pastryd.config import Config
from pastryd.ids import NodeId, Position, rank, shared_prefix
from pastryd.protocol.placement import knows, likely_holder
from pastryd.sim.direct import DirectRing, random_key, settled_world
from pastryd.sim.latency import Sphere
from pastryd.state.handle import Handle
from pastryd.state.leaf_set import LeafSet
from pastryd.state.neighborhood import NeighborhoodSet
from pastryd.state.routing import next_hop
from pastryd.state.routing_table import RoutingTable
from tests.support.builders import handle_at
from tests.support.oracle import true_root

NODES = 600


class Ring:
    """Every node's tables, filled from full knowledge as the paper's evaluation has them."""

    def __init__(self, nodes: int, seed: int) -> None:
        rng = Random(seed)
        self.handles = [handle_at(rng.getrandbits(128)) for _ in range(nodes)]
        self.ids = sorted(handle.id for handle in self.handles)
        self.tables: dict[NodeId, tuple[LeafSet, RoutingTable, NeighborhoodSet]] = {}
        for handle in self.handles:
            leaf_set, table = LeafSet(handle.id, 16), RoutingTable(handle.id)
            for other in self.handles:
                leaf_set.add(other)
                table.consider(other, None)
            self.tables[handle.id] = leaf_set, table, NeighborhoodSet(handle.id, 16)

    def route(self, start: NodeId, key: int, dead: frozenset[int] = frozenset()) -> list[NodeId]:
        """Return the nodes that a message visits, with fresh suspicions of all dead ones."""
        path = [start]
        while True:
            hop: Handle | None = next_hop(key, *self.tables[path[-1]], lambda i: i not in dead)
            if hop is None:
                return path
            path.append(hop.id)
            assert len(path) < 30, "a loop"


RING = Ring(NODES, seed=4)


def test_section_2_1_a_node_knows_fifteen_nodes_per_level_of_the_ring() -> None:
    """Sec. 2.1: about log_16 N rows are populated, with at most 15 entries each."""
    for _, table, _ in RING.tables.values():
        table.check_invariants()
        assert len(table.row(0)) == 15
        assert all(len(table.row(i)) <= 15 for i in table.row_numbers)
        assert len(table) <= 15 * ceil(log(NODES, 16))


def test_section_2_3_a_message_arrives_at_the_numerically_closest_node() -> None:
    """Sec. 2.3: with intact tables in at most ceil(log_16 N) steps, on average log_16 N."""
    rng = Random(5)
    hops = []
    for _ in range(2_000):
        key, start = rng.getrandbits(128), rng.choice(RING.ids)
        path = RING.route(Position(start), key)
        assert path[-1] == true_root(key, RING.ids)
        hops.append(len(path) - 1)
    assert max(hops) <= ceil(log(NODES, 16)) + 1  # the last step may be one within the leaf set
    assert sum(hops) / len(hops) < log(NODES, 16)


def test_section_2_3_routes_go_around_dead_nodes_to_the_closest_live_one() -> None:
    """Sec. 2.3 and 4.4: a tenth of the nodes dead and nothing repaired, it still arrives."""
    rng = Random(6)
    dead = frozenset(rng.sample(RING.ids, NODES // 10))
    live = [node_id for node_id in RING.ids if node_id not in dead]
    hops = []
    for _ in range(1_000):
        key, start = rng.getrandbits(128), rng.choice(live)
        path = RING.route(Position(start), key, dead)
        assert path[-1] == true_root(key, live)
        hops.append(len(path) - 1)
    assert sum(hops) / len(hops) < log(NODES, 16) + 0.5


def test_section_2_5_questions_that_guess_by_the_density_of_ids_reach_nearer_replicas() -> None:
    """Sec. 2.5: near the k closest nodes a message goes to who is near, in no more steps."""
    latency = Sphere(Random(7))
    ring = DirectRing(NODES, 7, Config.wan(replicas=5), latency)
    world = settled_world(ring, 7, Sphere(Random(7)))
    rng = Random(8)
    found: dict[bool, tuple[list[int], list[float]]] = {False: ([], []), True: ([], [])}
    for _ in range(1_000):
        key, start = random_key(rng), rng.randrange(NODES)
        closest = ring.tables(ring.root_of(key))[0].replica_set(key, 5)
        holders = {ring.root_of(key), *(ring.index_of[h.id] for h in closest if h is not None)}
        for guessing, (hops, delays_s) in found.items():
            at, taken = start, 0
            while at not in holders:
                core = world.nodes[at].core
                hop = core.router.next_hop(Position(key))
                assert hop is not None and taken <= 4
                if guessing and not knows(core.context, Position(key)):
                    likely = likely_holder(core.context, Position(key), hop)
                    if likely is not None:
                        assert shared_prefix(likely.id, key) >= shared_prefix(core.identity.id, key)
                        assert rank(key, likely.id) < rank(key, core.identity.id)
                        hop = likely
                at, taken = ring.index_of[hop.id], taken + 1
            hops.append(taken)
            delays_s.append(latency.delay_s(start, at))
    assert sum(found[True][0]) <= sum(found[False][0])
    assert sum(found[True][1]) < 0.93 * sum(found[False][1])
