"""Heartbeats in virtual time (`protocol/heartbeats.py`)."""

from statistics import mean

from tests.support.network import VirtualNetwork


def test_a_node_is_not_woken_to_see_that_its_neighbour_has_been_heard() -> None:
    network = VirtualNetwork()
    network.ring(5)
    network.run(5)
    ahead_s = []
    for _ in range(200):
        network.run(0.05)
        ahead_s += [node.core._heartbeats._look.when - network.now for node in network.nodes]
    # From one heartbeat to the next it falls from 0.9 to 0.25 s; otherwise it would reach 0.
    assert mean(ahead_s) > 0.5
    assert sum(ahead < 0.2 for ahead in ahead_s) < len(ahead_s) / 10


def test_heartbeats_without_number_make_nobody_trust_itself_faster() -> None:
    network = VirtualNetwork()
    network.ring(3)
    network.run(5)
    core = network.nodes[0].core
    right = core.context.leaf_set.immediate_right
    assert right is not None
    peer = core.context.peers.of(right)
    for _ in range(5):
        core.liveness.awareness.doubt()
    before = core.liveness.awareness.score
    for _ in range(20):
        peer.last_heard = network.now
        core._heartbeats.on_heartbeat(peer, network.now)
    assert before - core.liveness.awareness.score <= 1
