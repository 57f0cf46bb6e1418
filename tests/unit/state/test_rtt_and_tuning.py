"""Timeouts and self-tuning: known values."""

from math import exp, isclose
from random import Random

from pastryd.ids import Position
from pastryd.state.leaf_set import LeafSet
from pastryd.state.peers import Peer
from pastryd.state.rtt import RtoBounds
from pastryd.state.tuning import (
    FailureHistory,
    expected_hops,
    failure_probability,
    median,
    raw_loss,
    ring_size,
    table_probe_period,
)
from tests.support.builders import handle_at
from tests.support.oracle import largest_within


def test_the_first_sample_sets_srtt_and_half_of_it_as_variation() -> None:
    peer = Peer(handle_at(1), RtoBounds(0.01, 3.0, 0.5))
    assert peer.rto_s == 0.5 and peer.srtt_s is None
    peer.sample_rtt(0.1)
    assert peer.srtt_s == 0.1 and isclose(peer.rto_s, 0.3)
    peer.sample_rtt(0.2)
    assert isclose(peer.srtt_s, 0.1125) and isclose(peer.rttvar_s, 0.0625)


def test_steady_samples_bring_the_timeout_down_to_the_floor() -> None:
    peer = Peer(handle_at(1), RtoBounds(0.02, 3.0, 0.5))
    for _ in range(100):
        peer.sample_rtt(0.001)
    assert peer.rto_s == 0.02


def test_failure_probability_follows_the_formula() -> None:
    assert failure_probability(0.0, 1.0) == 0.0
    assert isclose(failure_probability(100.0, 0.01), 1 - (1 - exp(-1)))
    assert isclose(failure_probability(1.0, 1e-9), 5e-10)


def test_hops_are_fifteen_sixteenths_of_the_logarithm() -> None:
    assert isclose(expected_hops(16**4), 3.75)
    assert expected_hops(1) == expected_hops(2) == 1.0


def test_the_probe_period_is_the_largest_that_keeps_the_target() -> None:
    def loss(period_s: float) -> float:
        return raw_loss(period_s, 30.0, 9.0, 1 / 8000, 2.5)

    period_s = table_probe_period(0.05, 30.0, 9.0, 1 / 8000, 2.5, 9.0, 3600.0)
    assert abs(period_s - largest_within(loss, 0.05, 9.0, 3600.0)) < 0.2


def test_the_probe_period_keeps_to_its_bounds() -> None:
    assert table_probe_period(0.05, 30.0, 9.0, 0.0, 3.0, 9.0, 3600.0) == 3600.0
    assert table_probe_period(0.05, 30.0, 9.0, 1.0, 3.0, 9.0, 3600.0) == 9.0


def test_ring_size_is_exact_when_small_and_near_when_large() -> None:
    leaf_set = LeafSet(Position(5), 16)
    assert ring_size(leaf_set) == 1
    leaf_set.add(handle_at(9))
    assert ring_size(leaf_set) == 2
    rng, estimates = Random(1), list[float]()
    for _ in range(100):
        leaf_set = LeafSet(Position(rng.getrandbits(128)), 16)
        for _ in range(1000):
            leaf_set.add(handle_at(rng.getrandbits(128)))
        estimates.append(ring_size(leaf_set))
    middle = median(estimates)
    assert middle is not None and 900 < middle < 1150
    assert min(estimates) > 300 and max(estimates) < 3500


def test_the_failure_rate_counts_per_node_and_second() -> None:
    history = FailureHistory(0.0, remembered=4)
    assert isclose(history.rate(50, 100.0), 1 / (50 * 100)), "as if one failed now"
    for i in range(1, 9):
        history.record(10.0 * i)
    assert isclose(history.rate(50, 80.0), 4 / (50 * 40))
    assert history.rate(50, 1_000_000.0) < 1e-6, "a ring that became quiet"
    assert history.rate(0, 80.0) == 0.0


def test_the_median_ignores_one_liar() -> None:
    assert median([]) is None
    assert median([1e9, 0.1, 0.2]) == 0.2
