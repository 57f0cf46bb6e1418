"""Clients that ask the holders themselves: what it costs, and that nothing depends on it."""

from random import Random

import pytest

from pastryd.ids import position_of
from pastryd.protocol.client_call import Question, Reply
from pastryd.protocol.client_ring import LEARN_AFTER
from pastryd.protocol.items import name_of
from pastryd.state.handle import Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import Answer, Pull, Segment, Stored
from pastryd.wire.verbs import AnswerStatus, StoreStatus, Verb
from tests.support.network import VirtualNetwork, VirtualNode
from tests.support.oracle import replica_ids
from tests.support.virtual_client import VirtualClient


class Ring:
    """A virtual ring, and a client that has asked for so much that it knows the ring."""

    def __init__(self, size: int, seed: int = 1, *, beside: bool = False) -> None:
        self.network = VirtualNetwork(seed)
        self.network.ring(size)
        self.rng = Random(seed)
        self.values: list[bytes] = []
        self.client = VirtualClient(self.network, self.network.nodes[0], beside=beside)
        self.ask_much()

    def ask_much(self) -> None:
        """Put and get until everybody that is to be greeted has answered."""
        for _ in range(2 * LEARN_AFTER + 4 * len(self.network.nodes)):
            self.client.get(self.put())

    def put(self, size: int = 300) -> bytes:
        value = self.rng.randbytes(size)
        reply = self.client.put(value)
        assert (reply.status, reply.number) == (AnswerStatus.OK, 3)
        self.values.append(value)
        return value

    def holders(self, value: bytes) -> list[VirtualNode]:
        by_id = {node.id: node for node in self.network.live}
        closest = replica_ids(position_of(name_of(value)), by_id, 3)
        return [by_id[node_id] for node_id in closest]

    def put_elsewhere(self, size: int = 300) -> bytes:
        """Put something that the access node does not hold, nor cache."""
        while True:
            value = self.rng.randbytes(size)
            if self.client.access not in self.holders(value):
                VirtualClient(self.network, self.network.live[-1]).put(value)
                return value

    @property
    def passed_over(self) -> int:
        return self.client.session.stats.counters.get("holders_passed_over", 0)

    def quiet(self) -> None:
        """Check that the datagrams of a moment without requests do not count for much."""
        before = self.network.datagrams
        self.network.run(0.01)
        assert self.network.datagrams - before <= 1


def test_a_get_is_two_datagrams_and_a_put_two_for_each_copy() -> None:
    ring = Ring(8)
    for _ in range(10):
        value = ring.put_elsewhere()
        before = ring.client.datagrams
        took_s = ring.client.get(value).after_s
        assert ring.client.datagrams - before == 2
        assert took_s == pytest.approx(0.002, rel=0.1)
        before = ring.client.datagrams
        stored = ring.put()
        assert ring.client.datagrams - before == 6
        assert all(node.core.items.storage.holds(name_of(stored)) for node in ring.holders(stored))
    assert ring.passed_over == 0


def test_a_little_is_fetched_from_the_client_at_once_and_much_if_somebody_lacks_it() -> None:
    ring = Ring(8)
    little, much = ring.rng.randbytes(8_000), ring.rng.randbytes(100_000)
    # Eight times 1 ms: the request, a pull and what it brings, the same for the replicas behind
    # their offers, how it went, the answer. And the time that segments take.
    assert ring.client.put(little).after_s < 0.0099
    ring.client.put(much)
    again = VirtualClient(ring.network, ring.network.nodes[4])
    before = again.datagrams
    assert again.put(much).number == 3
    assert again.datagrams - before == 2


class Pullers:
    """Who pulls from a client."""

    def __init__(self, ring: Ring) -> None:
        self.ids: set[int] = set()
        ring.client.spoils = self.note

    def note(self, data: bytes, sender: Handle) -> bytes:
        if isinstance(decode(data), Pull):
            self.ids.add(sender.id)
        return data


