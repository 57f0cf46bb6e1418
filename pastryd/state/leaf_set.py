"""Leaf set (Rowstron & Druschel 2001, sec. 2.1): the nodes next to the owner on either side.

Owns who stands beside us, which keys we may answer for, and whose items overlap with ours. Knows
nothing of liveness, time or messages: whoever calls `add` has heard from that node itself.

All members and the owner lie in one list sorted by id; a side is a run of it. While fewer nodes
are known than the set can hold, each side takes its nearest from all of them, so the sides overlap
and the set spans the ring. Once it was full, or more nodes were named, the ring is known to be
larger ("open"): after a loss the gap at the far end stays a gap, until it looks no wider than any
other or somebody proves it closed. Otherwise one dead neighbour in a ring of thousands would make
us claim all of it.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from hashlib import blake2b
from itertools import islice
from operator import lt
from typing import cast

from pastryd.ids import ID_BYTES, RING, RING_MASK, Arc, NodeId, Position, overlap
from pastryd.state.handle import Handle

SEAM_GAPS_MAX = 12
"""An open set closes when the gap between its ends is at most this many mean gaps: exp(-12) is how
often the gap of a ring that is really closed is wider. With 11 nodes unknown it closes wrongly,
which costs hops in a ring that small, and nothing else."""

SEAM_GAPS_MAX_EMPTY_SIDE = 4
"""The same when one side is empty: there a wrong answer would claim our neighbour's keys."""


def digest_of(node_ids: Iterable[int]) -> int:
    """Return 64 bits that stand for a set of node ids, whatever their order."""
    joined = b"".join(node_id.to_bytes(ID_BYTES, "big") for node_id in sorted(node_ids))
    return int.from_bytes(blake2b(joined, digest_size=8).digest(), "big")


