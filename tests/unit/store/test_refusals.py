"""What of a disk that refuses writes is news."""

from pastryd.protocol.outbox import WriteStatus
from pastryd.store.refusals import CALM_S, Refusals

OK, FULL, FAILED, BUSY = WriteStatus.OK, WriteStatus.FULL, WriteStatus.FAILED, WriteStatus.BUSY


def test_only_the_first_refusal_of_its_kind_is_news() -> None:
    refusals = Refusals()
    ends = [OK, BUSY, FULL, FULL, OK, FULL, FAILED, OK, FAILED, BUSY]
    assert [refusals.note(status, 1000.0) for status in ends] == [
        False,
        False,
        True,
        False,
        False,
        False,
        True,
        False,
        False,
        False,
    ]


def test_it_is_over_when_nothing_was_refused_for_a_while_and_may_begin_anew() -> None:
    refusals = Refusals()
    assert refusals.note(FULL, 1000.0)
    assert not refusals.note(FULL, 1100.0)
    assert not refusals.note(OK, 1100.0 + CALM_S - 1)
    assert not refusals.note(BUSY, 1100.0 + CALM_S)
    assert refusals.note(OK, 1100.0 + CALM_S)
    assert not refusals.note(OK, 1100.0 + CALM_S)
    assert refusals.note(FULL, 1100.0 + CALM_S)
