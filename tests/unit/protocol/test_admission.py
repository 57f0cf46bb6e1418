"""What an access node takes on at one time."""

from hypothesis import given
from hypothesis import strategies as st

from pastryd.ids import NodeId
from pastryd.protocol.admission import (
    LITTLE_BYTES,
    LITTLE_REQUESTS,
    REQUESTS_MAX,
    RESERVED_BYTES,
    RESERVED_REQUESTS,
    Admission,
)

GREEDY, OTHER = NodeId(1), NodeId(2)
BYTES_MAX = 32 << 20


def test_one_client_may_take_all_but_the_reserve():
    admission = Admission(BYTES_MAX)
    taken = [admission.begin((GREEDY, i), 0) for i in range(REQUESTS_MAX + 10)]
    assert taken == [True] * REQUESTS_MAX + [False] * 10


def test_the_reserve_is_for_those_who_have_little_under_way():
    admission = Admission(BYTES_MAX)
    for i in range(REQUESTS_MAX):
        admission.begin((GREEDY, i), BYTES_MAX // REQUESTS_MAX)
    taken = [admission.begin((OTHER, i), 1024) for i in range(LITTLE_REQUESTS + 1)]
    assert taken == [True] * LITTLE_REQUESTS + [False]
    admission.end((OTHER, 0))
    assert not admission.begin((OTHER, 9), LITTLE_BYTES)
    assert admission.begin((OTHER, 9), 1024)


def test_one_put_is_taken_however_little_the_cache_holds():
    admission = Admission(1)
    assert admission.begin((GREEDY, 0), 1 << 20)
    assert not admission.begin((GREEDY, 1), 1 << 20)
    admission.end((GREEDY, 0))
    admission.end((GREEDY, 0))
    assert admission.begin((GREEDY, 1), 1 << 20)


calls = st.tuples(st.integers(1, 30).map(NodeId), st.integers(0, 40))


@given(st.lists(st.tuples(calls, st.sampled_from([0, 0, 1000, 1 << 20]), st.booleans())))
def test_never_more_than_the_bounds_and_nothing_is_left(steps):
    admission = Admission(4 << 20)
    under_way = {}
    for call, size, begins in steps:
        if not begins:
            admission.end(call)
            under_way.pop(call, None)
        elif call not in under_way and admission.begin(call, size):
            under_way[call] = size
        assert len(admission) == len(under_way) <= REQUESTS_MAX + RESERVED_REQUESTS
        assert sum(under_way.values()) <= (4 << 20) + RESERVED_BYTES
        assert all(call in admission for call in under_way)
    for call in under_way:
        admission.end(call)
    assert (len(admission), admission._bytes, admission._shares) == (0, 0, {})
