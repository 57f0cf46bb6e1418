"""Leaf set: what the properties cannot say, above all what happens after losses."""

from random import Random

from pastryd.ids import RING, Position, clockwise
from pastryd.state.leaf_set import LeafSet
from tests.support.builders import handle_at, handles_at

OWNER = Position(1 << 100)


def large_ring(nodes: int = 1000, size: int = 16, seed: int = 1) -> tuple[LeafSet, list[int]]:
    rng = Random(seed)
    ids = [rng.getrandbits(128) for _ in range(nodes)]
    leaf_set = LeafSet(OWNER, size)
    for node_id in ids:
        leaf_set.add(handle_at(node_id))
    return leaf_set, ids


def test_alone_it_covers_everything_and_the_owner_is_closest() -> None:
    leaf_set = LeafSet(OWNER, 16)
    assert leaf_set.spans_ring and leaf_set.covers(5) and leaf_set.closest(5) is None
    assert leaf_set.replica_set(5, 3) == [None]
    assert leaf_set.extremes == (None, None) and leaf_set.immediate_left is None
    assert leaf_set.replica_range(3) is None


def test_covers_is_true_when_the_ring_is_smaller_than_the_leaf_set() -> None:
    leaf_set = LeafSet(OWNER, 4)
    for handle in handles_at(1, 2, 3):
        leaf_set.add(handle)
    assert leaf_set.spans_ring and leaf_set.covers(RING - 1)


def test_the_owner_and_a_known_handle_change_nothing() -> None:
    leaf_set = LeafSet(OWNER, 4)
    assert not leaf_set.add(handle_at(OWNER))
    assert leaf_set.add(handle_at(7)) and not leaf_set.add(handle_at(7))
    assert leaf_set.version == 1


def test_a_new_address_or_incarnation_replaces_an_older_one_does_not() -> None:
    leaf_set = LeafSet(OWNER, 4)
    leaf_set.add(handle_at(7, incarnation=5))
    digests = leaf_set.left_digest, leaf_set.right_digest
    assert not leaf_set.add(handle_at(7, incarnation=4))
    assert leaf_set.add(handle_at(7, incarnation=5, port=9))
    assert leaf_set.add(handle_at(7, incarnation=6))
    assert leaf_set.get(Position(7)) == handle_at(7, incarnation=6)
    assert (leaf_set.left_digest, leaf_set.right_digest) == digests


