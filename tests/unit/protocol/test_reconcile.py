"""Reconciliation finds every difference, at a cost that follows the difference (ALGORITHMS 6)."""

from hashlib import sha256
from random import Random

import pytest

from pastryd.config import Config
from pastryd.ids import Name, Position, within
from pastryd.protocol import reconcile as module
from pastryd.protocol.context import Context
from pastryd.protocol.missing import QUEUE_MAX
from pastryd.protocol.reconcile import Reconcile
from pastryd.protocol.requests import Requests
from pastryd.state.handle import Handle
from pastryd.state.inventory import Inventory
from pastryd.wire.codec import decode
from pastryd.wire.messages import Names, Range, Ranges

WHOLE = (Position(0), Position(0))


def names(count: int, label: str = "") -> list[Name]:
    return [Name(sha256(f"{label}{i}".encode()).digest()) for i in range(count)]


class Side:
    def __init__(self, number: int) -> None:
        handle = Handle(bytes([number]) * 32, "127.0.0.1", number, 1)
        self.context = Context(handle, Config(), Random(number))
        self.requests = Requests(self.context)
        self.inventory = Inventory()
        self.missing: dict[Name, None] = {}
        self.reconcile = Reconcile(self.context, self.requests, self.inventory, self.note)

    def note(self, names, peer, now) -> None:
        for name in names:
            assert name not in self.inventory
            self.missing[name] = None


class Pair:
    """Two sides, a virtual clock and a link that loses datagrams."""

    def __init__(self, loss: float = 0.0) -> None:
        self.sides = [Side(1), Side(2)]
        self.loss = loss
        self.rng = Random(7)
        self.sent = 0
        self.largest = 0
        self.now = 0.0
        self.done: list[bool | None] = []
        for side, other in (self.sides, self.sides[::-1]):
            side.context.peers.of(other.context.identity).unproven = None

    def compare(self, arcs=(WHOLE,)) -> None:
        a, b = self.sides
        peer = a.context.peers.of(b.context.identity)
        assert a.reconcile.compare(peer, arcs, lambda equal, now: self.done.append(equal), self.now)
        for _ in range(100_000):
            if self.done:
                break
            if not self.deliver():
                deadline = a.context.deadlines.next_deadline()
                assert deadline is not None
                self.now = max(self.now, deadline)
                a.context.deadlines.run_due(self.now)
        self.deliver()

    def deliver(self) -> bool:
        moved = False
        for side, other in (self.sides, self.sides[::-1]):
            datagrams, side.context.outbox.datagrams = side.context.outbox.datagrams, []
            for data, _ in datagrams:
                moved = True
                self.sent += 1
                self.largest = max(self.largest, len(data))
                if self.rng.random() < self.loss:
                    continue
                message = decode(data)
                peer = other.context.peers.of(side.context.identity)
                if isinstance(message, Ranges):
                    other.reconcile.on_ranges(message, peer, self.now)
                elif isinstance(message, Names):
                    other.reconcile.on_names(message, peer, self.now)
        return moved

    def fill(self, common: int, only_a: int, only_b: int) -> None:
        a, b = (side.inventory for side in self.sides)
        for name in names(common):
            a.add(name)
            b.add(name)
        for name in names(only_a, "a"):
            a.add(name)
        for name in names(only_b, "b"):
            b.add(name)

    def assert_found(self, only_a: int, only_b: int) -> None:
        a, b = self.sides
        assert sorted(a.missing) == sorted(names(only_b, "b"))
        assert sorted(b.missing) == sorted(names(only_a, "a"))


def test_equal_stores_cost_one_round_trip():
    pair = Pair()
    pair.fill(5_000, 0, 0)
    pair.compare()
    assert pair.done == [True]
    assert pair.sent == 2


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize(
    ("common", "only_a", "only_b"),
    [(0, 1, 0), (0, 0, 1), (40, 3, 5), (5_000, 1, 0), (5_000, 10, 20), (300, 400, 0), (0, 0, 900)],
)
def test_every_difference_is_found_on_both_sides(common, only_a, only_b, loss):
    pair = Pair(loss)
    pair.fill(common, only_a, only_b)
    pair.compare()
    assert pair.done == [False]
    pair.assert_found(only_a, only_b)
    assert pair.largest <= Config().payload_bytes_max


