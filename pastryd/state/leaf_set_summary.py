"""What a node says of its leaf set so that another can tell it whom it lacks, in few bytes.

A summary names each member by a tag of two bytes, clockwise from its owner. Tags are salted with
the nonce of the question: two members that share one are told apart the next time. Pure functions;
knows no messages and no time.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from struct import pack, unpack_from

from pastryd.ids import ID_BITS, RING_MASK, NodeId
from pastryd.state.handle import Handle
from pastryd.state.leaf_set import LeafSet

TAG_BYTES = 2
Around = dict[NodeId, list[Handle]]
"""Of members: whom each of them has in its leaf set, as far as we know."""
_TAG_SHIFT = ID_BITS - 8 * TAG_BYTES
_TAG_MASK = (1 << 8 * TAG_BYTES) - 1


def tags_of(node_ids: Iterable[NodeId], salt: int) -> list[int]:
    """Return the tags of nodes; `salt` is odd."""
    return [(node_id * salt) >> _TAG_SHIFT & _TAG_MASK for node_id in node_ids]


def summarize(member_ids: Sequence[NodeId], salt: int) -> bytes:
    """Return the summary of a leaf set, its members clockwise from its owner."""
    tags = tags_of(member_ids, salt)
    return pack(f">{len(tags)}H", *tags)


def tags_in(summary: bytes) -> tuple[int, ...]:
    """Return the tags of a summary in its order."""
    return unpack_from(f">{len(summary) // TAG_BYTES}H", summary)


def nearest_around(
    leaf_set: LeafSet, other_id: NodeId, side_max: int, without: Collection[NodeId] = ()
) -> list[Handle]:
    """Return which of our members belong in the leaf set of another node, as far as we know.

    The `side_max` next to it on either side, of all that we know, without itself and us. Beyond our
    ends we know nobody: who lies past one of them is not next to what lies past the other. So to
    one who is no farther past an end than we see, the nodes at the other end are nothing.
    `without`: whom it has found dead.
    """
    members, ids = leaf_set.members(), leaf_set.member_ids
    rights = len(members) - len(leaf_set.left)
    # From our left end over us (None) to our right end.
    window = [*members[rights:], None, *members[:rights]]
    ids = [*ids[rights:], leaf_set.owner, *ids[:rights]]
    if without:
        window = [handle for handle in window if handle is None or handle.id not in without]
        ids = [node_id for node_id in ids if node_id not in without]
    start = ids[0]
    offsets = [(node_id - start) & RING_MASK for node_id in ids]
    place = bisect_left(offsets, (other_id - start) & RING_MASK)
    after = place + (place < len(ids) and ids[place] == other_id)
    left, right = window[:place], window[after:]
    if leaf_set.spans_ring:
        left = right = right + left
    elif not leaf_set.covers(other_id):
        span, past = offsets[-1], (other_id - start) & RING_MASK
        left = right = window
        if past - span <= span:
            right = []
        elif RING_MASK - past < span:
            left = []
    near = {h.id: h for h in right[:side_max] + left[-side_max:] if h is not None}
    return list(near.values())


def around_members(leaf_set: LeafSet, side_max: int) -> Around:
    """Return for each member whom we believe to be in its leaf set."""
    return {h.id: nearest_around(leaf_set, h.id, side_max) for h in leaf_set.members()}


def heirs_of(
    leaf_set: LeafSet, dead_id: NodeId, before: Around, side_max: int
) -> list[tuple[Handle, tuple[Handle, ...]]]:
    """Return whom to tell of a death, and for those on our left whom they have in its place.

    `before` is `around_members` of when it lived. One of two new neighbours begins; the other hears
    from it, of the death too.
    """
    around = around_members(leaf_set, side_max) if before else {}
    had = [h for h in leaf_set.members() if dead_id in [k.id for k in before.get(h.id, ())]]
    lefts = {handle.id for handle in leaf_set.left}
    heirs = {
        h.id: tuple([f for f in around[h.id] if f not in before[h.id]])
        for h in had
        if h.id in lefts
    }
    named = {heir.id for fresh in heirs.values() for heir in fresh}
    return [(h, heirs.get(h.id, ())) for h in had if h.id in lefts or h.id not in named]


def answered_beside(leaf_set: LeafSet, silent: Collection[NodeId], count: int) -> bool:
    """Tell whether the `count` next to us on either side have answered: none of them is silent."""
    ids = {*silent, *(handle.id for handle in leaf_set.members())}
    around = sorted(ids, key=lambda i: (i - leaf_set.owner) & RING_MASK)
    beside = (*around[:count], *around[-count:])
    return len(around) >= count and not any(node_id in silent for node_id in beside)


def nearest_to(owner_id: NodeId, node_ids: Iterable[NodeId], side_max: int) -> list[NodeId]:
    """Return the `side_max` next to a node on either side, clockwise from it."""
    around = sorted(node_ids, key=lambda node_id: (node_id - owner_id) & RING_MASK)
    return around if len(around) <= 2 * side_max else around[:side_max] + around[-side_max:]


def lacking(
    leaf_set: LeafSet,
    other_id: NodeId,
    summary: bytes,
    salt: int,
    side_max: int,
    failed: Sequence[tuple[NodeId, int]] = (),
) -> tuple[Handle, ...]:
    """Return those of `nearest_around` another node who are not in its summary.

    `failed`: whom it has found dead, and in which incarnation: of a later one it should hear.
    """
    known = set(tags_in(summary))
    ids = leaf_set.member_ids
    tags = tags_of(ids, salt)
    unnamed = {i for i, tag in zip(ids, tags, strict=True) if tag not in known}
    if not unnamed:
        return ()
    without: Collection[NodeId] = ()
    if failed:
        dead = dict(failed)
        without = [h.id for h in leaf_set.members() if h.incarnation <= dead.get(h.id, -1)]
    near = nearest_around(leaf_set, other_id, side_max, without)
    return tuple([handle for handle in near if handle.id in unnamed])


def neighbours_in(
    summary: bytes, salt: int, owner_id: NodeId, known_ids: Sequence[NodeId]
) -> tuple[NodeId, NodeId]:
    """Return who the owner of a summary has next to it, left and right, if they are known.

    In the place of an unknown one stands the owner itself.
    """
    tags = tags_in(summary)
    if not tags:
        return owner_id, owner_id
    by_tag = dict(zip(tags_of(known_ids, salt), known_ids, strict=True))
    return by_tag.get(tags[-1], owner_id), by_tag.get(tags[0], owner_id)
