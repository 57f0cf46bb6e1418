"""Deadlines: bounds, and what happens inside a run."""

from pastryd.state.deadlines import ARMED_MEANWHILE_MAX, GARBAGE_MIN, Deadlines


def test_arguments_come_first_and_now_last() -> None:
    deadlines, seen = Deadlines(), list[object]()
    deadlines.arm(1.0, lambda *args: seen.append(args), "a", 2)
    assert deadlines.run_due(0.5) == 0
    assert deadlines.run_due(1.5) == 1
    assert seen == [("a", 2, 1.5)]


def test_what_is_armed_meanwhile_for_the_past_runs_in_the_same_call() -> None:
    deadlines, seen = Deadlines(), list[str]()

    def first(now: float) -> None:
        seen.append("first")
        deadlines.arm(now, lambda now: seen.append("second"))
        deadlines.arm(now + 1, lambda now: seen.append("later"))

    deadlines.arm(1.0, first)
    assert deadlines.run_due(1.0) == 2
    assert seen == ["first", "second"]


def test_a_timer_that_rearms_itself_forever_ends_the_call() -> None:
    deadlines = Deadlines()

    def again(now: float) -> None:
        deadlines.arm(now, again)

    deadlines.arm(0.0, again)
    assert deadlines.run_due(0.0) == 1 + ARMED_MEANWHILE_MAX
    assert deadlines.next_deadline() == 0.0


def test_an_action_may_cancel_the_next_one() -> None:
    deadlines, seen = Deadlines(), list[str]()
    later = deadlines.arm(2.0, lambda now: seen.append("later"))
    deadlines.arm(1.0, lambda now: later.cancel())
    assert deadlines.run_due(3.0) == 1
    assert seen == [] and len(deadlines) == 0


def test_cancelled_timers_do_not_pile_up() -> None:
    deadlines = Deadlines()
    deadlines.arm(0.5, print)
    for i in range(10_000):
        deadlines.arm(1.0 + i, print).cancel()
        assert len(deadlines._heap) <= 2 * GARBAGE_MIN + 2
    deadlines.check_invariants()
    assert len(deadlines) == 1 and deadlines.next_deadline() == 0.5


def test_cancelling_twice_or_after_the_run_is_harmless() -> None:
    deadlines = Deadlines()
    timer = deadlines.arm(1.0, lambda now: None)
    deadlines.run_due(1.0)
    timer.cancel()
    timer.cancel()
    deadlines.check_invariants()
    assert not timer.pending and deadlines.next_deadline() is None


def test_shift_moves_what_is_pending_and_nothing_armed_later() -> None:
    deadlines, seen = Deadlines(), list[str]()
    deadlines.arm(1.0, lambda now: seen.append("old"))
    deadlines.shift(5.0)
    deadlines.arm(2.0, lambda now: seen.append("new"))
    deadlines.run_due(3.0)
    assert seen == ["new"] and deadlines.next_deadline() == 6.0