def test_one_loss_in_a_large_ring_does_not_make_it_span() -> None:
    leaf_set, _ = large_ring()
    assert leaf_set.is_full and not leaf_set.spans_ring
    right = leaf_set.right
    leaf_set.discard(right[2].id)
    assert not leaf_set.spans_ring and not leaf_set.is_full
    assert not leaf_set.covers((OWNER + RING // 2) % RING)
    assert leaf_set.rightmost == right[7] and len(leaf_set.right) == 7


def test_when_one_side_dies_it_stays_empty_and_is_not_claimed() -> None:
    leaf_set, ids = large_ring()
    for handle in leaf_set.right:
        leaf_set.discard(handle.id)
    leaf_set.check_invariants()
    assert leaf_set.right == () and leaf_set.immediate_right is None
    assert not leaf_set.covers((OWNER + RING // 4) % RING)
    beyond_left = min((i for i in ids if i not in leaf_set), key=lambda i: clockwise(i, OWNER))
    assert not leaf_set.would_enter(Position(beyond_left)), "would pose as a right neighbour"
    assert leaf_set.would_enter(Position((OWNER + RING // 4) % RING))


def test_the_better_candidate_pushes_out_a_stepping_stone() -> None:
    leaf_set, _ = large_ring()
    true_right = leaf_set.right
    for handle in true_right:
        leaf_set.discard(handle.id)
    leaf_set.add(handle_at(OWNER + RING // 4))
    for handle in true_right:
        assert leaf_set.add(handle)
    assert leaf_set.right == true_right and leaf_set.is_full


def test_a_ring_that_shrank_is_spanned_again() -> None:
    for seed in range(20):
        leaf_set, _ = large_ring(nodes=18, seed=seed)
        assert not leaf_set.spans_ring
        for handle in leaf_set.members()[5:11]:
            leaf_set.discard(handle.id)
            leaf_set.check_invariants()
        assert leaf_set.spans_ring


def test_it_spans_once_its_ends_say_that_they_are_neighbours() -> None:
    leaf_set, _ = large_ring()

    def rightmost_tells() -> None:
        leftmost, rightmost = leaf_set.extremes
        assert leftmost is not None and rightmost is not None
        leaf_set.note_neighbours(rightmost.id, leaf_set.right[-2].id, leftmost.id)

    rightmost_tells()
    assert not leaf_set.spans_ring, "a full set has no overlap"
    leaf_set.discard(leaf_set.members()[0].id)
    rightmost_tells()
    assert leaf_set.spans_ring
    leaf_set.check_invariants()


def test_the_neighbour_of_an_end_lengthens_that_side_across_the_half() -> None:
    leaf_set, _ = large_ring()
    leftmost, rightmost = leaf_set.extremes
    assert leftmost is not None and rightmost is not None
    leaf_set.discard(leaf_set.left[3].id)
    across = Position((OWNER + RING // 4) % RING)
    assert not leaf_set.would_enter(across), "the right side, in whose half it lies, is full"
    leaf_set.note_neighbours(leftmost.id, across, leaf_set.left[-2].id)
    assert leaf_set.would_enter(across) and leaf_set.add(handle_at(across))
    assert leaf_set.left[-1].id == across and leaf_set.is_full
    leaf_set.check_invariants()


def test_the_last_member_gone_the_owner_is_alone() -> None:
    leaf_set, _ = large_ring()
    for handle in leaf_set.members():
        leaf_set.discard(handle.id)
    assert leaf_set.spans_ring and len(leaf_set) == 0


def test_ties_go_clockwise_in_the_replica_range() -> None:
    leaf_set = LeafSet(Position(100), 4)
    for handle in handles_at(90, 110):
        leaf_set.add(handle)
    assert leaf_set.replica_range(1) == (95, 105)
    assert leaf_set.closest(95) is None, "the owner lies clockwise of a tie with 90"
    assert leaf_set.closest(105) == handle_at(110)


def test_ring_neighbours_agree_on_what_they_share_whatever_the_size_of_the_ring() -> None:
    rng = Random(5)
    for size in (2, 3, 5, 16, 17, 18, 40):
        handles = sorted((handle_at(rng.getrandbits(128)) for _ in range(size)), key=lambda h: h.id)
        leaf_sets = []
        for owner in handles:
            leaf_set = LeafSet(owner.id, 16)
            for handle in handles:
                if handle is not owner:
                    leaf_set.add(handle)
            leaf_sets.append(leaf_set)
        for index, leaf_set in enumerate(leaf_sets):
            right = leaf_sets[(index + 1) % size]
            assert leaf_set.right_digest == right.left_digest, size


def test_what_is_missing_is_a_gap_once_more_nodes_were_named_than_fit() -> None:
    leaf_set = LeafSet(OWNER, 8)
    step = RING // 1000
    for i in (-3, -2, -1, 1, 2, 3, 4):
        leaf_set.add(handle_at((OWNER + i * step) % RING))
    across = Position((OWNER + RING // 2) % RING)
    assert leaf_set.spans_ring and leaf_set.covers(across)
    leaf_set.note_larger()
    leaf_set.check_invariants()
    assert leaf_set.has_gap and not leaf_set.covers(across)
    assert (len(leaf_set.left), len(leaf_set.right)) == (3, 4)
    leaf_set.add(handle_at((OWNER - 4 * step) % RING))
    assert leaf_set.is_full
