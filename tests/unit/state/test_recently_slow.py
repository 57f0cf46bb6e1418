"""`state/recently_slow.py`: remembered for a while, and not more than so many."""

from pastryd.ids import NodeId
from pastryd.state.recently_slow import SLOW_MAX, RecentlySlow


def test_a_node_is_remembered_until_its_time_has_come() -> None:
    slow = RecentlySlow()
    slow.note(NodeId(1), 5.0)
    assert slow.covers(NodeId(1), 4.9) and not slow.covers(NodeId(2), 4.9)
    slow.note(NodeId(1), 7.0)
    assert slow.covers(NodeId(1), 6.9)
    assert not slow.covers(NodeId(1), 7.0)
    assert not len(slow)


def test_of_too_many_the_one_that_was_noted_first_is_forgotten() -> None:
    slow = RecentlySlow()
    for number in range(SLOW_MAX):
        slow.note(NodeId(number), 5.0)
    slow.note(NodeId(0), 5.0)
    slow.note(NodeId(SLOW_MAX), 5.0)
    assert len(slow) == SLOW_MAX
    assert slow.covers(NodeId(0), 0.0) and not slow.covers(NodeId(1), 0.0)
