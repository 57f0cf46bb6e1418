"""Two nodes under one identity: the older one stops on proof, and on nothing less.

Why a `Welcome` under our own key, and no word of a peer, is one: docs/decisions/0035.
"""

import pytest

from pastryd.protocol.context import HELLO_PADDING
from pastryd.protocol.twins import (
    ASKS_BURST,
    ASKS_PER_S,
    RAISE_BELIEVED_MAX,
    RAISES_BURST,
    RAISES_PER_S,
)
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import Alive, Hello, Message, Suspect, Welcome
from tests.support.network import SealedNetwork, VirtualNode

ELSEWHERE: Endpoint = ("10.0.0.77", 4160)


def copy_of(
    network: SealedNetwork, node: VirtualNode, *seeds: VirtualNode, start: bool = True
) -> VirtualNode:
    """Start a node on a copy of another one's data directory."""
    key = node.handle.public_key
    return network.add(seeds, public_key=key, endpoint=ELSEWHERE, start=start)


def says_twin(node: VirtualNode) -> bool:
    return any(event.event == "identity_used_twice" for _, event in node.logged)


@pytest.mark.parametrize("size", [2, 3, 6, 30])
def test_the_older_of_two_nodes_with_one_identity_stops(size: int) -> None:
    network = SealedNetwork(seed=7)
    older, *others = network.ring(size, settle_s=30)
    newer = copy_of(network, older, others[-1])
    network.run_until(lambda: not older.running, 6)
    assert network.superseded == [older]
    network.run(5)
    assert newer.core.active and network.is_consistent()
    assert says_twin(older)


def test_the_older_one_stops_in_spite_of_loss() -> None:
    network = SealedNetwork(seed=11, loss=0.2)
    older, *others = network.ring(6, settle_s=10)
    newer = copy_of(network, older, others[0])
    network.run_until(lambda: not older.running, 60)
    assert network.superseded == [older] and newer.running


@pytest.mark.parametrize("seed", range(4))
def test_the_older_one_of_a_ring_of_two_stops_in_spite_of_loss(seed: int) -> None:
    """It knows one peer alone, and no word of the proof may be lost for good."""
    network = SealedNetwork(seed=seed)
    older, other = network.ring(2, settle_s=20)
    network.loss = 0.2
    copy_of(network, older, other)
    network.run_until(lambda: not older.running, 150)
    assert network.superseded == [older]


def test_who_comes_back_with_an_earlier_incarnation_than_its_twin_has_stops_before_it_serves() -> (
    None
):
    """The clock of one machine is wrong: it is the newer process, and the older life."""
    network = SealedNetwork(seed=5)
    first, *others = network.ring(4, settle_s=5)
    late = copy_of(network, first, start=False)
    network.step(first, lambda: _grow(first, late.core.identity.incarnation + 10))
    network.run(3)
    network.step(late, lambda: late.core.start([n.endpoint for n in others], network.now))
    network.run_until(lambda: not late.running, 10)
    assert network.superseded == [late] and not late.core.active
    network.run(3)
    assert network.is_consistent()


def _grow(node: VirtualNode, incarnation: int) -> None:
    """Let it live on in a higher incarnation, as after many refutations."""
    context = node.core.context
    context.identity = context.identity.reborn(incarnation)
    for handle in context.leaf_set.members():
        context.send(Alive(incarnation), context.peers.of(handle), 0.0)


class Liar:
    """A member of the network, without the key of the node that it wants to stop."""

    def __init__(self) -> None:
        self.network = network = SealedNetwork(seed=3)
        self.nodes = network.ring(6, settle_s=5)
        self.victim = self.nodes[0]
        self.handle = Handle(network.rng.randbytes(32), "10.9.9.9", 4160, 1_000_000)
        self.asked: list[Hello] = []
        network.others[self.handle.endpoint] = self._hear

    @property
    def twin(self) -> Handle:
        """A later life of the victim that does not exist, where the liar listens."""
        own = self.victim.handle
        return own.reborn(own.incarnation + 100).at(self.handle.endpoint)

    def _hear(self, data: bytes, sender: Handle, now: float) -> None:
        message = decode(data)
        if isinstance(message, Hello) and sender.id == self.victim.id:
            self.asked.append(message)

    def claim(self, by: Handle | None = None) -> None:
        """Tell the victim that a later life of it runs at the liar's address."""
        twin = self.twin
        self.say(Suspect(twin.id, twin.incarnation, (twin,)), by or self.handle)

    def say(self, message: Message, sender: Handle) -> None:
        core, now = self.victim.core, self.network.now
        self.network.step(self.victim, lambda: core.receive_datagram(encode(message), sender, now))

    def say_hello(self, message: Message) -> None:
        """Say something in the victim's name, sealed with the network key."""
        core, now = self.victim.core, self.network.now
        self.network.step(self.victim, lambda: core.receive_hello(encode(message), self.twin, now))

    def welcome(self, nonce: int, active: bool = True) -> Welcome:
        return Welcome(nonce, self.twin, *self.victim.endpoint, active, "", 0, 1)

    def nobody_minds(self) -> bool:
        self.network.run(5)
        return not self.network.superseded and self.network.is_consistent()


def test_however_many_liars_claim_a_later_life_of_a_node_it_goes_on() -> None:
    liar = Liar()
    for _ in range(20):
        for number in range(10):
            liar.claim(Handle(bytes([number]) * 32, f"10.9.8.{number}", 4160, 1_000_000))
        liar.network.run(0.1)
    assert liar.asked and says_twin(liar.victim)
    assert liar.nobody_minds()


