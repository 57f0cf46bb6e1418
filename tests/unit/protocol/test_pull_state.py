"""A pull that is not as it should be says so: a check that finds nothing is none."""

from collections.abc import Callable

import pytest

from pastryd.protocol.pull_state import ASKED, RECEIVED, WANTED, Pulling, Request, Waiter
from tests.support.transfer_link import Link

STEP = 1118
COUNT = 112
ASKED_FOR = 10


def ask(pull: Pulling, first: int, mask: int) -> Request:
    (holder,) = pull.holders.values()
    request = Request(len(pull.requests), pull, holder, first, mask, 0.0)
    pull.requests[request.nonce] = request
    return request


@pytest.fixture
def pull() -> Pulling:
    """One of 112 segments, of which ten are asked for."""
    pull = Pulling(b"\1" * 32, STEP, background=False)
    pull.waiters.append(Waiter(lambda result, now: None, 0.0))
    pull.add_holder(Link().peer(0, 1))
    pull.learn_size(COUNT * STEP - 5)
    ask(pull, *pull.take(ASKED_FOR))
    pull.check_invariants()
    return pull


def set_code(pull: Pulling, index: int, code: int) -> None:
    """Change a segment's byte, with both counts as they ought to be."""
    pull.state[index] = code
    pull.wanted = pull.state.count(WANTED)
    pull.left = pull.wanted + pull.state.count(ASKED)


def lengthen_the_value(pull: Pulling) -> None:
    pull.view.release()
    pull.value.append(0)


def lose_one_that_is_missing(pull: Pulling) -> None:
    pull.requests[0].missing &= ~1


def lose_a_request(pull: Pulling) -> None:
    del pull.requests[0]


def count_one_more_wanted(pull: Pulling) -> None:
    pull.wanted += 1


def count_one_more_left(pull: Pulling) -> None:
    pull.left += 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pull: ask(pull, ASKED_FOR - 1, 1),
        lambda pull: ask(pull, ASKED_FOR, 1),
        lambda pull: ask(pull, COUNT - 1, 2),
        lambda pull: set_code(pull, 0, WANTED),
        lambda pull: set_code(pull, COUNT - 1, ASKED),
        lambda pull: pull.state.append(RECEIVED),
        lengthen_the_value,
        lose_one_that_is_missing,
        lose_a_request,
        count_one_more_wanted,
        count_one_more_left,
    ],
)
def test_a_pull_that_is_not_as_it_should_be_says_so(
    pull: Pulling, spoil: Callable[[Pulling], object]
) -> None:
    spoil(pull)
    with pytest.raises(AssertionError):
        pull.check_invariants()


def test_a_segment_that_came_late_by_another_way_may_still_be_asked_for(pull: Pulling) -> None:
    set_code(pull, 3, RECEIVED)
    pull.check_invariants()
