"""Leaf set against the sort-everything oracle; L1-L8 are TESTING.md's list."""

from hypothesis import assume, given
from hypothesis import strategies as st

from pastryd.ids import RING, NodeId, clockwise, rank
from pastryd.state.handle import Handle
from pastryd.state.leaf_set import LeafSet
from tests.support.builders import handle_at, positions, rings
from tests.support.oracle import (
    in_any,
    in_replica_set,
    interesting_positions,
    replica_ids,
    sides,
    true_root,
)

Ring = tuple[NodeId, list[NodeId]]
sizes = st.sampled_from([2, 4, 8, 16])


def filled(owner: NodeId, others: list[NodeId], size: int) -> LeafSet:
    leaf_set = LeafSet(owner, size)
    for node_id in others:
        leaf_set.add(handle_at(node_id))
        leaf_set.check_invariants()
    return leaf_set


def ids(handles: list[Handle]) -> list[int]:
    return [handle.id for handle in handles]


def views_of(leaf_set: LeafSet) -> tuple[object, ...]:
    digests = leaf_set.left_digest, leaf_set.right_digest
    return leaf_set.members(), leaf_set.left, leaf_set.right, digests


def id_or_owner(leaf_set: LeafSet, handle: Handle | None) -> int:
    return leaf_set.owner if handle is None else handle.id


@given(rings(), sizes)
def test_l1_l2_l3_sides_equal_the_sorted_oracle_whatever_the_order(ring: Ring, size: int) -> None:
    owner, others = ring
    leaf_set = filled(owner, others, size)
    left, right = sides(owner, others, size)
    assert (ids(leaf_set.left), ids(leaf_set.right)) == (left, right)
    assert owner not in leaf_set
    backwards = filled(owner, others[::-1], size)
    assert views_of(backwards) == views_of(leaf_set)


@given(rings(), sizes, st.data())
def test_l4_l5_with_complete_knowledge_covers_decides_the_root(
    ring: Ring, size: int, data: st.DataObject
) -> None:
    owner, others = ring
    leaf_set = filled(owner, others, size)
    key = data.draw(positions(owner))
    root = true_root(key, [owner, *others])
    if leaf_set.covers(key):
        assert id_or_owner(leaf_set, leaf_set.closest(key)) == root
    if root == owner:
        assert leaf_set.covers(key)
        assert leaf_set.closest(key) is None


@given(rings(nodes_min=1), sizes, st.data())
def test_l6_discard_then_add_restores(ring: Ring, size: int, data: st.DataObject) -> None:
    owner, others = ring
    leaf_set = filled(owner, others, size)
    member = data.draw(st.sampled_from(leaf_set.members()))
    if leaf_set.is_full:
        # Seen alone, a node is taken for the side in whose half it lies; ids so uneven that one
        # stands on the other side only occur in tiny rings, which close again after a loss.
        assume(all(clockwise(owner, h.id) <= RING // 2 for h in leaf_set.right))
        assume(all(clockwise(owner, h.id) > RING // 2 for h in leaf_set.left))
    before = views_of(leaf_set)
    assert leaf_set.discard(member.id)
    leaf_set.check_invariants()
    assert member.id not in leaf_set
    assert leaf_set.add(member)
    leaf_set.check_invariants()
    assert views_of(leaf_set) == before


@given(rings(nodes_max=8))
def test_l7_in_a_small_ring_everybody_stands_on_both_sides_and_is_listed_once(ring: Ring) -> None:
    owner, others = ring
    leaf_set = filled(owner, others, 16)
    assert set(ids(leaf_set.left)) == set(ids(leaf_set.right)) == set(others)
    assert sorted(ids(leaf_set.members())) == sorted(others)
    assert leaf_set.spans_ring


@given(rings(), sizes, st.integers(0, 20), st.data())
def test_l8_replica_set_is_the_k_closest(
    ring: Ring, size: int, k: int, data: st.DataObject
) -> None:
    owner, others = ring
    leaf_set = filled(owner, others, size)
    key = data.draw(positions(owner))
    excluded = data.draw(st.lists(st.sampled_from(others), unique=True) if others else st.just([]))
    known = [owner, *(i for i in ids(leaf_set.members()) if i not in excluded)]
    replicas = [id_or_owner(leaf_set, h) for h in leaf_set.replica_set(key, k, excluded)]
    assert replicas == replica_ids(key, known, k)
    longer = leaf_set.replica_set(key, k + 1, excluded)
    assert longer[:k] == leaf_set.replica_set(key, k, excluded)
    assert leaf_set.closest(key, excluded) == leaf_set.replica_set(key, 1, excluded)[0]


@given(positions(), positions(), positions())
def test_rank_is_a_strict_total_order(key: NodeId, a: NodeId, b: NodeId) -> None:
    assert (rank(key, a) == rank(key, b)) == (a == b)


@given(rings(nodes_max=12), st.integers(1, 5), st.data())
def test_replica_range_is_where_fewer_than_k_are_closer(
    ring: Ring, k: int, data: st.DataObject
) -> None:
    owner, others = ring
    leaf_set = filled(owner, others, 8)
    known = [owner, *ids(leaf_set.members())]
    arc = leaf_set.replica_range(k)
    assert (arc is None) == (len(known) <= k)
    arcs = [(owner, owner)] if arc is None else [arc]
    for position in [*interesting_positions(known), data.draw(positions(owner))]:
        assert in_any(arcs, position) == in_replica_set(owner, position, known, k)


@given(rings(nodes_min=1, nodes_max=12), st.integers(1, 5), st.data())
def test_shared_ranges_are_where_both_are_among_the_k_closest(
    ring: Ring, k: int, data: st.DataObject
) -> None:
    owner, others = ring
    leaf_set = filled(owner, others, 8)
    known = [owner, *ids(leaf_set.members())]
    other = data.draw(st.sampled_from(leaf_set.members())).id
    arcs = leaf_set.shared_ranges(other, k)
    assert len(arcs) <= 2
    for position in interesting_positions(known):
        both = all(in_replica_set(node_id, position, known, k) for node_id in (owner, other))
        assert in_any(arcs, position) == both


@given(rings(), sizes, st.lists(st.tuples(st.booleans(), st.integers(0, 39))))
def test_any_changes_keep_the_invariants(
    ring: Ring, size: int, steps: list[tuple[bool, int]]
) -> None:
    owner, others = ring
    leaf_set = LeafSet(owner, size)
    for adding, number in steps:
        if number >= len(others):
            continue
        node_id, version = others[number], leaf_set.version
        known = node_id in leaf_set
        if adding:
            expected = leaf_set.would_enter(node_id)
            changed = leaf_set.add(handle_at(node_id))
            assert changed == expected == (not known and node_id in leaf_set)
        else:
            changed = leaf_set.discard(node_id)
            assert changed == known and node_id not in leaf_set
        assert changed == (leaf_set.version > version)
        leaf_set.check_invariants()
        assert leaf_set.get(node_id) is None or leaf_set.get(node_id) == handle_at(node_id)


@given(rings(nodes_min=1), st.data())
def test_whatever_was_lost_the_owner_never_passes_on_what_it_is_closest_to(
    ring: Ring, data: st.DataObject
) -> None:
    owner, others = ring
    leaf_set = filled(owner, others, 8)
    for node_id in data.draw(st.lists(st.sampled_from(others), unique=True)):
        leaf_set.discard(node_id)
    key = data.draw(positions(owner))
    closest = id_or_owner(leaf_set, leaf_set.closest(key))
    assert closest == true_root(key, [owner, *ids(leaf_set.members())])
