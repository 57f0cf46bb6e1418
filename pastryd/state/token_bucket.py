"""A rate with room for bursts: how often something may be done. Knows no clock and no purpose."""

from collections import OrderedDict

from pastryd.ids import NodeId


class TokenBucket:
    """At most `burst` at once and `rate` per second in the long run."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class TokenBuckets:
    """A bucket for each node; of whom nothing was heard longest makes room, and begins anew."""

    __slots__ = ("_buckets", "_burst", "_count_max", "_rate")

    def __init__(self, rate: float, burst: float, count_max: int) -> None:
        self._buckets: OrderedDict[NodeId, TokenBucket] = OrderedDict()
        self._rate = rate
        self._burst = burst
        self._count_max = count_max

    def take(self, node_id: NodeId, now: float) -> bool:
        """Take a token of a node's own if there is one."""
        bucket = self._buckets.get(node_id)
        if bucket is None:
            if len(self._buckets) >= self._count_max:
                self._buckets.popitem(last=False)
            bucket = self._buckets[node_id] = TokenBucket(self._rate, self._burst)
        self._buckets.move_to_end(node_id)
        return bucket.take(now)
