"""`net/replay.py`: each counter once, late ones within the window, older ones never."""

from hypothesis import given
from hypothesis import strategies as st

from pastryd.net.replay import WINDOW, ReplayWindow


def _offer(window: ReplayWindow, counter: int) -> bool:
    fresh = window.is_fresh(counter)
    if fresh:
        window.accept(counter)
    return fresh


def test_a_counter_is_accepted_once() -> None:
    window = ReplayWindow()
    assert _offer(window, 0)
    assert not _offer(window, 0)


def test_the_window_holds_at_least_4096_counters() -> None:
    assert WINDOW >= 4096
    window = ReplayWindow()
    assert _offer(window, WINDOW)
    assert _offer(window, 1)
    assert not _offer(window, 0)


def test_a_far_jump_forgets_nothing_that_it_must_know() -> None:
    window = ReplayWindow()
    assert _offer(window, 5)
    assert _offer(window, 2**63)
    assert not _offer(window, 5)
    assert not _offer(window, 2**63)
    assert _offer(window, 2**63 - WINDOW + 1)


@given(st.lists(st.integers(0, 3 * WINDOW) | st.integers(0, 300), max_size=200))
def test_no_order_of_arrival_lets_a_counter_in_twice_or_refuses_a_recent_new_one(
    counters: list[int],
) -> None:
    window = ReplayWindow()
    seen: set[int] = set()
    for counter in counters:
        fresh = _offer(window, counter)
        if counter in seen:
            assert not fresh
        elif not seen or counter > max(seen) - WINDOW:
            assert fresh
        else:
            assert not fresh
        seen.add(counter)
