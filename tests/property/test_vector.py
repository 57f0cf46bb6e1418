"""Tables as arrays are the tables of the definition, and route as the core's own rule does."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pastryd.errors import ConfigError
from pastryd.ids import digit, rank, shared_prefix
from pastryd.sim.latency import Matrix, Plane, Sphere, TransitStub
from pastryd.state.leaf_set import LeafSet
from pastryd.state.neighborhood import NeighborhoodSet
from pastryd.state.routing import next_hop
from pastryd.state.routing_table import RoutingTable
from tests.support.builders import handle_at, handles_at

np = pytest.importorskip("numpy", reason="numpy is an optional extra (sim)")

from pastryd.sim.vector import NOBODY, VectorRing, ids_of, random_ids  # noqa: E402
from pastryd.sim.vector_delays import delays_of  # noqa: E402

HALF = 1 << 63
EDGES = (0, 1, HALF - 1, HALF, HALF + 1, 2 * HALF - 1)


def halves() -> st.SearchStrategy[int]:
    """Edges, small numbers, neighbours of the middle, few leading digits, and uniform ones."""
    return st.one_of(
        st.sampled_from(EDGES),
        st.integers(0, 64),
        st.integers(HALF - 40, HALF + 40),
        st.integers(0, 255).map(lambda digits: digits << 56),
        st.integers(0, 2 * HALF - 1),
    )


@st.composite
def rings(draw: st.DrawFn) -> tuple[VectorRing, list[int], list[int]]:
    """A ring, its ids in order, and keys: random ones, ids, and points between two ids."""
    leaf_set_size = draw(st.sampled_from((4, 8, 16)))
    high = draw(st.lists(halves(), min_size=leaf_set_size + 1, max_size=40, unique=True))
    low = draw(st.lists(halves(), min_size=len(high), max_size=len(high)))
    ids = sorted((one << 64) | two for one, two in zip(high, low, strict=True))
    near = st.sampled_from(ids)
    keys = draw(
        st.lists(
            st.one_of(
                near,
                st.tuples(near, near).map(lambda pair: (pair[0] + pair[1]) // 2),
                st.tuples(halves(), halves()).map(lambda pair: (pair[0] << 64) | pair[1]),
            ),
            min_size=1,
            max_size=8,
        )
    )
    bits = draw(st.sampled_from((1, 2, 4)))
    ring = VectorRing(ids_of(ids), 1, bits_per_digit=bits, leaf_set_size=leaf_set_size)
    return ring, ids, keys


def slots(ring: VectorRing, node: int) -> list[tuple[int, int, int]]:
    """Return the filled slots of a node: row, column, who stands there."""
    owner = np.array([node], np.int32)
    return [
        (row, column, int(other))
        for row in range(len(ring.rows))
        for column, other in enumerate(ring.row(row, owner)[0])
        if other != NOBODY
    ]


def plain_tables(
    ring: VectorRing, ids: list[int], node: int
) -> tuple[LeafSet, RoutingTable, NeighborhoodSet]:
    """Build the core's own tables: the leaf set from all nodes, the table from the ring's rows."""
    handles = handles_at(*ids)
    owner = handles.pop(node).id
    leaf_set = LeafSet(owner, ring.leaf_set_size)
    for handle in handles:
        leaf_set.add(handle)
    table = RoutingTable(owner, ring.bits)
    for _, _, other in slots(ring, node):
        table.consider(handle_at(ids[other]), None)
    return leaf_set, table, NeighborhoodSet(owner, 0)


@given(rings())
def test_leaf_sets_are_those_that_the_core_makes_of_all_nodes(
    drawn: tuple[VectorRing, list[int], list[int]],
) -> None:
    ring, ids, _ = drawn
    for node in range(len(ids)):
        leaf_set = plain_tables(ring, ids, node)[0]
        members = ring.leaf_sets(np.array([node], np.int32))[0]
        assert sorted(handle.id for handle in leaf_set.members()) == sorted(
            ids[member] for member in members
        )


@given(rings())
def test_a_slot_is_filled_exactly_if_the_ring_has_a_node_for_it(
    drawn: tuple[VectorRing, list[int], list[int]],
) -> None:
    ring, ids, _ = drawn
    for node, own in enumerate(ids):
        wanted = {
            (row := shared_prefix(own, other, ring.bits), digit(other, row, ring.bits))
            for other in ids
            if other != own
        }
        filled = slots(ring, node)
        for row, column, other in filled:
            assert shared_prefix(own, ids[other], ring.bits) == row
            assert digit(ids[other], row, ring.bits) == column
        assert {(row, column) for row, column, _ in filled} == wanted


@settings(deadline=None)
@given(rings())
def test_the_next_hop_is_the_one_that_the_core_chooses(
    drawn: tuple[VectorRing, list[int], list[int]],
) -> None:
    ring, ids, keys = drawn
    for node in range(0, len(ids), 8):
        tables = plain_tables(ring, ids, node)
        hops = ring.next_hops(np.full(len(keys), node, np.int32), ids_of(keys))
        for key, hop in zip(keys, hops, strict=True):
            chosen = next_hop(key, *tables, lambda _: True)
            assert (None if hop == NOBODY else ids[hop]) == (chosen and chosen.id)


@pytest.mark.parametrize(("size", "bits"), [(24, 1), (60, 2), (300, 4)])
def test_the_next_hop_is_the_one_that_the_core_chooses_in_every_rare_case(
    size: int, bits: int
) -> None:
    ring = VectorRing(random_ids(size, Random(size)), 1, bits_per_digit=bits, leaf_set_size=4)
    ids = [(int(high) << 64) | int(low) for high, low in zip(*ring.ids, strict=True)]
    keys = random_ids(1_000, Random(2))
    rng, rare = Random(3), 0
    for node in rng.sample(range(size), 20):
        hops = ring.next_hops(np.full(1_000, node, np.int32), keys)
        tables = plain_tables(ring, ids, node)
        for high, low, hop in zip(*keys, hops, strict=True):
            key = (int(high) << 64) | int(low)
            rare += not tables[0].covers(key) and tables[1].lookup(key) is None
            chosen = next_hop(key, *tables, lambda _: True)
            assert (None if hop == NOBODY else ids[hop]) == (chosen and chosen.id)
    assert rare


@given(rings())
def test_roots_are_the_nodes_of_lowest_rank(
    drawn: tuple[VectorRing, list[int], list[int]],
) -> None:
    ring, ids, keys = drawn
    roots = ring.roots(ids_of(keys))
    assert [ids[root] for root in roots] == [
        min(ids, key=lambda node_id: rank(key, node_id)) for key in keys
    ]


def test_every_route_ends_at_the_root() -> None:
    ring = VectorRing(random_ids(1_000, Random(1)), 1)
    keys = random_ids(5_000, Random(2))
    starts = np.arange(5_000, dtype=np.int32) % 1_000
    routes = ring.walk(starts, keys)
    assert (routes.ends == ring.roots(keys)).all()
    assert routes.hops.max() <= 5


@pytest.mark.parametrize("kind", [Sphere, Plane, TransitStub, None])
def test_delays_of_arrays_are_those_of_the_model(kind: type[Sphere] | None) -> None:
    rng = Random(1)
    rtt_ms = [[100 * rng.random() for _ in range(7)] for _ in range(7)]
    model = Matrix(rtt_ms, rng) if kind is None else kind(rng)
    for _ in range(40):
        model.place()
    pairs = [(a, b) for a in range(40) for b in range(40) if a != b]
    a, b = np.array(pairs, np.int32).T
    expected = [model.delay_s(*pair) for pair in pairs]
    assert delays_of(model)(a, b) == pytest.approx(expected, abs=1e-8)


def test_a_slot_holds_the_nearest_where_no_more_fit_than_are_looked_at() -> None:
    latency = Sphere(Random(1))
    for _ in range(200):
        latency.place()
    ring = VectorRing(random_ids(200, Random(1)), 1, delays=delays_of(latency))
    ids = [(int(high) << 64) | int(low) for high, low in zip(*ring.ids, strict=True)]
    for node in range(0, 200, 20):
        for column, other in enumerate(ring.row(0, np.array([node], np.int32))[0]):
            fit = [i for i, n in enumerate(ids) if digit(n, 0) == column != digit(ids[node], 0)]
            if fit:
                assert other == min(fit, key=lambda i: latency.delay_s(node, i))


def test_rings_that_arrays_cannot_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than 16 nodes"):
        VectorRing(random_ids(16, Random(1)), 1)
    with pytest.raises(ConfigError, match="first 64 bits"):
        VectorRing(ids_of(range(20)), 1)
