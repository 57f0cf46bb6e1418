"""Rates with room for bursts, one for each node of a bounded number."""

from pastryd.ids import NodeId
from pastryd.state.token_bucket import TokenBuckets


def taken(buckets: TokenBuckets, node: int, tries: int, now: float) -> int:
    return sum(buckets.take(NodeId(node), now) for _ in range(tries))


def test_each_node_has_its_own_burst_and_rate():
    buckets = TokenBuckets(rate=2.0, burst=5.0, count_max=10)
    assert taken(buckets, 1, 20, 0.0) == 5
    assert taken(buckets, 2, 3, 0.0) == 3
    assert taken(buckets, 1, 20, 1.0) == 2
    assert taken(buckets, 1, 20, 100.0) == 5


def test_who_was_heard_last_is_remembered_longest():
    buckets = TokenBuckets(rate=0.1, burst=2.0, count_max=2)
    for node in (1, 2, 1, 3):
        taken(buckets, node, 2, 0.0)
    assert taken(buckets, 1, 2, 0.0) == 0
    assert taken(buckets, 2, 2, 0.0) == 2
