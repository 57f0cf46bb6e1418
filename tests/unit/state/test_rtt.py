"""`state/rtt.py`: how long to wait for answers of one kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pastryd.state.rtt import AnswerTime

LEAST_S, MOST_S = 0.05, 1.0
times = st.floats(0, 10)


def test_before_anything_is_known_the_wait_is_the_first() -> None:
    assert AnswerTime(0.2).wait_s(LEAST_S, MOST_S) == 0.2


def test_the_wait_follows_what_answers_take() -> None:
    time = AnswerTime()
    for _ in range(50):
        time.sample(0.25)
    assert time.wait_s(LEAST_S, MOST_S) == pytest.approx(0.25, rel=0.01)
    for _ in range(50):
        time.sample(0.001)
    assert time.wait_s(LEAST_S, MOST_S) == LEAST_S


def test_an_expiry_doubles_the_wait_once_for_all_that_were_under_way_until_there_is_an_answer() -> (
    None
):
    time = AnswerTime()
    for _ in range(64):
        time.note_expired(1.0, 1.05)
    assert time.wait_s(LEAST_S, MOST_S) == 2 * LEAST_S
    time.note_expired(1.06, 1.16)
    assert time.wait_s(LEAST_S, MOST_S) == 4 * LEAST_S
    time.sample(0.001)
    assert time.wait_s(LEAST_S, MOST_S) == LEAST_S


@given(st.lists(st.tuples(st.booleans(), times)), st.floats(0.001, 2))
def test_the_wait_is_within_its_bounds_of_which_the_lower_one_holds(
    events: list[tuple[bool, float]], least_s: float
) -> None:
    time, now = AnswerTime(), 0.0
    for is_answer, taken_s in events:
        now += taken_s
        if is_answer:
            time.sample(taken_s)
        else:
            time.note_expired(now - taken_s, now)
        assert least_s <= time.wait_s(least_s, MOST_S) <= max(least_s, MOST_S)
