"""Rings that grow by the real protocol, many joins at a time, and the oracle that looks at them."""

from pathlib import Path
from random import Random

from click.testing import CliRunner

from pastryd.cli.sim import sim
from pastryd.config import Config
from pastryd.sim.large_pages import use_large_pages
from pastryd.sim.latency import Sphere
from pastryd.sim.oracle import RingOracle
from pastryd.sim.scale import grow, measure, settle
from pastryd.sim.world import World
from tests.support.oracle import true_root


def quiet(line: str) -> None:
    """Print no progress."""


def test_nodes_that_join_together_settle_and_route_to_the_right_places() -> None:
    ring = measure(150, 1, Config.wan(), quiet)
    assert ring.settle_s is not None and ring.settle_s < 60
    assert ring.wrong_routes == 0
    assert 1.5 < ring.hops < 2.5
    assert ring.messages / ring.nodes < 150
    assert ring.bytes_per_node < 300_000


def test_the_oracle_finds_the_one_leaf_set_that_is_wrong() -> None:
    world = World(1, Config.wan(), Sphere(Random(1)), checked=False, keep_log=False)
    grow(world, 40, quiet)
    assert settle(world, quiet) is not None
    oracle = RingOracle(world.live, world.config.leaf_set_size)
    leaf_set = world.nodes[7].core.context.leaf_set
    lost = leaf_set.members()[0]
    leaf_set.discard(lost.id)
    assert not oracle.settled()
    assert [place for place in range(40) if not oracle.is_right(place)] == [
        sorted(node.id for node in world.nodes).index(world.nodes[7].id)
    ]
    leaf_set.add(lost)
    assert oracle.settled()


def test_the_oracle_knows_the_root() -> None:
    world = World(1)
    for _ in range(9):
        world.add(start=False)
    oracle = RingOracle(world.live, world.config.leaf_set_size)
    ids, rng = [node.id for node in world.nodes], Random(2)
    for _ in range(200):
        key = rng.getrandbits(128)
        assert oracle.root_of(key).id == true_root(key, ids)


def test_a_ring_that_has_not_settled_in_time_is_said_to_have_not() -> None:
    world = World(1, Config.wan(), Sphere(Random(1)), checked=False, keep_log=False)
    grow(world, 5, quiet)
    world.crash(world.nodes[0])
    assert settle(world, quiet, limit_s=2.0) is None


def test_the_command_measures_rings_of_several_sizes(tmp_path: Path) -> None:
    asked = ["scale", "--nodes", "20", "--nodes", "40", "--output", str(tmp_path)]
    result = CliRunner().invoke(sim, asked)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "scale.md").read_text("utf-8")
    assert "`sim scale`" in text
    assert "| 40 |" in text


def test_large_pages_change_no_byte_and_no_run() -> None:
    kept = [Random(seed).randbytes(1 << 20) for seed in range(8)]
    traces = []
    for large in (False, True):
        world = World(1, Config.wan(), Sphere(Random(1)), checked=False, keep_log=False)
        for nodes in (20, 40):
            grow(world, nodes, quiet)
            if large:
                use_large_pages()
        traces.append(world.trace)
    assert traces[0] == traces[1]
    assert kept == [Random(seed).randbytes(1 << 20) for seed in range(8)]
