"""`protocol/client_session.py` with an access node in virtual time, no sockets."""

import os
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pastryd.config import Config
from pastryd.errors import LocalProtocolError
from pastryd.protocol.client_call import Connected, NoReply, Question, Reply
from pastryd.protocol.client_requests import SILENCE_S
from pastryd.protocol.client_session import ClientSession
from pastryd.protocol.items import name_of
from pastryd.protocol.outbox import Completion
from pastryd.state.handle import Handle
from pastryd.wire.codec import encode
from pastryd.wire.messages import Answer
from pastryd.wire.verbs import AnswerStatus, Verb
from tests.support.access_node import AccessNode

ENDPOINT = ("192.0.2.1", 4160)
LATENCY_S = 0.01


class World:
    """One client, one access node, and a wire that may lose datagrams."""

    def __init__(self, loss: float = 0.0, seed: int = 1) -> None:
        self.rng = Random(seed)
        self.loss = loss
        self.now = 100.0
        config = Config.lan()
        self.client = ClientSession(Handle(b"c" * 32, "192.0.2.9", 5000, 1), config, Random(2))
        self.node = AccessNode(Handle(b"n" * 32, *ENDPOINT, 1), config, Random(3))
        self.wire: list[tuple[float, int, bytes, bool, bool]] = []
        self.sent = 0
        self.results: dict[int, object] = {}
        self.cut = False
        self.service_s = 0.0
        """How long the access node works on each answer, one after the other."""
        self.free_at = 0.0
        self.latency_s = LATENCY_S
        self.lateness_s = 0.0
        """How late the client's timers fire."""

    def _collect(self) -> None:
        for core, to_node in ((self.client, True), (self.node, False)):
            for payload, destination in core.outbox.datagrams:
                self.sent += 1
                if self.cut or self.rng.random() < self.loss:
                    continue
                bare = not isinstance(destination, Handle)
                if bare and destination != ENDPOINT:
                    continue
                leaves_at = self.now
                if not to_node:
                    leaves_at = self.free_at = max(self.free_at, self.now) + self.service_s
                self.wire.append((leaves_at + self.latency_s, self.sent, payload, to_node, bare))
            core.outbox.datagrams.clear()
        for event in self.client.outbox.events:
            if isinstance(event, Completion):
                self.results[event.request_id] = event.result
        self.client.outbox.events.clear()

    def run(self, request_id: int, limit_s: float = 60.0) -> object:
        """Let time pass until a request has its result."""
        end = self.now + limit_s
        while True:
            self._collect()
            self.client.check_invariants()
            if request_id in self.results:
                return self.results[request_id]
            deadline = self.client.next_deadline()
            fires_at = None if deadline is None else deadline + self.lateness_s
            deadlines = (fires_at, self.node.next_deadline())
            times = [t for t in deadlines if t is not None] + [d[0] for d in self.wire]
            assert times and min(times) < end, "nothing will ever happen"
            self.now = max(self.now, min(times))
            due = sorted(d for d in self.wire if d[0] <= self.now)
            self.wire = [d for d in self.wire if d[0] > self.now]
            for _, _, payload, to_node, bare in due:
                if not to_node:
                    self.client.receive_datagram(payload, self.node.identity, self.now)
                elif bare:
                    self.node.receive_hello(payload, self.client.identity, self.now)
                else:
                    self.node.receive_datagram(payload, self.client.identity, self.now)
            self.client.handle_timer(self.now)
            self.node.handle_timer(self.now)

    def connect(self) -> object:
        return self.run(self.client.connect([("192.0.2.7", 1), ENDPOINT], 30.0, self.now))

    def put(self, value: bytes) -> object:
        request = self.client.ask(
            Question(Verb.PUT, name_of(value), len(value), value, 30.0), self.now
        )
        return self.run(request)

    def put_many(self, count: int) -> int:
        """Put so many small items at once; return how many requests were repeated."""
        before = self.client.stats.counters.get("retransmissions", 0)
        asked: list[int] = []
        for _ in range(count):
            value = self.rng.randbytes(100)
            asked.append(
                self.client.ask(
                    Question(Verb.PUT, name_of(value), len(value), value, 30.0), self.now
                )
            )
        for request in asked:
            result = self.run(request)
            assert isinstance(result, Reply) and result.status is AnswerStatus.OK
        return self.client.stats.counters.get("retransmissions", 0) - before

    def get(self, value: bytes) -> object:
        return self.run(
            self.client.ask(Question(Verb.GET, name_of(value), 0, None, 30.0), self.now)
        )


