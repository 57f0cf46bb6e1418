"""Neighbourhood set: nearest first, movable, bounded."""

from pastryd.ids import Position
from pastryd.state.neighborhood import NeighborhoodSet
from tests.support.builders import handle_at, handles_at

OWNER = Position(0)
A, B, C = handles_at(1, 2, 3)


def test_the_nearest_stay() -> None:
    near = NeighborhoodSet(OWNER, 2)
    assert near.consider(A, 0.3) and near.consider(B, 0.1) and near.consider(C, 0.2)
    assert near.members() == [B, C]
    assert not near.consider(A, 0.2), "of equals the first stays"


def test_a_new_measurement_moves_a_member() -> None:
    near = NeighborhoodSet(OWNER, 2)
    near.consider(A, 0.1)
    near.consider(B, 0.2)
    assert not near.consider(A, 0.3)
    assert near.members() == [B, A] and near.rtt_of(A.id) == 0.3


def test_a_new_incarnation_is_a_change_an_old_one_is_not_taken() -> None:
    near = NeighborhoodSet(OWNER, 2)
    near.consider(handle_at(1, incarnation=2), 0.1)
    assert not near.consider(handle_at(1, incarnation=1), 0.1)
    assert near.consider(handle_at(1, incarnation=3), 0.1)
    assert near.discard(Position(1)) and not near.discard(Position(1))


def test_the_owner_never_enters() -> None:
    assert not NeighborhoodSet(OWNER, 2).consider(handle_at(OWNER), 0.0)
