"""Members of the network who lie: what that may cost others is bounded.

Trust is limited (ALGORITHMS sec. 8 is a later matter), but nobody shall be able to aim a ring at a
third machine, or to make it too busy to look after itself.
"""

from collections.abc import Callable

from pastryd.protocol.context import HEARSAY_HELLOS_BURST, HEARSAY_HELLOS_PER_S
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import encode
from pastryd.wire.messages import IndirectPing, LeafSetProbe, Message, Route, Suspect
from tests.support.network import VirtualNetwork, VirtualNode

HELLO_BYTES = 160
SEALED_BYTES = 65


class Liar:
    """An insider of a ring of six, and a victim outside that never says a word."""

    def __init__(self) -> None:
        self.network = network = VirtualNetwork(seed=3)
        self.nodes = network.ring(6, settle_s=5)
        self.handle = Handle(network.rng.randbytes(32), "10.9.9.9", 4160, 1_000_000)
        self.reaching_victim = 0
        network.others[self.handle.endpoint] = lambda data, sender, now: None
        transmit = network.transmit

        def counted(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
            endpoint = destination.endpoint if isinstance(destination, Handle) else destination
            if endpoint == ("9.9.9.9", 53):
                self.reaching_victim += len(data) + SEALED_BYTES
            transmit(data, sender, destination)

        network.transmit = counted  # type: ignore[method-assign]

    def ghost(self) -> Handle:
        """A node that does not exist, at the victim's address."""
        return Handle(self.network.rng.randbytes(32), "9.9.9.9", 53, 1_000_000)

    def say(self, message: Message, node: VirtualNode) -> None:
        """Tell a node something, well sealed."""
        data = encode(message)
        self.network.step(
            node, lambda: node.core.receive_datagram(data, self.handle, self.network.now)
        )

    def flood(self, made: Callable[[], Message], seconds: float, per_second: int) -> None:
        """Tell all nodes."""
        for _ in range(int(seconds * per_second)):
            for node in self.nodes:
                self.say(made(), node)
            self.network.run(1 / per_second)

    def nonce(self) -> int:
        return self.network.rng.getrandbits(60)

    def probe(self) -> Message:
        """A leaf set full of ghosts."""
        ghosts = tuple(self.ghost() for _ in range(16))
        return LeafSetProbe(self.nonce(), "", 0, True, self.nonce(), 0, 0, ghosts, ())

    def join(self) -> Message:
        """A JOIN of a ghost."""
        ghost = self.ghost()
        payload = self.network.rng.randbytes(8)
        return Route(self.nonce() & 0xFFFFFFFF, ghost.id, ghost, 0, "join", payload, False, ())

    def indirect(self) -> Message:
        """A question whether a ghost lives."""
        return IndirectPing(self.nonce(), self.ghost())


def test_lies_about_addresses_do_not_aim_a_ring_at_a_third_machine() -> None:
    for kind in (Liar.probe, Liar.join, Liar.indirect):
        liar = Liar()
        liar.flood(lambda liar=liar, kind=kind: kind(liar), seconds=3.0, per_second=100)  # type: ignore[misc]
        liar.network.run(5)
        each = HELLO_BYTES * (HEARSAY_HELLOS_BURST + 8 * HEARSAY_HELLOS_PER_S)
        assert 0 < liar.reaching_victim <= len(liar.nodes) * each, kind


def test_lies_about_members_leave_room_for_true_questions() -> None:
    liar = Liar()
    liar.flood(liar.probe, seconds=2.0, per_second=200)
    liar.flood(liar.indirect, seconds=1.0, per_second=400)
    for node in liar.nodes:
        assert len(node.core._requests) < 200
    joined = liar.network.add([liar.nodes[0]])
    liar.flood(liar.probe, seconds=5.0, per_second=20)
    liar.network.run(10)
    assert joined.core.active
    assert not any(
        liar.network.by_endpoint.get(node.endpoint) is None or not node.core.active
        for node in liar.nodes
    )


def test_an_accusation_that_was_refuted_already_is_answered_to_the_accuser_alone() -> None:
    liar = Liar()
    node = liar.nodes[0]
    sent = node.sent
    liar.say(Suspect(node.core.identity.id, node.core.identity.incarnation - 1), node)
    assert node.sent - sent <= 1
