"""Where a node is, as long as nobody told it: others see it, and it may move."""

import pytest

from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import Welcome
from tests.support.network import VirtualNetwork, VirtualNode

ELSEWHERE = ("10.50.0.1", 4160)


def move(network: VirtualNetwork, node: VirtualNode, endpoint: Endpoint) -> None:
    """Give a node another address while it runs."""
    del network.by_endpoint[node.endpoint]
    node.endpoint = endpoint
    node._identity = None
    network.by_endpoint[endpoint] = node
    node.place = network.place_of(endpoint)


def misinform(network: VirtualNetwork, teller: VirtualNode, of: VirtualNode, host: str) -> None:
    """Have one node tell another that it sees it there."""
    transmit = network.transmit

    def lying(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        if isinstance(destination, Handle) and sender.endpoint == teller.endpoint:
            message = decode(data)
            if isinstance(message, Welcome) and destination.endpoint == of.endpoint:
                data = encode(message._replace(seen_host=host))
        transmit(data, sender, destination)

    network.transmit = lying  # type: ignore[method-assign]


@pytest.mark.parametrize("size", [2, 3, 30])
def test_a_node_that_moves_notices_within_seconds_and_tells_the_others(size: int) -> None:
    network = VirtualNetwork(seed=4)
    nodes = network.ring(size, settle_s=10)
    moved = nodes[size // 2]
    move(network, moved, ELSEWHERE)
    network.run(15)
    assert moved.core.identity.endpoint == ELSEWHERE
    others = [node.core.context for node in nodes if node is not moved]

    def is_told() -> bool:
        told = [context.leaf_set.get(moved.id) for context in others]
        return all(handle is None or handle.endpoint == ELSEWHERE for handle in told)

    network.run_until(is_told, 5)
    network.run_until(network.is_consistent, 30)


def test_an_ipv6_address_is_logged_as_people_write_it() -> None:
    network = VirtualNetwork(seed=4)
    nodes = network.ring(3, settle_s=10)
    moved = nodes[0]
    move(network, moved, ("2001:db8::7", 4160))
    network.run(15)
    network.crash(moved)
    network.run(15)
    told = {
        logged.event: logged.fields["address"]
        for node in nodes
        for _, logged in node.logged
        if "2001:db8::7" in str(logged.fields.get("address"))
    }
    assert told == dict.fromkeys(("address_learned", "peer_liveness"), "[2001:db8::7]:4160")


def test_what_a_seed_on_the_same_machine_sees_is_given_up_for_what_others_see() -> None:
    network = VirtualNetwork(seed=6)
    nodes = network.ring(8, settle_s=5)
    joiner = network.add(start=False)
    misinform(network, nodes[0], joiner, "127.0.0.1")
    network.step(joiner, lambda: joiner.core.start([nodes[0].endpoint], network.now))
    network.run_until(lambda: joiner.core.active, 20)
    assert joiner.core.identity.endpoint == joiner.endpoint


def test_one_peer_that_lies_does_not_move_anybody() -> None:
    network = VirtualNetwork(seed=5)
    nodes = network.ring(8, settle_s=10)
    victim, liar = nodes[3], nodes[5]
    misinform(network, liar, victim, "9.9.9.9")
    context = victim.core.context
    peer = context.peers.of(liar.handle)
    for _ in range(20):
        network.step(victim, lambda: context.ask_own_address(peer, network.now))
        network.run(6)
        assert victim.core.identity.endpoint == victim.endpoint
