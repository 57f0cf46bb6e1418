"""A node under everything that peers can send (`tests/fuzz/ring.py`): a few fixed seeds in CI."""

import pytest

from pastryd.ids import Position
from pastryd.wire.codec import encode
from pastryd.wire.messages import Route
from tests.fuzz.ring import FuzzedRing
from tests.support.network import VirtualNetwork, VirtualNode


@pytest.mark.parametrize("seed", range(6))
def test_no_datagram_raises_or_grows_anything_without_bound(seed: int) -> None:
    ring = FuzzedRing(seed)
    ring.run(700)
    ring.check_bounds(2_000)


@pytest.mark.parametrize("seed", range(2))
def test_after_the_storm_the_ring_works(seed: int) -> None:
    ring = FuzzedRing(100 + seed)
    ring.run(400)
    ring.check_still_works()


def test_a_trail_never_makes_a_route_too_long_for_a_datagram() -> None:
    """Found by the fuzzer: each hop of a traced route added itself, whatever room was left."""
    network = VirtualNetwork(seed=1)
    nodes = network.ring(40)
    payload = bytes(network.config.payload_bytes_max // 2)
    for i in range(20):
        node, key = nodes[i], nodes[-1 - i].core.identity.id

        def route(node: VirtualNode = node, key: Position = key) -> None:
            node.core.router.route(key, payload, "access", network.now, keep_trail=True)

        network.step(node, route)
        network.run(0.1)  # the network asserts that every datagram fits
    sender = nodes[0].handle
    message = Route(1, Position(0), sender, 1, "access", bytes(1100), True, ())
    core = nodes[1].core
    network.step(nodes[1], lambda: core.receive_datagram(encode(message), sender, network.now))
    assert core.stats.counters["route_too_long"] == 1
