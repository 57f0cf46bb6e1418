"""Inventory: the names of all items that a node holds, in ring order, with fingerprints of ranges.

Owns what reconciliation asks (ALGORITHMS sec. 6; range-based set reconciliation): which names lie
on an arc, how many, and their XOR, kept incrementally so that a round over a million items reads
nothing from disk. Knows neither the store nor who should hold what.

A name counts as the XOR of its two halves. Names are SHA-256 values, so two different honest sets
of one size agree with probability 2**-128; a liar who can choose 129 names freely can make sets
that agree, and hides only what it claims to hold itself.

Shape: branches of leaves of names, each leaf one bytes object of concatenated sorted names. It
grows with its content: a handful of names costs a few hundred bytes, a million 36 bytes each.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import pairwise
from operator import xor

from pastryd.ids import ID_BITS, ID_BYTES, NAME_BYTES, RING, RING_MASK, Arc, Name, Position

Fingerprint = tuple[int, int]
"""How many names, and the 128-bit XOR of what each counts as."""

LEAF_NAMES_MAX = 128
LEAF_NAMES_MIN = 32
LEAF_NAMES_LOADED = 96
"""How full a bulk load makes a leaf: room for 32 more before it splits."""
BRANCH_LEAVES_MAX = 128
BRANCH_LEAVES_LOADED = 96

_NAME_BITS = NAME_BYTES * 8
_HALF_MASK = (1 << ID_BITS) - 1


def _fold(names: bytes) -> int:
    """Return the XOR of what the concatenated names count as, by folding one long integer."""
    count = len(names) // NAME_BYTES
    value = int.from_bytes(names, "big")
    while count > 1:
        count = (count + 1) // 2
        bits = count * _NAME_BITS
        value = (value >> bits) ^ (value & ((1 << bits) - 1))
    return (value >> ID_BITS) ^ (value & _HALF_MASK)


def _lower_bound(names: bytes, prefix: bytes) -> int:
    """Return the byte offset of the first name that is not below `prefix`."""
    low, high = 0, len(names) // NAME_BYTES
    while low < high:
        middle = (low + high) // 2
        if names[middle * NAME_BYTES : (middle + 1) * NAME_BYTES] < prefix:
            low = middle + 1
        else:
            high = middle
    return low * NAME_BYTES


class _Branch:
    """A run of leaves with the sums over them; the lists run beside each other."""

    __slots__ = ("count", "firsts", "leaves", "xor", "xors")

    def __init__(self, leaves: list[bytes], firsts: list[bytes], xors: list[int]) -> None:
        self.leaves = leaves
        self.firsts = firsts
        self.xors = xors
        self.count = sum(map(len, leaves)) // NAME_BYTES
        self.xor = reduce(xor, xors, 0)

    def find(self, prefix: bytes) -> int:
        """Return the leaf in which the first name not below `prefix` lies, or would lie."""
        return max(0, bisect_right(self.firsts, prefix) - 1)

    def replace(self, index: int, names: bytes) -> None:
        """Put a leaf's new content, which is split when it grew too long."""
        old = len(self.leaves[index]) // NAME_BYTES
        self.xor ^= self.xors[index]
        pieces = [names] if names else []
        if len(names) > LEAF_NAMES_MAX * NAME_BYTES:
            middle = LEAF_NAMES_MAX // 2 * NAME_BYTES
            pieces = [names[:middle], names[middle:]]
        folds = [_fold(piece) for piece in pieces]
        self.leaves[index : index + 1] = pieces
        self.firsts[index : index + 1] = [piece[:NAME_BYTES] for piece in pieces]
        self.xors[index : index + 1] = folds
        self.xor = reduce(xor, folds, self.xor)
        self.count += len(names) // NAME_BYTES - old

    def merge_small(self, index: int) -> None:
        """Join a leaf that shrank with a neighbour that has room."""
        if len(self.leaves) < 2:
            return
        low = index if index + 1 < len(self.leaves) else index - 1
        joined = self.leaves[low] + self.leaves[low + 1]
        if len(joined) > LEAF_NAMES_LOADED * NAME_BYTES:
            return
        self.leaves[low : low + 2] = [joined]
        del self.firsts[low + 1]
        self.xors[low : low + 2] = [self.xors[low] ^ self.xors[low + 1]]

    def split(self) -> "_Branch":
        """Give the upper half of the leaves to a new branch."""
        middle = len(self.leaves) // 2
        upper = _Branch(self.leaves[middle:], self.firsts[middle:], self.xors[middle:])
        del self.leaves[middle:], self.firsts[middle:], self.xors[middle:]
        self.count -= upper.count
        self.xor ^= upper.xor
        return upper


