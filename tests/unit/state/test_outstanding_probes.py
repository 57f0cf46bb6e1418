"""Outstanding probes: who is waited for."""

from pastryd.state.outstanding_probes import OutstandingProbes
from tests.support.builders import handles_at


def test_who_is_named_late_is_asked_but_not_waited_for() -> None:
    probes = OutstandingProbes()
    before, early, late, chosen = handles_at(1, 2, 3, 4)
    probes.begin(before, 11, True, 0.0)
    assert not probes.awaits_the_named
    probes.await_named_until(5.0)
    assert probes.awaits_the_named
    probes.begin(early, 12, True, 5.0)
    probes.begin(late, 13, True, 5.1)
    probes.begin(chosen, 14, False, 5.1)
    assert probes.awaited == {1: 11, 2: 12, 4: 14}
    assert list(probes) == [1, 2, 3, 4] and probes.handles == [before, early, late, chosen]


def test_an_answer_ends_a_question_once() -> None:
    probes = OutstandingProbes()
    [handle] = handles_at(1)
    probes.begin(handle, 11, False, 0.0)
    assert handle.id in probes and len(probes) == 1
    assert probes.end(handle.id) == 11
    assert probes.end(handle.id) is None and not len(probes)