class LeafSet:
    """At most `size` handles: the size/2 nearest on either side of the owner, as far as known."""

    __slots__ = (
        "_arc_length",
        "_arc_start",
        "_at",
        "_beyond",
        "_handles",
        "_ids",
        "_left_count",
        "_members",
        "_open",
        "_right_count",
        "_side_max",
        "owner",
        "version",
    )

    def __init__(self, owner: NodeId, size: int) -> None:
        assert size >= 2 and size % 2 == 0, "a leaf set has two equal sides"
        self.owner = owner
        self.version = 0
        """Grows with every change; compare it to know whether anything moved."""
        self._side_max = size // 2
        self._ids: list[NodeId] = [owner]  # ascending, the owner among them
        self._handles: list[Handle | None] = [None]  # beside _ids; None is the owner
        self._at = 0  # the owner's index in both
        self._open = False
        self._beyond: dict[NodeId, NodeId] = {}  # what our ends say: who is their next neighbour
        self._right_count = 0
        self._left_count = 0
        self._arc_start = 0
        self._arc_length = RING_MASK
        self._members: tuple[Handle, ...] | None = ()

    def __len__(self) -> int:
        return len(self._ids) - 1

    def __contains__(self, node_id: object) -> bool:
        ids = self._ids
        index: int = bisect_left(ids, node_id)  # type: ignore[call-overload]
        return index < len(ids) and ids[index] == node_id and index != self._at

    def get(self, node_id: NodeId) -> Handle | None:
        """Return the member with this id."""
        ids = self._ids
        index = bisect_left(ids, node_id)
        return self._handles[index] if index < len(ids) and ids[index] == node_id else None

    def members(self) -> tuple[Handle, ...]:
        """Return every member once, clockwise from the owner."""
        members = self._members
        if members is None:
            at = self._at
            clockwise = (*self._handles[at + 1 :], *self._handles[:at])
            self._members = members = cast(tuple[Handle, ...], clockwise)
        return members

    @property
    def member_ids(self) -> list[NodeId]:
        """The ids of `members()` in their order."""
        at = self._at
        return self._ids[at + 1 :] + self._ids[:at]

    @property
    def right(self) -> tuple[Handle, ...]:
        """The clockwise side, nearest first."""
        return self.members()[: self._right_count]

    @property
    def left(self) -> tuple[Handle, ...]:
        """The counter-clockwise side, nearest first."""
        return self.members()[len(self._ids) - 1 - self._left_count :][::-1]

    def beside(self, count: int) -> tuple[Handle, ...]:
        """Return the `count` nearest of either side, each once: clockwise, then the others."""
        members = self.members()
        rights = min(count, self._right_count)
        lefts = max(rights, len(members) - min(count, self._left_count))
        return members[:rights] + members[lefts:][::-1]

    @property
    def immediate_right(self) -> Handle | None:
        """The next node clockwise, if that side knows one."""
        return self._clockwise_member(0) if self._right_count else None

    @property
    def immediate_left(self) -> Handle | None:
        """The next node counter-clockwise, if that side knows one."""
        return self._clockwise_member(len(self._ids) - 2) if self._left_count else None

    @property
    def rightmost(self) -> Handle | None:
        """The far end of the clockwise side."""
        return self._clockwise_member(self._right_count - 1) if self._right_count else None

    @property
    def leftmost(self) -> Handle | None:
        """The far end of the counter-clockwise side."""
        if not self._left_count:
            return None
        return self._clockwise_member(len(self._ids) - 1 - self._left_count)

    @property
    def extremes(self) -> tuple[Handle | None, Handle | None]:
        """`(leftmost, rightmost)`."""
        return self.leftmost, self.rightmost

    @property
    def is_full(self) -> bool:
        """Both sides have all the nodes that they can hold, and share none."""
        return len(self._ids) - 1 == 2 * self._side_max

    @property
    def has_gap(self) -> bool:
        """The ring is larger than what we know of it, and a side lacks nodes."""
        return self._open and len(self._ids) - 1 != 2 * self._side_max

    @property
    def spans_ring(self) -> bool:
        """The sides overlap: every node of the ring is a member, as far as we know."""
        return self._arc_length == RING_MASK

    def covers(self, key: int) -> bool:
        """Tell whether the closest node to `key` must be a member or the owner."""
        return (key - self._arc_start) & RING_MASK <= self._arc_length

    @property
    def left_digest(self) -> int:
        """What the owner shares with its left neighbour, as 64 bits.

        Neighbours that know all whom they should have the same digest of each other: of the owner
        and the members, but not the far end on the other side, where one sees further.
        """
        return self._digest_without(self.rightmost)

    @property
    def right_digest(self) -> int:
        """What the owner shares with its right neighbour, as 64 bits."""
        return self._digest_without(self.leftmost)

    def closest(self, key: int, exclude: Collection[int] = ()) -> Handle | None:
        """Return the member closest to `key`, None when the owner is closer than any of them."""
        ids = self._ids
        after = bisect_left(ids, key)
        if not exclude:
            if after == len(ids):
                after = 0
            before = after - 1
            if (ids[after] - key) & RING_MASK <= (key - ids[before]) & RING_MASK:
                return self._handles[after]
            return self._handles[before]
        return self.replica_set(key, 1, exclude)[0]

    def replica_set(self, key: int, k: int, exclude: Collection[int] = ()) -> list[Handle | None]:
        """Return the k closest of members and owner (None) to `key`, closest first.

        Excluded members are passed over; the owner cannot be excluded. Shorter than k in a ring
        that has fewer nodes.
        """
        ids, handles = self._ids, self._handles
        count = len(ids)
        after = bisect_left(ids, key)
        before = after - 1
        found: list[Handle | None] = []
        for _ in range(count):  # each step takes one node, from one end of what is left
            if len(found) == k:
                break
            right, left = after % count, before % count
            if (ids[right] - key) & RING_MASK <= (key - ids[left]) & RING_MASK:
                index = right
                after += 1
            else:
                index = left
                before -= 1
            handle = handles[index]
            if handle is None or handle.id not in exclude:
                found.append(handle)
        return found

    def replica_range(self, k: int) -> Arc | None:
        """Return the positions for which the owner is among the k closest; None: the whole ring."""
        return self._range_of(self._at, k)

    def shared_ranges(self, other_id: NodeId, k: int) -> list[Arc]:
        """Return the arcs for which the owner and this member both are among the k closest."""
        index = bisect_left(self._ids, other_id)
        assert self._ids[index] == other_id and index != self._at, "not a member"
        ours, theirs = self._range_of(self._at, k), self._range_of(index, k)
        if ours is None or theirs is None:
            return [(self.owner, self.owner)]
        return overlap(ours, theirs)

    def would_enter(self, node_id: NodeId) -> bool:
        """Tell whether `add` would make a member of this node, which is not one yet."""
        index = bisect_left(self._ids, node_id)
        if index < len(self._ids) and self._ids[index] == node_id:
            return False
        if not self._open or self._place(index) != self._right_count:
            return True  # inside a side: it pushes out the far end if need be
        return self._side_between_ends(node_id) is not None

    def add(self, handle: Handle) -> bool:
        """Take in a node that was heard from; return whether anything changed.

        A known id gets the new address and incarnation, but never an older incarnation.
        """
        ids = self._ids
        node_id = handle.id
        index = bisect_left(ids, node_id)
        if index < len(ids) and ids[index] == node_id:
            known = self._handles[index]
            if known is None or known == handle or handle.incarnation < known.incarnation:
                return False
            self._handles[index] = handle
            self._members = None
            self.version += 1
            return True
        place = self._place(index)
        to_right: bool | None = place < self._right_count
        if self._open and place == self._right_count:
            to_right = self._side_between_ends(node_id)
            if to_right is None:
                return False
        self._insert(index, handle)
        if self._open:
            if to_right:
                self._right_count += 1
            else:
                self._left_count += 1
            if max(self._right_count, self._left_count) > self._side_max:
                self._trim(bool(to_right))
        self._settle()
        return True

    def discard(self, node_id: NodeId) -> bool:
        """Forget a member; return whether it was one."""
        index = bisect_left(self._ids, node_id)
        if index == len(self._ids) or self._ids[index] != node_id or index == self._at:
            return False
        self._remove(index)
        if self._open:
            self._part()
        self._settle()
        return True

    def note_larger(self) -> None:
        """More nodes were named than fit: what is missing is a gap, not the end of the ring."""
        if not self._open:
            self._open = True
            self._part()
            self._settle()

    def note_neighbours(self, node_id: NodeId, left_id: NodeId, right_id: NodeId) -> None:
        """A member says who its own neighbours are: what that proves of the gap between our ends.

        If our two ends are neighbours, the set spans the ring. Otherwise who is next to an end
        may lengthen that side, however far away it lies.
        """
        if not self.has_gap:
            return
        leftmost, rightmost = self.extremes
        if leftmost is not None and node_id == leftmost.id:
            told, other_end = left_id, rightmost
        elif rightmost is not None and node_id == rightmost.id:
            told, other_end = right_id, leftmost
        else:
            return
        if other_end is not None and told == other_end.id:
            self._open = False
            self._settle()
        else:
            self._beyond[node_id] = told

    def check_invariants(self) -> None:
        """Assert what always holds."""
        ids, count = self._ids, len(self._ids) - 1
        assert len(ids) == len(self._handles) <= 2 * self._side_max + 1
        assert all(map(lt, ids, islice(ids, 1, None)))
        assert ids[self._at] == self.owner and self._handles[self._at] is None
        assert ids == [self.owner if handle is None else handle.id for handle in self._handles]
        assert self._right_count <= self._side_max and self._left_count <= self._side_max
        if self._open:
            assert self._right_count + self._left_count == count
        else:
            assert self._right_count == self._left_count == min(count, self._side_max)
            assert self.spans_ring and not self.is_full

    def _digest_without(self, end: Handle | None) -> int:
        """Return the digest of owner and members, but for one end if we do not span the ring."""
        if end is None or self.spans_ring:
            return digest_of(self._ids)
        return digest_of([i for i in self._ids if i != end.id])

    def _clockwise_member(self, place: int) -> Handle:
        handle = self._handles[(self._at + 1 + place) % len(self._ids)]
        assert handle is not None
        return handle

    def _place(self, index: int) -> int:
        """Return how many members lie between the owner and insertion point `index`, clockwise."""
        at = self._at
        return index - at - 1 if index > at else len(self._ids) - 1 - at + index

    def _side_between_ends(self, node_id: NodeId) -> bool | None:
        """Return which side (True: right) a node between our two ends lengthens; None: neither.

        The side in whose half it lies: a node just past our left end is no right neighbour, and
        would hide that we still lack one. Where that side is full, the other one, if the end of
        that side has said that this is its neighbour (`note_neighbours`).
        """
        in_right_half = (node_id - self.owner) & RING_MASK <= RING // 2
        right_has_room = self._right_count < self._side_max
        if right_has_room if in_right_half else self._left_count < self._side_max:
            return in_right_half
        end = self.rightmost if right_has_room else self.leftmost
        if end is not None and self._beyond.get(end.id) == node_id:
            return right_has_room
        return None

    def _part(self) -> None:
        """Who lies in the nearer half belongs to that side, unless the other has no room."""
        near = sum((i - self.owner) & RING_MASK <= RING // 2 for i in self._ids) - 1
        count = len(self._ids) - 1
        self._right_count = max(count - self._side_max, min(self._side_max, near))
        self._left_count = count - self._right_count

    def _insert(self, index: int, handle: Handle) -> None:
        self._ids.insert(index, handle.id)
        self._handles.insert(index, handle)
        if index <= self._at:
            self._at += 1

    def _remove(self, index: int) -> None:
        del self._ids[index]
        del self._handles[index]
        if index < self._at:
            self._at -= 1

    def _trim(self, right: bool) -> None:
        """Take the far end off a side that has one too many: over to the other side, or out."""
        index = (self._at + self._right_count + (0 if right else 1)) % len(self._ids)
        in_right_half = (self._ids[index] - self.owner) & RING_MASK <= RING // 2
        keep = in_right_half != right and len(self._ids) - 1 <= 2 * self._side_max
        if right:
            self._right_count -= 1
            self._left_count += keep
        else:
            self._left_count -= 1
            self._right_count += keep
        if not keep:
            self._remove(index)

    def _settle(self) -> None:
        """Recompute, after a change, what is kept for speed."""
        self.version += 1
        self._members = None
        self._beyond.clear()
        count = len(self._ids) - 1
        if count == 2 * self._side_max:
            self._open = True
            self._right_count = self._left_count = self._side_max
        elif self._open and self._looks_closed():
            self._open = False
        if not self._open:
            self._right_count = self._left_count = min(count, self._side_max)
            self._arc_start, self._arc_length = 0, RING_MASK
            return
        leftmost, rightmost = self.leftmost, self.rightmost
        self._arc_start = self.owner if leftmost is None else leftmost.id
        end = self.owner if rightmost is None else rightmost.id
        self._arc_length = (end - self._arc_start) & RING_MASK

    def _looks_closed(self) -> bool:
        count = len(self._ids) - 1
        if count == 0:
            return True
        leftmost, rightmost = self.leftmost, self.rightmost
        start = self.owner if leftmost is None else leftmost.id
        end = self.owner if rightmost is None else rightmost.id
        arc = (end - start) & RING_MASK
        both = leftmost is not None and rightmost is not None
        gaps_max = SEAM_GAPS_MAX if both else SEAM_GAPS_MAX_EMPTY_SIDE
        return (RING - arc) * count <= gaps_max * arc

    def _range_of(self, index: int, k: int) -> Arc | None:
        """Return where the node at `index` is among the k closest of all that we know.

        Clockwise it loses to its k-th successor, which wins a tie; counter-clockwise it wins a tie
        against its k-th predecessor: [node - E // 2, node + (D + 1) // 2).
        """
        ids = self._ids
        count = len(ids)
        if count <= k:
            return None
        node_id = ids[index]
        ahead = (ids[(index + k) % count] - node_id) & RING_MASK
        behind = (node_id - ids[index - k]) & RING_MASK
        start = (node_id - behind // 2) & RING_MASK
        return Position(start), Position((node_id + (ahead + 1) // 2) & RING_MASK)
