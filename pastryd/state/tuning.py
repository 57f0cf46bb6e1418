"""Self-tuning of the probing of table entries (MSPastry: Castro, Costa, Rowstron 2004, sec. 4.1).

Pure arithmetic: from the failure rate that a node sees, how often it must probe its routing table
so that a lookup meets a dead entry no more often than wanted. Knows no peers and no clock.
"""

from collections.abc import Iterable
from math import expm1, log, pow

from pastryd.ids import RING, clockwise
from pastryd.state.leaf_set import LeafSet

BISECTION_STEPS = 40
FAILURES_REMEMBERED = 16
"""The paper's K."""


def failure_probability(period_s: float, failure_rate: float) -> float:
    """Return the chance Pf(T, mu) that an entry is dead when used, if deaths show after T at most.

    `failure_rate` (mu) is in failures per node and second.
    """
    x = period_s * failure_rate
    if x < 1e-8:
        return x / 2  # the first term of the series; the formula itself loses all its digits
    return min(1.0, 1.0 + expm1(-x) / x)


def expected_hops(ring_size: float, bits_per_digit: int = 4) -> float:
    """Return the mean route length: (2**b - 1) / 2**b * log of N to the base 2**b, at least 1."""
    base = 1 << bits_per_digit
    if ring_size <= 2:
        return 1.0
    return max(1.0, (base - 1) / base * log(ring_size) / log(base))


def raw_loss(
    table_period_s: float,
    leaf_set_period_s: float,
    detection_s: float,
    failure_rate: float,
    hops: float,
) -> float:
    """Return the share of lookups that meet a dead hop, before any retry.

    `detection_s` is (retries + 1) * timeout: how long a probe takes to call an entry dead. The
    last hop is a leaf-set member, probed each `leaf_set_period_s`, all others are table entries.
    """
    last = 1.0 - failure_probability(leaf_set_period_s + detection_s, failure_rate)
    other = 1.0 - failure_probability(table_period_s + detection_s, failure_rate)
    return 1.0 - last * pow(other, max(0.0, hops - 1.0))


def table_probe_period(
    loss_target: float,
    leaf_set_period_s: float,
    detection_s: float,
    failure_rate: float,
    hops: float,
    period_min_s: float,
    period_max_s: float,
) -> float:
    """Return T_rt: the longest period between `min` and `max` whose raw loss is within target."""
    assert 0 < period_min_s <= period_max_s

    def loss(period_s: float) -> float:
        return raw_loss(period_s, leaf_set_period_s, detection_s, failure_rate, hops)

    if loss(period_max_s) <= loss_target:
        return period_max_s
    if loss(period_min_s) > loss_target:
        return period_min_s
    low, high = period_min_s, period_max_s
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        if loss(middle) <= loss_target:
            low = middle
        else:
            high = middle
    return low


def ring_size(leaf_set: LeafSet) -> float:
    """Estimate the number of nodes from how densely the leaf set lies; exact in a small ring."""
    count = len(leaf_set)
    if leaf_set.spans_ring:
        return float(count + 1)
    leftmost, rightmost = leaf_set.extremes
    start = leaf_set.owner if leftmost is None else leftmost.id
    end = leaf_set.owner if rightmost is None else rightmost.id
    arc = clockwise(start, end)
    return max(count + 1.0, count * (RING / arc)) if arc else count + 1.0


def median(values: Iterable[float]) -> float | None:
    """Return the lower median: one liar's rate among those heard does not move it far."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] if ordered else None


class FailureHistory:
    """When the last K known nodes failed, and the failure rate that follows."""

    __slots__ = ("_most", "_times")

    def __init__(self, started_at: float, remembered: int = FAILURES_REMEMBERED) -> None:
        # As in the paper our own start stands in for the failure before the first one.
        self._times = [started_at]
        self._most = remembered + 1

    def record(self, now: float) -> None:
        """A node that we knew failed."""
        self._times = [*self._times[1 - self._most :], now]

    def rate(self, known_count: int, now: float) -> float:
        """Return mu, in failures per node and second, when `known_count` nodes are watched.

        With fewer than K failures the next one is taken to happen now, as in the paper.
        Deviation: so it is after K, once nothing has failed for longer than the mean gap, so that
        the rate falls in a ring that has become quiet.
        """
        times = self._times
        if known_count <= 0:
            return 0.0
        failures = len(times) - 1
        end = times[-1]
        if len(times) < self._most or now - end > (end - times[0]) / max(1, failures):
            end, failures = now, failures + 1
        span = end - times[0]
        return failures / (known_count * span) if span > 0 else 0.0