@pytest.mark.parametrize(("size", "at_most_s"), [(8_000, 0.0055), (300_000, 0.03), (1 << 20, 0.1)])
def test_beside_the_access_node_what_is_long_is_pulled_by_all_that_are_to_hold_it(
    size: int, at_most_s: float
) -> None:
    ring = Ring(8, beside=True)
    while ring.client.access in ring.holders(value := ring.rng.randbytes(size)):
        pass
    pullers = Pullers(ring)
    reply = ring.client.put(value)
    assert (reply.status, reply.number) == (AnswerStatus.OK, 3)
    assert pullers.ids == {node.id for node in ring.holders(value)}
    assert all(node.core.items.storage.holds(name_of(value)) for node in ring.holders(value))
    assert reply.after_s < at_most_s
    pullers.ids.clear()
    before = ring.client.datagrams
    assert ring.client.put(value).number == 3
    assert (pullers.ids, ring.client.datagrams - before) == (set(), 6)
    assert ring.passed_over == 0
    ring.client.session.check_invariants()


def test_from_another_machine_it_is_pulled_once() -> None:
    ring = Ring(8)
    pullers = Pullers(ring)
    for size in (8_000, 300_000):
        ring.put(size)
    assert pullers.ids == {ring.client.access.id}


def test_a_long_put_to_a_holder_that_dies_is_the_access_nodes() -> None:
    ring = Ring(8, beside=True)
    rng = ring.rng
    for size in (8_000, 300_000):
        while ring.client.access in ring.holders(value := rng.randbytes(size)):
            pass
        ring.network.crash(ring.holders(value)[1])
        reply = ring.client.put(value)
        assert (reply.status, reply.number) == (AnswerStatus.OK, 3)
        ring.client.get(value)
    assert ring.passed_over == 2


def test_a_long_put_that_holders_refuse_is_the_access_nodes() -> None:
    ring = Ring(8, beside=True)
    rng = ring.rng

    def spoil(data: bytes, sender: Handle) -> bytes:
        message = decode(data)
        if isinstance(message, Stored) and sender.id != ring.client.access.id:
            return encode(message._replace(status=rng.choice([*StoreStatus][1:])))
        return data

    ring.client.spoils = spoil
    for size in (8_000, 300_000):
        ring.put(size)
    assert ring.passed_over == 2


def test_a_long_put_that_is_given_up_leaves_nothing_behind() -> None:
    ring = Ring(8, beside=True)
    client, network = ring.client, ring.network
    value = ring.rng.randbytes(1 << 20)
    question = Question(Verb.PUT, name_of(value), len(value), value, 30.0)
    asked = client.session.ask(question, network.now)
    client.drain()
    network.run(0.004)
    assert any(node.core.items.transfer.is_pulling(name_of(value)) for node in network.nodes)
    client.session.cancel(asked, network.now)
    client.session.check_invariants()
    network.run(20)
    assert not any(node.core.items.transfer.is_pulling(name_of(value)) for node in network.nodes)
    assert not any(node.core.items.storage.holds(name_of(value)) for node in network.nodes)


def test_what_is_too_long_for_a_datagram_comes_from_all_that_hold_it() -> None:
    ring = Ring(8)
    value = ring.put_elsewhere(400_000)
    senders: set[int] = set()

    def note(data: bytes, sender: Handle) -> bytes:
        if isinstance(decode(data), Segment):
            senders.add(sender.id)
        return data

    ring.client.spoils = note
    ring.client.get(value)
    assert senders == {node.id for node in ring.holders(value)}
    assert ring.passed_over == 0


@pytest.mark.parametrize("size", [300, 200_000])
def test_a_holder_that_dies_is_passed_over_at_once(size: int) -> None:
    ring = Ring(8)
    values = [ring.put_elsewhere(size) for _ in range(6)]
    for value in values:
        victim = ring.holders(value)[0]
        if victim is ring.client.access or len(ring.network.live) < 6:
            continue
        ring.network.crash(victim)
        assert ring.client.get(value).after_s < 0.5
    assert ring.passed_over > 0


