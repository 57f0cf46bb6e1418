"""Settling: what is waited for."""

from pastryd.ids import NodeId
from pastryd.state.settling import Settling


def test_who_is_named_late_is_asked_but_not_waited_for() -> None:
    settling = Settling()
    before, early, late, chosen = map(NodeId, (1, 2, 3, 4))
    settling.begin(before, 11, True, 0.0)
    settling.root(5.0)
    settling.begin(early, 12, True, 5.0)
    settling.begin(late, 13, True, 5.1)
    settling.begin(chosen, 14, False, 5.1)
    assert settling.awaited == {1: 11, 2: 12, 4: 14}
    assert list(settling) == [before, early, late, chosen]


def test_an_answer_ends_a_question_once() -> None:
    settling = Settling()
    node_id = NodeId(1)
    settling.begin(node_id, 11, False, 0.0)
    assert node_id in settling and len(settling) == 1
    assert settling.end(node_id) == 11
    assert settling.end(node_id) is None and not len(settling)


def test_the_root_says_at_once_where_we_belong_others_after_a_while() -> None:
    settling = Settling()
    assert not settling.is_placed and not settling.may_settle(1e9)
    assert settling.place(10.0) and not settling.place(20.0)
    assert settling.is_placed and not settling.is_rooted
    assert not settling.may_settle(9.9) and settling.may_settle(10.0)
    settling.root(5.0)
    assert settling.is_rooted and settling.may_settle(0.0) and not settling.place(30.0)
