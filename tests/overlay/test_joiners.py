"""Joiners that meet nodes which have died unnoticed: how long they answer for nothing."""

import pytest

from pastryd.config import Config
from pastryd.ids import clockwise
from tests.support.network import VirtualNetwork


@pytest.mark.parametrize("preset", ["lan", "wan"])
@pytest.mark.parametrize("place", [2, 5, 7])
def test_a_dead_node_that_is_not_next_to_a_joiner_does_not_hold_it_up(
    place: int, preset: str
) -> None:
    config = Config.lan() if preset == "lan" else Config.wan()
    network = VirtualNetwork(seed=30 + place, config=config)
    nodes = network.ring(40, settle_s=10 * config.heartbeat_s)
    joiner = network.add(start=False)
    around = sorted(nodes, key=lambda node: clockwise(joiner.id, node.id))
    network.crash(around[place])
    seeds = [around[20].endpoint]
    network.step(joiner, lambda: joiner.core.start(seeds, network.now))
    network.run_until(lambda: joiner.core.active, 2.5 * config.probe_timeout_s)
    leaf_set = joiner.core.context.leaf_set
    assert not leaf_set.spans_ring  # the silent one's place is a gap, not the end of the ring
    for neighbour in (*around[:2], *around[-2:]):
        assert joiner.id in neighbour.core.context.leaf_set
    network.run_until(network.is_consistent, 8 * config.heartbeat_s)


def test_a_dead_node_next_to_a_joiner_holds_it_up() -> None:
    """It may be alive and answer for the same keys: nobody else stands between the two."""
    config = Config.wan()
    network = VirtualNetwork(seed=40, config=config)
    nodes = network.ring(40, settle_s=10 * config.heartbeat_s)
    joiner = network.add(start=False)
    around = sorted(nodes, key=lambda node: clockwise(joiner.id, node.id))
    network.crash(around[0])
    seeds = [around[20].endpoint]
    network.step(joiner, lambda: joiner.core.start(seeds, network.now))
    network.run(3 * config.probe_timeout_s)
    assert len(joiner.core.context.leaf_set) >= 8 and not joiner.core.active
    network.run_until(lambda: joiner.core.active, 6 * config.probe_timeout_s)
    assert not joiner.core.context.leaf_set.spans_ring
    network.run_until(network.is_consistent, 4 * config.heartbeat_s)  # the joiner told of it
