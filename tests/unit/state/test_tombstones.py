"""Tombstones: whose death is believed, and for how long."""

from pastryd.ids import NodeId
from pastryd.state.tombstones import TOMBSTONES_MAX, Tombstones
from tests.support.builders import handle_at


def test_the_dead_stay_dead_until_they_speak_are_reborn_or_forgotten() -> None:
    tombstones = Tombstones()
    first, second = handle_at(NodeId(1)), handle_at(NodeId(2))
    tombstones.bury(first, 10.0)
    tombstones.bury(second, 20.0)
    assert tombstones.covers(first) and tombstones.covers(second)
    assert not tombstones.covers(handle_at(1, first.incarnation + 1))
    tombstones.expire(first.id, 9.0)
    assert tombstones.covers(first), "it was buried again since"
    tombstones.expire(first.id, 10.0)
    tombstones.lift(second.id)
    assert not tombstones.covers(first) and not tombstones.covers(second)


def test_the_latest_are_told_and_the_oldest_make_room() -> None:
    tombstones = Tombstones()
    handles = [handle_at(NodeId(i)) for i in range(TOMBSTONES_MAX + 1)]
    for handle in handles:
        tombstones.bury(handle, 10.0)
    assert not tombstones.covers(handles[0])
    assert tombstones.latest(2) == tuple((h.id, h.incarnation) for h in handles[-2:])
    assert tombstones.latest(0) == ()
