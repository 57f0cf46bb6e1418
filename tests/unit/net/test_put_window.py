"""`net/put_window.py`: how many items are under way, and in what order they end."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pastryd.ids import NAME_BYTES, Name
from pastryd.net.put_window import (
    ALONE_EVERY,
    ALONE_FIRST,
    FIRST_WIDTH,
    IN_FLIGHT,
    LEAST_WIDTH,
    PutWindow,
    Width,
)
from pastryd.protocol.items import Value

NAME = Name(bytes(NAME_BYTES))


def settled(alone_s: float, items_per_s: float) -> int:
    """Return the width beside a cluster that takes `alone_s` for one item, but a number at once."""
    width = Width()
    width.sent_alone(alone_s)
    for _ in range(200):
        width.sent_among(max(alone_s, width.items / items_per_s))
    return width.items


@pytest.mark.parametrize("at_once", [2, 3, 4, 5, 6])
def test_as_many_are_under_way_as_are_worked_on_and_one_that_waits(at_once: int) -> None:
    assert settled(0.1, at_once / 0.1) in (at_once, at_once + 1)


def test_a_cluster_that_does_one_after_the_other_is_not_asked_for_more_than_two() -> None:
    assert settled(0.1, 10) == LEAST_WIDTH


def test_a_long_way_is_filled_up_to_the_bound() -> None:
    assert settled(1.0, 1000) == IN_FLIGHT


def test_nothing_is_concluded_before_one_was_sent_alone() -> None:
    width = Width()
    for took_s in (0.1, 10.0, 0.1):
        width.sent_among(took_s)
    assert width.items == FIRST_WIDTH


@given(st.lists(st.tuples(st.booleans(), st.floats(1e-6, 1e6))))
def test_the_width_keeps_its_bounds(times: list[tuple[bool, float]]) -> None:
    width = Width()
    for alone, took_s in times:
        (width.sent_alone if alone else width.sent_among)(took_s)
        assert LEAST_WIDTH <= width.items <= IN_FLIGHT


async def test_some_are_sent_alone_and_never_more_than_the_bound_at_once() -> None:
    under_way = 0
    beside: list[int] = []

    async def put_object(name: Name, value: Value) -> tuple[int, bool]:
        nonlocal under_way
        beside.append(under_way)
        under_way += 1
        for _ in range(3):
            await asyncio.sleep(0)
        under_way -= 1
        return 3, True

    done: list[int] = []
    window = PutWindow(put_object, lambda count, size: done.append(count))
    items = ALONE_FIRST + ALONE_EVERY + 10
    for _ in range(items):
        await window.add(NAME, b"x", 1)
    await window.finish()
    assert done == list(range(1, items + 1))
    assert max(beside) < IN_FLIGHT
    for alone in (ALONE_FIRST, ALONE_FIRST + ALONE_EVERY):
        assert beside[alone] == 0 and beside[alone + 1] == 0
    assert (window.copies, window.complete) == (3, True)
