"""Suspicion, RTT and tuning: bounds and monotony."""

from hypothesis import given
from hypothesis import strategies as st

from pastryd.ids import Position
from pastryd.protocol.suspicion import Awareness, Suspicion
from pastryd.state.peers import Peer
from pastryd.state.rtt import RtoBounds
from pastryd.state.tuning import (
    expected_hops,
    failure_probability,
    raw_loss,
    table_probe_period,
)
from tests.support.builders import handle_at

accusers = st.integers(0, 12).map(Position)


@given(
    st.floats(0, 1e6),
    st.floats(0, 10),
    st.floats(0, 100),
    st.integers(0, 6),
    st.lists(accusers, min_size=1),
)
def test_the_deadline_falls_with_distinct_accusers_and_never_below_the_minimum(
    now: float, low_s: float, more_s: float, confirmations_max: int, who: list[Position]
) -> None:
    suspicion = Suspicion(now, who[0], low_s, low_s + more_s, confirmations_max)
    seen = {who[0]}
    for accuser in who[1:]:
        before = suspicion.deadline
        is_new = accuser not in seen and len(seen) <= confirmations_max
        assert suspicion.accuse(accuser) == is_new
        if is_new:
            seen.add(accuser)
            assert suspicion.deadline <= before
        else:
            assert suspicion.deadline == before
        assert now + low_s <= suspicion.deadline <= now + low_s + more_s + 1e-9
    assert set(suspicion.accusers) == seen


@given(st.lists(st.integers(-3, 3)), st.integers(0, 8))
def test_awareness_stays_within_its_bounds(steps: list[int], score_max: int) -> None:
    awareness = Awareness(score_max)
    for step in steps:
        if step > 0:
            awareness.doubt(step)
        else:
            awareness.trust(-step)
        assert 0 <= awareness.score <= score_max
        assert 2.0 <= awareness.scale(2.0) <= 2.0 * (score_max + 1)


@given(st.lists(st.floats(-0.01, 30)))
def test_rto_is_always_within_its_bounds(samples: list[float]) -> None:
    peer = Peer(handle_at(1), RtoBounds(0.02, 3.0, 0.5))
    for sample in samples:
        peer.sample_rtt(sample)
        assert 0.02 <= peer.rto_s <= 3.0


@given(st.floats(1e-3, 1e6), st.floats(1.0, 10.0), st.floats(0, 0.1))
def test_failure_probability_is_a_probability_that_grows(
    period_s: float, factor: float, rate: float
) -> None:
    less, more = failure_probability(period_s, rate), failure_probability(period_s * factor, rate)
    assert 0.0 <= less <= 1.0
    assert less <= more + 1e-7


@given(st.floats(1e-7, 1e-2), st.floats(2, 1e6), st.floats(0.001, 0.3))
def test_the_probe_period_is_the_longest_within_the_target(
    rate: float, nodes: float, target: float
) -> None:
    hops = expected_hops(nodes)
    period_s = table_probe_period(target, 30.0, 9.0, rate, hops, 9.0, 3600.0)
    assert 9.0 <= period_s <= 3600.0
    if period_s > 9.0:
        assert raw_loss(period_s, 30.0, 9.0, rate, hops) <= target
    if period_s < 3600.0:
        assert raw_loss(period_s * 1.001, 30.0, 9.0, rate, hops) >= target