def test_who_answers_the_hello_is_the_access_node() -> None:
    world = World()
    result = world.connect()
    assert isinstance(result, Connected)
    assert result.access == world.node.identity
    assert result.seen == ("192.0.2.9", 5000)
    assert result.rtt_s == pytest.approx(2 * LATENCY_S)


def test_nobody_answers_in_time() -> None:
    world = World()
    world.cut = True
    result = world.connect()
    assert isinstance(result, NoReply) and result.silent
    assert result.after_s == pytest.approx(30.0)


def test_asking_without_an_access_node_is_our_callers_mistake() -> None:
    world = World()
    with pytest.raises(LocalProtocolError):
        world.get(b"x")


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([0, 1, 900, 1100, 20_000, 200_000]),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.integers(0, 1000),
)
def test_under_any_loss_what_was_put_comes_back_or_the_silence_is_told(
    size: int, loss: float, seed: int
) -> None:
    world = World(loss, seed)
    value = Random(seed).randbytes(size)
    assert isinstance(world.connect(), Connected)
    stored, got = world.put(value), world.get(value)
    for result in (stored, got):
        assert isinstance(result, Reply) or (loss and isinstance(result, NoReply))
    if isinstance(stored, Reply) and isinstance(got, Reply):
        assert (stored.status, stored.number) == (AnswerStatus.OK, 3)
        assert (got.status, bytes(got.data)) == (AnswerStatus.OK, value)


def test_pending_keeps_it_waiting_but_not_beyond_the_deadline() -> None:
    world = World()
    world.connect()
    world.node.pending_answers = 10_000
    request = world.client.ask(Question(Verb.GET, bytes(32), 0, None, 12.0), world.now)
    result = world.run(request)
    assert isinstance(result, NoReply) and not result.silent
    assert result.after_s == pytest.approx(12.0)
    assert 5 < len(world.node.requests) < 30


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_timers_that_fire_later_than_answers_take_make_no_silence(loss: float) -> None:
    world = World()
    world.connect()
    world.loss = loss
    world.latency_s, world.lateness_s = 0.0001, 0.002  # as on one machine
    world.node.pending_answers = 10_000
    result = world.get(b"anything")
    assert isinstance(result, NoReply) and not result.silent
    assert result.after_s == pytest.approx(30.0, abs=0.1)


def test_silence_is_told_long_before_the_deadline() -> None:
    world = World()
    world.connect()
    world.cut = True
    result = world.get(b"x")
    assert isinstance(result, NoReply) and result.silent
    assert SILENCE_S <= result.after_s < 2 * SILENCE_S


def test_what_takes_long_under_load_is_not_repeated() -> None:
    world = World()
    world.connect()
    world.service_s = 0.01
    assert world.put_many(64) <= 4
    assert world.put_many(64) == 0
    world.service_s = 0.05
    assert world.put_many(64) <= 16
    world.service_s = 0.0
    assert world.put_many(1) == 0


@pytest.mark.parametrize("busy_before", [0, 64])
def test_what_was_lost_is_repeated_soon_when_answers_are_fast(busy_before: int) -> None:
    world = World()
    world.connect()
    world.service_s = 0.01
    world.put_many(busy_before)
    world.service_s = 0.0
    for _ in range(40):
        world.put(world.rng.randbytes(100))
    value = world.rng.randbytes(100)
    request = world.client.ask(
        Question(Verb.PUT, name_of(value), len(value), value, 30.0), world.now
    )
    world.client.outbox.datagrams.clear()
    result = world.run(request)
    assert isinstance(result, Reply) and result.after_s < 2 * LATENCY_S + 0.06


