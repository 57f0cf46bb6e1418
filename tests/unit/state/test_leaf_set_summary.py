"""Whom a neighbour lacks, from two bytes for each member."""

from random import Random

from pastryd.state.handle import Handle
from pastryd.state.leaf_set import LeafSet
from pastryd.state.leaf_set_summary import lacking, neighbours_in, summarize
from tests.support.builders import handle_at

SALT = 0x1234_5678_9ABC_DEF1


def ring_of(size: int, seed: int = 1) -> list[Handle]:
    rng = Random(seed)
    return sorted((handle_at(rng.getrandbits(128)) for _ in range(size)), key=lambda h: h.id)


def leaf_set_of(owner: Handle, ring: list[Handle]) -> LeafSet:
    leaf_set = LeafSet(owner.id, 16)
    for handle in ring:
        if handle is not owner:
            leaf_set.add(handle)
    return leaf_set


def told(teller: LeafSet, other: Handle, known: list[Handle], salt: int = SALT) -> list[int]:
    summary = summarize([h.id for h in known], salt)
    return [h.id for h in lacking(teller, other.id, summary, salt, 8)]


def test_neighbours_that_know_all_tell_each_other_nothing() -> None:
    for size in (3, 9, 17, 18, 30, 200):
        ring = ring_of(size)
        leaf_sets = [leaf_set_of(handle, ring) for handle in ring]
        for index, handle in enumerate(ring):
            for other in leaf_sets[index].members():
                teller = leaf_sets[ring.index(other)]
                assert not told(teller, handle, leaf_sets[index].members()), size


def test_who_knows_nobody_is_told_its_leaf_set_and_nobody_else() -> None:
    ring = ring_of(200)
    joiner, root = ring[50], ring[51]
    before = [handle for handle in ring if handle is not joiner]
    leaf_set = leaf_set_of(root, before)
    assert set(told(leaf_set, joiner, [root])) == {h.id for h in (*ring[42:50], *ring[52:59])}


def test_a_member_between_is_told_by_every_neighbour() -> None:
    ring = ring_of(200)
    missed, asker = ring[60], ring[57]
    known = [h for h in leaf_set_of(asker, ring).members() if h is not missed]
    for teller in (*ring[53:57], *ring[58:60], *ring[61:65]):
        assert told(leaf_set_of(teller, ring), asker, known) == [missed.id]


def test_one_just_past_an_end_is_told_nothing_of_the_other_end() -> None:
    ring = ring_of(200)
    teller = leaf_set_of(ring[60], ring)
    for asker, missed in ((ring[51], ring[57]), (ring[69], ring[63])):
        known = [h for h in leaf_set_of(asker, ring).members() if h is not missed]
        assert told(teller, asker, known) == [missed.id]


def test_who_is_dead_to_the_asker_makes_room_for_the_next() -> None:
    ring = ring_of(200)
    dead, asker, teller = ring[61], ring[60], ring[68]
    known = [h for h in leaf_set_of(asker, ring).members() if h is not dead]
    summary = summarize([h.id for h in known], SALT)
    failed = [(dead.id, dead.incarnation)]
    lacked = lacking(leaf_set_of(teller, ring), asker.id, summary, SALT, 8, failed)
    assert [h.id for h in lacked] == [ring[69].id]


def test_who_has_refuted_its_death_since_is_told_to_who_believed_it() -> None:
    ring = ring_of(200)
    refuter, asker, teller = ring[61], ring[60], ring[63]
    known = [h for h in leaf_set_of(asker, ring).members() if h is not refuter]
    failed = [(refuter.id, refuter.incarnation - 1)]
    summary = summarize([h.id for h in known], SALT)
    lacked = lacking(leaf_set_of(teller, ring), asker.id, summary, SALT, 8, failed)
    assert lacked == (refuter,)


def test_two_with_one_tag_are_told_apart_with_another_salt() -> None:
    known, missed, other, teller = handle_at(1 << 100), handle_at(3 << 100), handle_at(5), 7
    leaf_set = LeafSet(handle_at(teller).id, 16)
    leaf_set.add(known)
    leaf_set.add(missed)
    assert told(leaf_set, other, [known], salt=1) == []
    assert told(leaf_set, other, [known], salt=SALT) == [missed.id]


def test_a_summary_says_who_stands_next_to_its_owner() -> None:
    ring = ring_of(40)
    leaf_set = leaf_set_of(ring[20], ring)
    summary = summarize(leaf_set.member_ids, SALT)
    ids = [handle.id for handle in ring]
    assert neighbours_in(summary, SALT, ring[20].id, ids) == (ring[19].id, ring[21].id)
    assert neighbours_in(summary, SALT, ring[20].id, ids[21:]) == (ring[20].id, ring[21].id)
    assert neighbours_in(b"", SALT, ring[20].id, ids) == (ring[20].id, ring[20].id)