def test_an_answer_that_is_not_sealed_with_its_own_key_stops_no_node() -> None:
    liar = Liar()
    liar.claim()
    liar.network.run(0.1)
    (hello,) = liar.asked
    liar.say(liar.welcome(hello.nonce), liar.handle)
    liar.say_hello(liar.welcome(hello.nonce))
    assert liar.nobody_minds()


def test_true_answers_to_other_questions_stop_no_node() -> None:
    """Replays, and what a twin says that does not serve, or is the earlier one."""
    liar = Liar()
    victim, network = liar.victim, liar.network
    liar.claim()
    network.run(0.1)
    (hello,) = liar.asked
    own = victim.handle
    said: list[tuple[Message, Handle]] = [
        (liar.welcome(hello.nonce + 1), liar.twin),
        (Alive(liar.twin.incarnation), liar.twin),
        (Suspect(own.id, liar.twin.incarnation, ()), liar.twin),
        (liar.welcome(hello.nonce, active=False), liar.twin),
        (liar.welcome(hello.nonce), liar.twin),  # it was answered already
    ]
    for message, sender in said:
        data = encode(message)
        network.step(victim, lambda d=data, s=sender: victim.core.receive_twin(d, s, network.now))
    network.step(victim, lambda: victim.core.receive_twin(b"\xff", liar.twin, network.now))
    liar.network.run(5)
    liar.claim()
    network.run(0.1)
    data = encode(liar.welcome(liar.asked[-1].nonce))
    network.step(victim, lambda: victim.core.receive_twin(data, own, network.now))
    assert liar.nobody_minds()
    counters = victim.core.stats.counters
    assert (counters["answers_unexpected"], counters["messages_unexpected"]) == (4, 2)
    assert counters["messages_malformed"] == 1


def test_a_node_whose_own_address_is_called_its_twins_goes_on() -> None:
    liar = Liar()
    twin = liar.twin.at(liar.victim.endpoint)
    for _ in range(3):
        liar.say(Suspect(twin.id, twin.incarnation, (twin,)), liar.handle)
        # In a new life its own question is an earlier one's.
        own = liar.victim.core.identity
        liar.say(Suspect(own.id, own.incarnation, ()), liar.handle)
        liar.network.run(1)
    assert liar.nobody_minds()


def test_claims_aim_a_node_at_an_address_a_few_times_only() -> None:
    liar = Liar()
    for _ in range(200):
        liar.claim()
        liar.say_hello(Hello(liar.network.rng.getrandbits(60), HELLO_PADDING))
        liar.network.run(0.05)
    assert 0 < len(liar.asked) <= 2 * (ASKS_BURST + 10 * ASKS_PER_S)


def test_who_is_remembered_in_a_later_life_at_its_own_address_goes_on_in_a_still_later_one() -> (
    None
):
    """A backup of its data directory was restored, and its clock was ahead in between."""
    network = SealedNetwork(seed=4)
    late, *others = network.ring(5, settle_s=5)
    network.step(late, lambda: _grow(late, late.handle.incarnation + 10**12))
    network.run(3)
    remembered = late.core.identity.incarnation
    again = network.restart(late, others)
    assert again.core.identity.incarnation < remembered
    network.run_until(network.is_consistent, 5)
    assert again.core.identity.incarnation == remembered + 1
    assert not says_twin(again) and not network.superseded


def test_a_twin_that_advertises_our_own_address_is_asked_where_it_is_heard() -> None:
    """The settings were copied, too."""
    network = SealedNetwork(seed=9)
    older, *others = network.ring(5, settle_s=5)
    newer = copy_of(network, older, start=False)
    context = newer.core.context
    context.identity = context.identity.at(older.endpoint)
    network.step(newer, lambda: newer.core.start([others[0].endpoint], network.now))
    network.run_until(lambda: not older.running, 10)
    assert network.superseded == [older]
    assert older.core.identity.incarnation < newer.core.identity.incarnation


def test_who_lies_about_its_later_life_at_its_own_address_raises_it_seldom_and_not_for_good() -> (
    None
):
    liar = Liar()
    first = liar.victim.core.identity.incarnation
    for by in (2**64 - 1 - first, RAISE_BELIEVED_MAX - first):
        twin = liar.twin.reborn(first + by).at(liar.victim.endpoint)
        liar.say(Suspect(twin.id, twin.incarnation, (twin,)), liar.handle)
    assert liar.victim.core.identity.incarnation == first
    for _ in range(100):
        twin = liar.twin.at(liar.victim.endpoint)
        liar.say(Suspect(twin.id, twin.incarnation, (twin,)), liar.handle)
        liar.network.run(0.1)
    raised = (liar.victim.core.identity.incarnation - first) // 101
    assert 0 < raised <= RAISES_BURST + 10 * RAISES_PER_S
    assert liar.nobody_minds()


def test_a_node_that_restarts_elsewhere_is_not_told_that_it_is_its_own_twin() -> None:
    network = SealedNetwork(seed=4)
    old, *others = network.ring(5, settle_s=5)
    network.crash(old)
    again = copy_of(network, old, others[0])
    network.run(30)
    assert network.is_consistent() and not network.superseded
    assert not any(says_twin(node) for node in (again, *others))


def test_an_older_one_that_cannot_reach_the_newer_one_does_not_greet_for_ever_at_that_pace() -> (
    None
):
    """A firewall between those two alone: peers answer its Hellos, and hear nothing else of it."""
    network = SealedNetwork(seed=7)
    *others, older = network.ring(3, settle_s=30)
    newer = copy_of(network, older, others[0], start=False)
    network.cut(older, newer)
    network.step(newer, lambda: newer.core.start([others[0].endpoint], network.now))
    network.run(60)
    assert older.running and says_twin(older)
    sent, told = older.sent, len(older.logged)
    network.run(120)
    assert older.sent - sent < 300
    assert len(older.logged) - told < 60