class Inventory:
    """An ordered set of 32-byte names."""

    __slots__ = ("_branches", "_count", "_firsts", "_xor", "bytes_held")

    def __init__(self) -> None:
        self._branches: list[_Branch] = []
        self._firsts: list[bytes] = []  # first name of each branch
        self._count = 0
        self._xor = 0
        self.bytes_held = 0
        """Sum of the sizes that callers gave with the names."""

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, bytes) or not self._branches:
            return False
        branch = self._branches[self._find(name)]
        leaf = branch.leaves[branch.find(name)]
        offset = _lower_bound(leaf, name)
        return leaf[offset : offset + NAME_BYTES] == name

    def add(self, name: Name, size: int = 0) -> bool:
        """Take in a name (and the size of its item); return whether it is new."""
        assert len(name) == NAME_BYTES
        if not self._branches:
            self._append([bytes(name)])
        else:
            at = self._find(name)
            branch = self._branches[at]
            index = branch.find(name)
            leaf = branch.leaves[index]
            offset = _lower_bound(leaf, name)
            if leaf[offset : offset + NAME_BYTES] == name:
                return False
            if len(leaf) < LEAF_NAMES_MAX * NAME_BYTES:
                branch.leaves[index] = leaf[:offset] + name + leaf[offset:]
                value = _fold(name)
                branch.xors[index] ^= value
                branch.xor ^= value
                branch.count += 1
                if offset == 0:
                    branch.firsts[index] = bytes(name)
            else:
                branch.replace(index, leaf[:offset] + name + leaf[offset:])
                if len(branch.leaves) > BRANCH_LEAVES_MAX:
                    upper = branch.split()
                    self._branches.insert(at + 1, upper)
                    self._firsts.insert(at + 1, upper.firsts[0])
            self._firsts[at] = branch.firsts[0]
            self._count += 1
            self._xor ^= _fold(name)
        self.bytes_held += size
        return True

    def discard(self, name: Name, size: int = 0) -> bool:
        """Forget a name (and the size that `add` was given); return whether it was there."""
        if not self._branches:
            return False
        at = self._find(name)
        branch = self._branches[at]
        index = branch.find(name)
        leaf = branch.leaves[index]
        offset = _lower_bound(leaf, name)
        if leaf[offset : offset + NAME_BYTES] != name:
            return False
        rest = leaf[:offset] + leaf[offset + NAME_BYTES :]
        branch.replace(index, rest)
        if rest and len(rest) < LEAF_NAMES_MIN * NAME_BYTES:
            branch.merge_small(index)
        if branch.leaves:
            self._firsts[at] = branch.firsts[0]
        else:
            del self._branches[at], self._firsts[at]
        self._count -= 1
        self._xor ^= _fold(name)
        self.bytes_held -= size
        return True

    def bulk_load(self, names: Iterable[Name], bytes_held: int = 0) -> None:
        """Fill an empty inventory from strictly ascending names, such as a scan of the store."""
        assert not self._branches, "bulk_load fills an empty inventory"
        leaves: list[bytes] = []
        batch: list[bytes] = []
        last = b""
        for name in names:
            assert len(name) == NAME_BYTES and name > last, "names must ascend"
            last = name
            batch.append(name)
            if len(batch) == LEAF_NAMES_LOADED:
                leaves.append(b"".join(batch))
                batch.clear()
                if len(leaves) == BRANCH_LEAVES_LOADED:
                    self._append(leaves)
                    leaves = []
        if batch:
            leaves.append(b"".join(batch))
        if leaves:
            self._append(leaves)
        self.bytes_held += bytes_held

    def names_in(self, start: int, end: int, limit: int | None = None) -> list[Name]:
        """Return the names on the arc [start, end), clockwise from `start`, at most `limit`."""
        if limit is not None and limit <= 0:
            return []
        found: list[Name] = []
        arcs = [(start, end)] if start < end else [(start, RING), (0, end)]
        for low, high in arcs:
            for run in self._runs(low, high):
                found += [Name(run[i : i + NAME_BYTES]) for i in range(0, len(run), NAME_BYTES)]
                if limit is not None and len(found) >= limit:
                    return found[:limit]
        return found

    def fingerprint(self, start: int, end: int) -> Fingerprint:
        """Return count and XOR of the names on the arc [start, end)."""
        count, value = self._below(end)
        if start == end:
            return self._count, self._xor
        count_before, value_before = self._below(start)
        value ^= value_before
        count -= count_before
        if start > end:  # over the top: all but what lies between
            return self._count + count, self._xor ^ value
        return count, value

    def with_position(self, position: int) -> list[Name]:
        """Return the names whose first 16 bytes are this position, ascending."""
        return self.names_in(position, (position + 1) & RING_MASK)

    @staticmethod
    def split(start: int, end: int, parts: int = 16) -> list[Arc]:
        """Cut the arc [start, end) into equal arcs; fewer when it has fewer positions."""
        length = ((end - start) & RING_MASK) or RING
        parts = min(parts, length)
        cuts = [Position((start + length * i // parts) & RING_MASK) for i in range(parts + 1)]
        return list(pairwise(cuts))

    def check_invariants(self) -> None:
        """Assert what always holds (reads everything: for tests)."""
        last = b""
        total, value = 0, 0
        for first, branch in zip(self._firsts, self._branches, strict=True):
            assert 0 < len(branch.leaves) <= BRANCH_LEAVES_MAX and first == branch.firsts[0]
            for leaf, leaf_first, leaf_xor in zip(
                branch.leaves, branch.firsts, branch.xors, strict=True
            ):
                assert 0 < len(leaf) <= LEAF_NAMES_MAX * NAME_BYTES
                assert leaf_first == leaf[:NAME_BYTES] and leaf_xor == _fold(leaf)
                for i in range(0, len(leaf), NAME_BYTES):
                    assert last < leaf[i : i + NAME_BYTES]
                    last = leaf[i : i + NAME_BYTES]
            assert branch.count == sum(map(len, branch.leaves)) // NAME_BYTES
            assert branch.xor == reduce(xor, branch.xors, 0)
            total += branch.count
            value ^= branch.xor
        assert (total, value) == (self._count, self._xor)

    def _find(self, prefix: bytes) -> int:
        return max(0, bisect_right(self._firsts, prefix) - 1)

    def _append(self, leaves: list[bytes]) -> None:
        branch = _Branch(leaves, [leaf[:NAME_BYTES] for leaf in leaves], [_fold(x) for x in leaves])
        self._branches.append(branch)
        self._firsts.append(branch.firsts[0])
        self._count += branch.count
        self._xor ^= branch.xor

    def _below(self, position: int) -> Fingerprint:
        """Return count and XOR of all names whose position is below this one."""
        if not self._branches:
            return 0, 0
        prefix = position.to_bytes(ID_BYTES, "big")
        at = self._find(prefix)
        count, value = 0, 0
        for before in self._branches[:at]:
            count += before.count
            value ^= before.xor
        branch = self._branches[at]
        index = branch.find(prefix)
        leaf = branch.leaves[index]
        offset = _lower_bound(leaf, prefix)
        count += (sum(map(len, branch.leaves[:index])) + offset) // NAME_BYTES
        value = reduce(xor, branch.xors[:index], value)
        if offset * 2 <= len(leaf):
            return count, value ^ _fold(leaf[:offset])
        return count, value ^ branch.xors[index] ^ _fold(leaf[offset:])

    def _runs(self, low: int, high: int) -> Iterator[bytes]:
        """Yield the concatenated names of [low, high), leaf by leaf; `high` may be RING."""
        if not self._branches or low == high:
            return
        first = low.to_bytes(ID_BYTES, "big")
        stop = None if high == RING else high.to_bytes(ID_BYTES, "big")
        at = self._find(first)
        index = self._branches[at].find(first)
        while at < len(self._branches):
            branch = self._branches[at]
            while index < len(branch.leaves):
                leaf = branch.leaves[index]
                if stop is not None and branch.firsts[index] >= stop:
                    return
                begin = _lower_bound(leaf, first)
                yield leaf[begin:] if stop is None else leaf[begin : _lower_bound(leaf, stop)]
                index += 1
            at += 1
            index = 0