def test_a_holder_that_answers_something_else_is_asked_again_for_what_was_lost() -> None:
    ring = Ring(8)
    lost = ring.put_elsewhere()
    holder = ring.holders(lost)[0]
    other = ring.put_elsewhere()
    while ring.holders(other)[0] is not holder:
        other = ring.put_elsewhere()
    answers = 0

    def spoil(data: bytes, sender: Handle) -> bytes | None:
        nonlocal answers
        message = decode(data)
        if isinstance(message, Answer) and message.data == lost and sender.id == holder.id:
            answers += 1
            return None if answers == 1 else data
        return data

    ring.client.spoils = spoil
    session, now = ring.client.session, ring.network.now
    asked = [
        session.ask(Question(Verb.GET, name_of(value), 0, None, 30.0), now)
        for value in (lost, other)
    ]
    for request_id, value in zip(asked, (lost, other), strict=True):
        reply = ring.client.wait(request_id)
        assert isinstance(reply, Reply) and bytes(reply.data) == value
    assert (answers, ring.passed_over) == (2, 0)


def test_a_put_whose_replicas_died_is_seen_to_by_the_access_node() -> None:
    ring = Ring(8)
    value = ring.rng.randbytes(300)
    for node in ring.holders(value)[:2]:
        if node is not ring.client.access:
            ring.network.crash(node)
    reply = ring.client.put(value)
    assert (reply.status, reply.number) == (AnswerStatus.OK, 3)
    assert ring.passed_over == 1
    ring.client.get(value)


def test_wrong_bytes_refusals_and_lies_of_holders_cost_a_round_trip() -> None:
    ring = Ring(8)
    lies = ring.rng

    def spoil(data: bytes, sender: Handle) -> bytes:
        message = decode(data)
        if sender.id == ring.client.access.id:
            return data
        if isinstance(message, Answer):
            statuses = [AnswerStatus.NOT_FOUND, AnswerStatus.INDEX, AnswerStatus.BUSY, 200]
            status = lies.choice([AnswerStatus.OK, *statuses])
            return encode(message._replace(data=lies.randbytes(message.size), status=status))
        if isinstance(message, Stored):
            return encode(message._replace(status=lies.choice([*StoreStatus][1:])))
        return data

    ring.client.spoils = spoil
    for _ in range(40):
        value = ring.put_elsewhere()
        ring.client.get(value)
        ring.put()
    assert ring.passed_over >= 40


def test_who_names_another_item_costs_a_round_trip() -> None:
    ring = Ring(8)
    value = ring.put_elsewhere(5000)

    def spoil(data: bytes, sender: Handle) -> bytes:
        message = decode(data)
        if sender.id != ring.client.access.id and isinstance(message, Answer):
            return encode(message._replace(name=name_of(b"another"), data=b""))
        return data

    ring.client.spoils = spoil
    ring.client.get(value)
    assert ring.passed_over == 1


def test_a_holder_that_only_drips_leaves_time_for_the_access_node() -> None:
    ring = Ring(8)
    value = ring.put_elsewhere(100_000)
    seen = 0

    def spoil(data: bytes, sender: Handle) -> bytes | None:
        nonlocal seen
        if sender.id == ring.client.access.id or not isinstance(decode(data), Segment):
            return data
        seen += 1
        return data if seen % 100 == 0 else None

    ring.client.spoils = spoil
    assert ring.client.get(value).after_s < 20


def test_holders_that_never_come_to_an_end_leave_time_for_the_access_node() -> None:
    ring = Ring(8)
    value = ring.put_elsewhere(100_000)
    heard_at = 0.0

    def spoil(data: bytes, sender: Handle) -> bytes | None:
        nonlocal heard_at
        if sender.id == ring.client.access.id or not isinstance(decode(data), Segment):
            return data
        if ring.network.now < heard_at + 1:
            return None
        heard_at = ring.network.now  # a sign of life, and that for longer than anybody waits
        return data

    ring.client.spoils = spoil
    ring.client.get(value)
    assert ring.passed_over == 1