def test_the_cost_follows_the_difference_and_not_the_store():
    costs = []
    for common in (1_000, 20_000):
        pair = Pair()
        pair.fill(common, 2, 2)
        pair.compare()
        pair.assert_found(2, 2)
        costs.append(pair.sent)
    assert costs[1] <= 40
    assert costs[1] - costs[0] <= 16


def test_only_the_given_arcs_are_compared():
    pair = Pair()
    pair.fill(100, 60, 60)
    quarter = (Position(3 << 126), Position(1 << 126))
    pair.compare([quarter])
    expected = [n for n in names(60, "b") if within(*quarter, int.from_bytes(n[:16], "big"))]
    assert sorted(pair.sides[0].missing) == sorted(expected)


def test_many_names_at_one_position_end_the_recursion():
    pair = Pair()
    for i in range(100):
        pair.sides[1].inventory.add(Name(bytes(16) + sha256(b"%d" % i).digest()[:16]))
    pair.compare()
    assert pair.done == [False]
    assert len(pair.sides[0].missing) == 31


def test_a_silent_peer_is_reported_as_such():
    pair = Pair(loss=1.0)
    pair.fill(10, 1, 1)
    pair.compare()
    assert pair.done == [None]


def test_a_late_answer_is_not_taken_for_a_question():
    pair = Pair()
    pair.fill(10, 1, 0)
    _, b = pair.sides
    peer = b.context.peers.of(pair.sides[0].context.identity)
    b.reconcile.on_ranges(Ranges(5, True, (Range(*WHOLE, 7, 7),)), peer, 0.0)
    b.reconcile.on_names(Names(5, *WHOLE, True, tuple(names(3))), peer, 0.0)
    assert not b.context.outbox.datagrams
    assert not b.missing


class Liar(Pair):
    """The other side claims for every range that it holds a million names there, and lists none."""

    def compare_for(self, seconds: float) -> list[float]:
        """Return when each question was asked."""
        a, b = self.sides
        peer = a.context.peers.of(b.context.identity)
        asked: list[float] = []
        a.reconcile.compare(peer, (WHOLE,), lambda equal, now: self.done.append(equal), 0.0)
        while self.now <= seconds and not self.done:
            datagrams, a.context.outbox.datagrams = a.context.outbox.datagrams, []
            for data, _ in datagrams:
                question = decode(data)
                asked.append(self.now)
                if isinstance(question, Ranges):
                    lies = tuple(Range(r.start, r.end, 1 << 20, 1) for r in question.ranges)
                    a.reconcile.on_ranges(
                        question._replace(final=True, ranges=lies), peer, self.now
                    )
                elif isinstance(question, Names):
                    a.reconcile.on_names(question._replace(final=True, names=()), peer, self.now)
            if not a.context.outbox.datagrams and not self.done:
                deadline = a.context.deadlines.next_deadline()
                assert deadline is not None
                self.now = max(self.now, deadline)
                a.context.deadlines.run_due(self.now)
        return asked


def test_who_claims_without_end_to_differ_is_asked_at_a_bounded_rate_and_not_for_ever():
    pair = Liar()
    pair.fill(1_000, 0, 0)
    asked = pair.compare_for(600)
    assert pair.done == [False]
    assert len(asked) <= module.QUESTIONS_BASE + 1_000
    for start in (0, 1, 10):
        within_s = [at for at in asked if start <= at < start + 1]
        assert 0 < len(within_s) <= module.QUESTIONS_BURST + module.QUESTIONS_PER_S + 1
    assert pair.sides[0].context.stats.counters["reconcile_ranges_dropped"] > 0
    assert pair.sides[0].context.deadlines.next_deadline() is None


@pytest.mark.parametrize(("ours", "theirs"), [(17_000, 17_000), (17_000, 0), (4_000, 4_000)])
def test_stores_that_differ_wholly_are_compared_to_the_end(monkeypatch, ours, theirs):
    monkeypatch.setattr(module, "QUESTIONS_BASE", 64)
    pair = Pair()
    pair.fill(0, ours, theirs)
    pair.compare()
    pair.assert_found(ours, theirs)


def test_an_empty_store_learns_as_much_at_a_time_as_can_be_queued():
    pair = Pair()
    pair.fill(0, 0, QUEUE_MAX)
    pair.compare()
    pair.assert_found(0, QUEUE_MAX)
