"""Members of the network who lie: what that may cost others is bounded.

Trust is limited (ALGORITHMS sec. 8 is a later matter), but nobody shall be able to aim a ring at a
third machine, or to make it too busy to look after itself.
"""

from collections.abc import Callable

import pytest

from pastryd.ids import RING, clockwise
from pastryd.protocol.context import (
    HEARSAY_HELLOS_BURST,
    HEARSAY_HELLOS_PER_S,
    HELLO_PADDING,
)
from pastryd.protocol.join import ASKED_MAX
from pastryd.protocol.liveness import REFUTATIONS_BURST
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import (
    HANDLES_MAX,
    Hello,
    Hop,
    HopAck,
    IndirectPing,
    LeafSetProbe,
    LeafSetReply,
    Leave,
    Message,
    Ping,
    Pong,
    Route,
    RowReply,
    RowRequest,
    Suspect,
    Welcome,
)
from tests.support.network import VirtualNetwork, VirtualNode

HELLO_BYTES = 160
SEALED_BYTES = 65


class Liar:
    """An insider of a small ring, and a victim outside that never says a word."""

    def __init__(self, nodes: int = 6) -> None:
        self.network = network = VirtualNetwork(seed=3)
        self.nodes = network.ring(nodes, settle_s=5)
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
        return LeafSetProbe(self.nonce(), "", 0, True, False, 0, b"", ghosts, ())

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


def test_who_names_ever_more_nodes_to_ask_makes_a_joiner_say_a_few_hellos() -> None:
    """A joiner asks whom joiners name; its attempts, not the liar, say how many at most."""
    liar = Liar()
    network = liar.network
    names = 0

    def answer(data: bytes, sender: Handle, now: float) -> None:
        nonlocal names
        hello = decode(data)
        if isinstance(hello, Hello):
            host = f"9.9.{names // 200}.{names % 200}"
            names += 1
            said = encode(Welcome(hello.nonce, liar.handle, "", 0, False, host, 53, 0))
            network.step(joiner, lambda: joiner.core.receive_datagram(said, liar.handle, now))

    joiner = network.add(start=False)
    network.others[liar.handle.endpoint] = answer
    for number in range(200):
        network.others[f"9.9.0.{number}", 53] = answer
    network.step(joiner, lambda: joiner.core.start([liar.handle.endpoint], network.now))
    network.run(0.25)
    assert joiner.sent == ASKED_MAX, "of one attempt"
    network.step(joiner, lambda: joiner.core.add_seeds([liar.nodes[0].endpoint]))
    network.run_until(lambda: joiner.core.active, 20)


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
    liar.say(Suspect(node.core.identity.id, node.core.identity.incarnation - 1, ()), node)
    assert node.sent - sent <= 1


def _says_twin(node: VirtualNode) -> bool:
    return any(event.event == "identity_used_twice" for _, event in node.logged)


