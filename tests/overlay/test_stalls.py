"""A node that stood still: what it learnt of others while it could not hear them is not learnt."""

import pytest

from pastryd.protocol.items import name_of
from pastryd.protocol.path_window import window_of
from pastryd.protocol.pull_state import Pulled, PullResult
from tests.support.network import VirtualNetwork


# An hour is six times the longest that a node keeps or waits for anything (600 s).
@pytest.mark.parametrize("stall_s", [0.4, 5.0, 600.0, 3600.0])
def test_a_stall_is_nobodys_round_trip_time(stall_s: float) -> None:
    network = VirtualNetwork(seed=4)
    nodes = network.ring(8, settle_s=5)
    sleeper = nodes[3]
    # Everything that it asks now is answered while it sleeps.
    core = sleeper.core

    def ask_everybody() -> None:
        for node in nodes:
            if node is not sleeper:
                core.leafset_upkeep.probe(node.handle, network.now)
                core.route(node.core.identity.id, b"", "nobody", network.now)

    network.step(sleeper, ask_everybody)
    network.hang(sleeper)
    network.run(stall_s)
    network.resume(sleeper)
    for peer in core.context.peers:
        assert (peer.srtt_s or 0.0) < 0.1


@pytest.mark.parametrize("stall_s", [0.1, 1.0, 10.0, 600.0])
def test_after_a_stall_of_any_length_the_ring_is_whole_again(stall_s: float) -> None:
    network = VirtualNetwork(seed=5)
    nodes = network.ring(8, settle_s=5)
    network.hang(nodes[2])
    network.run(stall_s)
    network.resume(nodes[2])
    network.run_until(network.is_consistent, 5)


def test_a_stall_is_no_paths_latency() -> None:
    network = VirtualNetwork(seed=6)
    sleeper, holder = network.ring(2, settle_s=5)
    value = network.rng.randbytes(1 << 20)
    name = name_of(value)
    holder.disk.items[name] = value
    holder.core.items.storage.inventory.add(name, len(value))
    results: list[PullResult] = []

    def pull() -> None:
        peers = [sleeper.core.context.peers.of(holder.handle)]
        sleeper.core.items.transfer.pull(
            name, None, peers, lambda result, now: results.append(result), network.now
        )

    network.step(sleeper, pull)
    network.hang(sleeper)
    network.run(600)
    network.resume(sleeper)
    assert window_of(sleeper.core.context.peers.of(holder.handle)).latency_s < 0.1
    network.run_until(lambda: bool(results), 2)
    assert isinstance(results[0], Pulled)