def test_a_holder_that_is_later_each_time_costs_a_get_no_more_than_a_moment() -> None:
    ring = Ring(8)
    slow = ring.holders(ring.put_elsewhere())[0]
    client, network = ring.client, ring.network
    late_s = 0.04

    def spoil(data: bytes, sender: Handle) -> bytes | None:
        if sender.id != slow.id or not isinstance(decode(data), Answer):
            return data

        def arrive() -> None:
            client.session.receive_datagram(data, sender, network.now)
            client.drain()

        network.at(network.now + late_s, arrive)
        return None

    client.spoils = spoil
    longest = 0.0
    while late_s < 0.8:
        value = ring.put_elsewhere()
        took_s = client.get(value).after_s
        longest = max(longest, took_s)
        if ring.holders(value)[0] is slow:
            late_s *= 1.1
    assert longest < 0.35


def test_an_answer_to_a_store_does_not_make_the_access_node_begin_again() -> None:
    ring = Ring(8)
    name = name_of(ring.put_elsewhere(100_000))
    session = ring.client.session
    session.ask(Question(Verb.STAT, name, 0, None, 30.0), ring.network.now)
    (nonce,) = session._requests._asked
    stored = encode(Stored(nonce, StoreStatus.OK))
    session.receive_datagram(stored, ring.client.access.core.identity, ring.network.now)
    assert list(session._requests._asked) == [nonce]
    assert session.stats.counters["answers_unknown"] == 1 and ring.passed_over == 0


def test_large_items_of_a_liar_come_from_others() -> None:
    ring = Ring(8)
    value = ring.put_elsewhere(100_000)
    liar = ring.holders(value)[0]

    def spoil(data: bytes, sender: Handle) -> bytes:
        message = decode(data)
        if sender.id == liar.id and isinstance(message, Segment):
            return encode(message._replace(data=bytes(len(message.data))))
        return data

    ring.client.spoils = spoil
    ring.client.get(value)


def test_a_client_that_reaches_its_access_node_only_does_not_notice() -> None:
    network = VirtualNetwork()
    network.ring(8)
    client = VirtualClient(network, network.nodes[0])
    client.reaches_others = False
    rng = Random(3)
    for _ in range(200):
        value = rng.randbytes(300)
        assert client.put(value).after_s < 0.02
        assert client.get(value).after_s < 0.02
    assert "holders_passed_over" not in client.session.stats.counters


def test_in_a_ring_that_is_larger_than_a_leaf_set_all_is_right() -> None:
    ring = Ring(40, seed=2)
    for value in ring.values:
        ring.client.get(value)
        assert all(node.core.items.storage.holds(name_of(value)) for node in ring.holders(value))
    assert ring.client.ask(Verb.GET, name_of(b"?")).status is AnswerStatus.NOT_FOUND
    answered_by: list[int] = []

    def note(data: bytes, sender: Handle) -> bytes:
        if isinstance(decode(data), Answer):
            answered_by.append(sender.id)
        return data

    values = [ring.put_elsewhere() for _ in range(20)]
    ring.client.spoils = note
    for value in values:
        ring.client.get(value)
        assert answered_by.pop() in {node.id for node in ring.holders(value)}


def test_what_is_put_while_somebody_has_just_joined_ends_on_the_closest() -> None:
    ring = Ring(8)
    for _ in range(4):
        ring.network.add([ring.network.nodes[3]])
        ring.network.run(0.5)
        ring.put()
    ring.network.run(40)
    for value in ring.values:
        assert all(node.core.items.storage.holds(name_of(value)) for node in ring.holders(value))
    before = ring.passed_over
    ring.ask_much()
    assert ring.passed_over == before