def test_a_node_learns_that_a_copy_of_its_identity_runs_elsewhere() -> None:
    network = VirtualNetwork(seed=7)
    older, other = network.ring(2, settle_s=5)
    key = older.core.identity.public_key
    network.crash(older)
    newer = network.add([other], public_key=key, endpoint=("10.0.0.77", 4160))
    network.run(2)
    hello = encode(Hello(5, HELLO_PADDING))
    said: list[Message] = []
    transmit = network.transmit

    def heard(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        if isinstance(destination, Handle) and destination.endpoint == older.endpoint:
            said.append(decode(data))
        transmit(data, sender, destination)

    network.transmit = heard  # type: ignore[method-assign]
    network.step(other, lambda: other.core.receive_hello(hello, older.handle, network.now))
    suspects = [message for message in said if isinstance(message, Suspect)]
    assert suspects == [Suspect(newer.handle.id, newer.handle.incarnation, (newer.handle,))]

    def receive() -> None:
        for message in said:
            older.core.receive_datagram(encode(message), other.handle, network.now)

    network.step(older, receive)
    assert _says_twin(older)
    assert older.core.identity.incarnation < newer.core.identity.incarnation
    assert not _says_twin(newer)
    network.step(newer, lambda: newer.core.receive_hello(hello, older.handle, network.now))
    assert _says_twin(newer)


def test_hearsay_about_a_new_address_does_not_cut_off_a_node_that_lives() -> None:
    liar = Liar()
    victim = liar.nodes[1]
    key, incarnation = victim.core.identity.public_key, victim.core.identity.incarnation
    moved = Handle(key, "9.9.9.9", 53, incarnation + 1)
    for _ in range(200):
        for node in liar.nodes:
            liar.say(IndirectPing(liar.nonce(), moved), node)
        liar.network.run(0.02)
    assert liar.network.is_consistent()
    for node in liar.nodes:
        events = [(event.event, event.fields) for _, event in node.logged]
        assert not [fields for event, fields in events if event == "peer_liveness"]


def test_farewells_of_all_that_are_replayed_to_a_restarted_node_are_soon_undone() -> None:
    """What `docs/wire.md` says of replays: it opens there, from any address."""
    network = VirtualNetwork(seed=3)
    nodes = network.ring(6, settle_s=5)
    old, others = nodes[0], nodes[1:]
    network.crash(old)
    again = network.add(others, public_key=old.handle.public_key, endpoint=old.endpoint)
    network.run_until(lambda: again.core.active, 20)
    network.run(2)
    for node in others:
        leave = encode(Leave(node.handle.incarnation))
        sender = node.handle.at(("9.9.9.9", 53))
        network.step(
            again,
            lambda leave=leave, sender=sender: again.core.receive_datagram(
                leave, sender, network.now
            ),
        )
    assert len(again.core.context.leaf_set) == 0
    network.run(8)
    assert network.is_consistent()
    for node in others:
        peer = again.core.context.peers.get(node.handle.id)
        assert peer is not None and peer.endpoint == node.endpoint


def test_a_flood_of_accusations_is_refuted_a_bounded_number_of_times() -> None:
    liar = Liar()
    node = liar.nodes[0]
    first = node.core.identity.incarnation
    for _ in range(500):
        liar.say(Suspect(node.core.identity.id, node.core.identity.incarnation, ()), node)
    liar.network.run(3)
    assert 1 <= node.core.identity.incarnation - first <= REFUTATIONS_BURST
    assert liar.network.is_consistent()


def test_a_near_node_that_swallows_joins_is_gone_around_in_the_next_attempt() -> None:
    liar = Liar()
    network = liar.network
    joiner = network.add(start=False)
    swallowed = 0

    def answer(data: bytes, sender: Handle, now: float) -> None:
        nonlocal swallowed
        asked = decode(data)
        said: Message | None = None
        if isinstance(asked, Hello):
            said = Welcome(asked.nonce, liar.handle, *joiner.endpoint, True, "", 0, 1)
        elif isinstance(asked, Ping):
            said = Pong(asked.nonce, 0)
        elif isinstance(asked, RowRequest):
            said = RowReply(asked.nonce, 0, ())
        elif isinstance(asked, Route):
            swallowed += 1
            said = HopAck((asked.seq,))
        if said is not None:
            data = encode(said)
            network.step(joiner, lambda: joiner.core.receive_datagram(data, liar.handle, now))

    network.others[liar.handle.endpoint] = answer
    seeds = [network.nodes[0].endpoint, network.nodes[1].endpoint, liar.handle.endpoint]
    network.step(joiner, lambda: joiner.core.start(seeds, network.now))
    network.run_until(lambda: joiner.core.active, 20)
    assert swallowed > 0


def _ghosts_beside(liar: Liar, joiner: VirtualNode) -> Message:
    """A leaf set of nodes that do not exist, all nearer to a joiner than any other."""
    ghosts: list[Handle] = []
    while len(ghosts) < HANDLES_MAX:
        ghost = liar.ghost()
        if min(clockwise(joiner.id, ghost.id), clockwise(ghost.id, joiner.id)) < RING // 80:
            ghosts.append(ghost)
    return LeafSetProbe(liar.nonce(), "", 0, True, False, 0, b"", tuple(ghosts), ())


@pytest.mark.parametrize("per_second", [2, 20])
def test_who_tells_of_ever_new_neighbours_does_not_keep_a_joiner_waiting(per_second: int) -> None:
    liar = Liar(20)
    joiner = liar.network.add([liar.nodes[0]])
    config = joiner.core.context.config
    silent_s = (2 ** (config.probe_attempts + 1) - 1) * config.probe_timeout_s
    until = liar.network.now + 3 * silent_s
    while not joiner.core.active and liar.network.now < until:
        liar.say(_ghosts_beside(liar, joiner), joiner)
        liar.network.run(1 / per_second)
    assert joiner.core.active
    known = {handle.id for handle in joiner.core.context.leaf_set.members()}
    assert len(known & {node.id for node in liar.nodes}) >= 15


def test_who_takes_a_joiner_for_a_neighbour_before_its_root_has_does_not_make_it_active() -> None:
    liar = Liar(20)
    network = liar.network
    joiner = network.add(start=False)
    accomplice = Handle(network.rng.randbytes(32), "10.9.9.8", 4160, 1)

    def answer_as(handle: Handle) -> Callable[[bytes, Handle, float], None]:
        def answer(data: bytes, sender: Handle, now: float) -> None:
            asked = decode(data)
            if isinstance(asked, LeafSetProbe):
                reply = LeafSetReply(asked.nonce, "", 0, True, False, 0, b"", (), ())
                said = encode(reply)
                network.step(joiner, lambda: joiner.core.receive_datagram(said, handle, now))

        return answer

    for handle in (liar.handle, accomplice):
        network.others[handle.endpoint] = answer_as(handle)
    network.step(joiner, lambda: joiner.core.start([liar.nodes[0].endpoint], network.now))
    probe = LeafSetProbe(liar.nonce(), "", 0, True, False, 0, b"", (accomplice,), ())
    liar.say(probe, joiner)
    network.run_until(lambda: joiner.core.active, 0.5)
    known = {handle.id for handle in joiner.core.context.leaf_set.members()}
    assert len(known & {node.id for node in liar.nodes}) >= 14


def _accuse(liar: Liar, accused: VirtualNode, seconds: int, before: Callable[[], None]) -> None:
    """Call a node dead to all others, ten times a second."""
    for number in range(10 * seconds):
        if number % 10 == 0:
            before()
        for node in liar.nodes:
            if node is not accused:
                liar.say(Suspect(accused.id, accused.core.identity.incarnation, ()), node)
        liar.network.run(0.1)


def _beliefs_of(node: VirtualNode, nodes: list[VirtualNode]) -> list[object]:
    """What others came to believe of a node's life."""
    return [
        event.fields["now"]
        for other in nodes
        for _, event in other.logged
        if event.event == "peer_liveness" and event.fields["peer"] == f"{node.id:032x}"
    ]


def test_a_key_alone_is_no_witness_of_a_death_on_a_lossy_network() -> None:
    liar = Liar(10)
    accused = liar.nodes[4]
    liar.network.loss = 0.02
    _accuse(liar, accused, 10, lambda: None)
    assert _beliefs_of(accused, liar.nodes) == []
    assert liar.nodes[0].core.stats.snapshot()["accusers_not_believed"] > 50


@pytest.mark.parametrize("is_watcher", [False, True])
def test_a_member_that_lies_about_deaths_convicts_nobody_on_a_lossy_network(
    is_watcher: bool,
) -> None:
    """Not even the left neighbour of the accused, whom one ping has to confirm."""
    liar = Liar(10)
    network, accused = liar.network, liar.nodes[4]
    left = accused.core.context.leaf_set.immediate_left
    assert left is not None
    while (clockwise(left.id, liar.handle.id) < clockwise(left.id, accused.id)) is not is_watcher:
        liar.handle = Handle(network.rng.randbytes(32), "10.9.9.9", 4160, 1_000_000)

    def answer(data: bytes, sender: Handle, now: float) -> None:
        asked = decode(data)
        if isinstance(asked, Ping):
            liar.say(Pong(asked.nonce, 0), network.by_endpoint[sender.endpoint])

    def become_a_member() -> None:
        for node in liar.nodes:
            probe = LeafSetProbe(liar.nonce(), "", 0, True, False, 0, b"", (), ())
            liar.say(probe, node)

    network.others[liar.handle.endpoint] = answer
    network.loss = 0.02
    _accuse(liar, accused, 10, become_a_member)
    assert all(liar.handle.id in node.core.context.leaf_set for node in liar.nodes)
    assert "dead" not in _beliefs_of(accused, liar.nodes)


def test_a_row_that_names_a_joiner_alone_ends_its_walk() -> None:
    """There is nobody to measure: it joins through whom it has."""
    liar = Liar()
    network = liar.network
    joiner = network.add(start=False)
    asked: list[Message] = []

    def answer(data: bytes, sender: Handle, now: float) -> None:
        question = decode(data)
        asked.append(question)
        if isinstance(question, RowRequest):
            row = tuple(Hop(joiner.handle, 1) for _ in range(HANDLES_MAX))
            liar.say(RowReply(question.nonce, 0, row), joiner)

    network.others[liar.handle.endpoint] = answer
    peer = joiner.core.context.peers.of(liar.handle)
    peer.srtt_s = 0.1
    walk = joiner.core.joiner._near_node
    network.step(joiner, lambda: walk.search(peer, network.now))
    network.run(0.1)
    assert [type(message) for message in asked[:2]] == [RowRequest, Route]


def healed_s(lies: bool) -> float:
    """Return how long leaf sets are not what they should be after a death in a ring of 40."""
    liar = Liar(40)
    network = liar.network
    if lies:
        for node in liar.nodes:
            for member in node.core.context.leaf_set.members():
                liar.say(Suspect(member.id, member.incarnation, (liar.ghost(),)), node)
    network.run(5)
    network.crash(liar.nodes[5])
    died_at = network.now
    network.run_until(network.is_consistent, 20)
    return network.now - died_at


def test_made_up_heirs_of_those_who_live_do_not_take_the_place_of_true_ones() -> None:
    assert healed_s(lies=True) < healed_s(lies=False) + 0.2
