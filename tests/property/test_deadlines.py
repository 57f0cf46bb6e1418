"""Deadlines behave like a list that is sorted each time somebody asks."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pastryd.state.deadlines import Deadlines, Timer
from tests.support.oracle import SortedTimers

# Quarters are exact in binary, so that shifting makes no rounding difference.
spans = st.integers(0, 400).map(lambda n: n / 4)


class DeadlinesMachine(RuleBasedStateMachine):
    """Random arm, cancel, advance and shift on both."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.deadlines = Deadlines()
        self.model = SortedTimers()
        self.timers: list[Timer] = []
        self.ran: list[int] = []

    def note(self, number: int, now: float) -> None:
        assert now == self.now
        self.ran.append(number)

    @rule(span=spans, count=st.integers(1, 40))
    def arm(self, span: float, count: int) -> None:
        for i in range(count):
            when = self.now + span + i % 3 - 1
            number = len(self.timers)
            self.timers.append(self.deadlines.arm(when, self.note, number))
            self.model.arm(when, number)

    @precondition(lambda self: self.timers)
    @rule(data=st.data(), count=st.integers(1, 100))
    def cancel(self, data: st.DataObject, count: int) -> None:
        first = data.draw(st.integers(0, len(self.timers) - 1))
        for number in range(first, min(first + count, len(self.timers))):
            self.timers[number].cancel()
            self.model.cancel(number)
            assert not self.timers[number].pending

    @rule(span=spans)
    def advance(self, span: float) -> None:
        self.now += span
        self.ran = []
        assert self.deadlines.run_due(self.now) == len(self.ran)
        assert self.ran == self.model.due(self.now)

    @rule(span=spans)
    def shift(self, span: float) -> None:
        self.deadlines.shift(span)
        self.model.shift(span)

    @invariant()
    def agree(self) -> None:
        self.deadlines.check_invariants()
        assert self.deadlines.next_deadline() == self.model.next_deadline()
        assert len(self.deadlines) == len(self.model.pending)
        pending = {number: when for when, number in self.model.pending}
        for number, timer in enumerate(self.timers):
            assert timer.pending == (number in pending)
            assert not timer.pending or timer.when == pending[number]


TestDeadlines = DeadlinesMachine.TestCase
TestDeadlines.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