def test_an_access_node_that_answers_other_requests_is_not_silent() -> None:
    world = World()
    world.connect()
    world.service_s = 0.1
    began = world.now
    world.put_many(64)
    assert world.now - began > 2 * SILENCE_S


def test_an_access_node_that_is_slow_to_send_is_not_silent() -> None:
    world = World()
    world.connect()
    value = os.urandom(1 << 20)
    assert isinstance(world.put(value), Reply)
    world.service_s = 0.05
    result = world.run(
        world.client.ask(Question(Verb.GET, name_of(value), 0, None, 5.0), world.now)
    )
    assert isinstance(result, NoReply) and not result.silent


def test_an_object_that_left_the_cache_before_it_was_pulled_is_asked_for_again() -> None:
    world = World()
    world.connect()
    value = os.urandom(5000)
    world.node.items[name_of(value)] = value
    request = world.client.ask(Question(Verb.GET, name_of(value), 0, None, 30.0), world.now)
    while not any(to_node is False for *_, to_node, _ in world.wire):
        world._collect()
        for _, _, payload, _, _ in world.wire:
            world.node.receive_datagram(payload, world.client.identity, world.now)
        world.wire.clear()
        world._collect()
    del world.node.items[name_of(value)]
    answer, world.wire = world.wire, []
    for _, _, payload, _, _ in answer:
        world.client.receive_datagram(payload, world.node.identity, world.now)
    world.node.context.deadlines.arm(
        world.now + 0.015, lambda now: world.node.items.update({name_of(value): value})
    )
    result = world.run(request)
    assert isinstance(result, Reply) and bytes(result.data) == value
    assert world.node.requests == [Verb.GET] * 2


@pytest.mark.parametrize("size", [100, 200_000])
def test_the_time_for_which_we_stood_still_is_not_an_access_nodes(size: int) -> None:
    world = World()
    world.connect()
    value = world.rng.randbytes(size)
    question = Question(Verb.PUT, name_of(value), size, value, 30.0)
    request = world.client.ask(question, world.now)
    world.client.outbox.datagrams.clear()
    world.now += 60.0  # a laptop slept
    world.client.report_stall(60.0, world.now)
    world.client.handle_timer(world.now)
    result = world.run(request)
    assert isinstance(result, Reply) and result.status is AnswerStatus.OK


def test_inline_bytes_that_are_not_the_object_are_corrupt() -> None:
    world = World()
    world.connect()
    name = name_of(b"wanted")
    world.node.items[name] = b"something else"
    result = world.run(world.client.ask(Question(Verb.GET, name, 0, None, 30.0), world.now))
    assert isinstance(result, Reply) and result.status is AnswerStatus.CORRUPT


def test_an_answer_from_somebody_else_is_counted_and_ignored() -> None:
    world = World()
    world.connect()
    world.client.ask(Question(Verb.PING, b"", 0, None, 30.0), world.now)
    (nonce,) = world.client._requests._asked
    stranger = Handle(b"s" * 32, "192.0.2.66", 4160, 1)
    answer = encode(Answer(nonce, AnswerStatus.NOT_FOUND, 0, b"", 0, b""))
    world.client.receive_datagram(answer, stranger, world.now)
    world._collect()
    assert len(world.results) == 1
    assert world.client.stats.counters == {"answers_unknown": 1}


def test_a_cancelled_put_is_not_served_any_more() -> None:
    world = World()
    world.connect()
    value = os.urandom(100_000)
    request = world.client.ask(
        Question(Verb.PUT, name_of(value), len(value), value, 30.0), world.now
    )
    world.client.cancel(request, world.now)
    world.client.check_invariants()
    assert not len(world.client._offers) and not world.client._requests._calls


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    world = World()
    world.client.receive_datagram(data, world.node.identity, world.now)
    world.client.receive_hello(data, world.node.identity, world.now)
