"""Suspicion and awareness: known values."""

from math import isclose, log

from pastryd.ids import Position
from pastryd.protocol.suspicion import Awareness, Suspicion

ME, B, C, D = (Position(i) for i in range(4))


def test_one_accuser_waits_the_maximum_three_more_the_minimum() -> None:
    suspicion = Suspicion(10.0, ME, 2.0, 12.0, 3)
    assert suspicion.deadline == 22.0
    assert suspicion.accuse(B)
    assert isclose(suspicion.deadline, 10 + 12 - 10 * log(2) / log(4))
    assert suspicion.accuse(C) and suspicion.accuse(D)
    assert suspicion.deadline == 12.0


def test_a_repeated_accuser_changes_nothing() -> None:
    suspicion = Suspicion(10.0, ME, 2.0, 12.0, 3)
    assert not suspicion.accuse(ME)
    assert suspicion.accuse(B) and not suspicion.accuse(B)
    assert suspicion.accusers == (ME, B)


def test_where_nobody_can_confirm_the_minimum_holds() -> None:
    suspicion = Suspicion(10.0, ME, 2.0, 12.0, 0)
    assert suspicion.deadline == 12.0 and not suspicion.accuse(B)


def test_postponing_moves_the_deadline_and_what_accusers_make_of_it() -> None:
    suspicion = Suspicion(10.0, ME, 2.0, 12.0, 1)
    suspicion.postpone(5.0)
    assert suspicion.deadline == 27.0
    suspicion.accuse(B)
    assert suspicion.deadline == 17.0


def test_doubt_stretches_timeouts_and_trust_takes_it_back() -> None:
    awareness = Awareness(2)
    assert awareness.scale(1.5) == 1.5
    for _ in range(5):
        awareness.doubt()
    assert awareness.scale(1.5) == 4.5
    awareness.trust()
    awareness.trust()
    awareness.trust()
    assert awareness.score == 0
