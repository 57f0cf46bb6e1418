"""Who begins the ring when all are joining: the lowest, after long, whoever is silent meanwhile."""

from pastryd.ids import NodeId
from pastryd.state.fellow_joiners import ATTEMPTS, FellowJoiners

LOW, MIDDLE, HIGH = NodeId(3), NodeId(5), NodeId(9)
PATIENCE_S = 16.0


def fellows_of(*node_ids: NodeId) -> FellowJoiners:
    fellows = FellowJoiners()
    for node_id in node_ids:
        fellows.add(node_id, 0)
    return fellows


def test_the_lowest_is_first_when_all_have_been_joining_for_long() -> None:
    fellows = fellows_of(MIDDLE, HIGH)
    fellows.begin_attempt(1, False, 1.0)
    assert not fellows.is_first(LOW, PATIENCE_S, PATIENCE_S - 0.1)
    assert fellows.is_first(LOW, PATIENCE_S, PATIENCE_S)
    assert not fellows.is_first(NodeId(MIDDLE + 1), PATIENCE_S, PATIENCE_S)


def test_who_meets_an_active_node_waits_all_over_again() -> None:
    fellows = fellows_of(HIGH)
    fellows.begin_attempt(1, True, 10.0)
    assert not fellows.is_first(LOW, PATIENCE_S, 20.0)
    assert fellows.is_first(LOW, PATIENCE_S, 10.0 + PATIENCE_S)


def test_who_is_silent_counts_for_some_attempts_more() -> None:
    fellows = fellows_of(LOW, HIGH)
    for attempt in range(1, ATTEMPTS):
        fellows.add(HIGH, attempt)
        fellows.begin_attempt(attempt, False, 1.0 + attempt)
        assert not fellows.is_first(MIDDLE, PATIENCE_S, 100.0)
    fellows.begin_attempt(ATTEMPTS, False, 1.0 + ATTEMPTS)
    assert fellows.is_first(MIDDLE, PATIENCE_S, 100.0)


def test_who_has_joined_is_nobody_to_wait_for() -> None:
    fellows = fellows_of(LOW, HIGH)
    fellows.discard(LOW)
    assert fellows and fellows.is_first(MIDDLE, PATIENCE_S, 100.0)
    fellows.discard(HIGH)
    assert not fellows


def test_with_nobody_left_the_wait_begins_again() -> None:
    fellows = fellows_of(HIGH)
    fellows.clear()
    fellows.begin_attempt(1, False, 50.0)
    fellows.add(HIGH, 1)
    fellows.begin_attempt(2, False, 51.0)
    assert not fellows.is_first(LOW, PATIENCE_S, 60.0)
