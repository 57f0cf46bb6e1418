"""Rings of a million nodes: tables as arrays, made from sorted ids; many routes advance at once.

Needs numpy (the extra `sim`). Nodes are numbered in the order of their ids. Leaf sets are the
neighbours in that order and take no memory. Every slot of a routing table holds a node that fits if
the ring has one (Rowstron & Druschel 2001, sec. 2.1), the nearest of a bounded sample if delays are
given (sec. 2.5). `VectorRing.next_hops` is `state/routing.next_hop` for many messages; the property
tests hold it to that. Ids are pairs of 64-bit halves; prefixes of nodes must differ in the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from pastryd.errors import ConfigError
from pastryd.ids import ID_BYTES

try:
    import numpy as np
    from numpy.typing import NDArray
except ModuleNotFoundError:
    raise ConfigError("this needs numpy: pip install 'pastryd[sim]'") from None

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Halves = NDArray[np.uint64]
Ids = tuple[Halves, Halves]
"""128-bit numbers as their high and their low halves."""
DelayFunction = Callable[[Ints, Ints], Floats]
"""Node numbers, node numbers -> one-way delays in seconds; arrays of one shape."""

NOBODY = -1
HALF_BITS = 64
CHUNK = 1 << 16
"""Nodes whose rows are made at a time: bounds the memory of building."""


def ids_of(numbers: Sequence[int]) -> Ids:
    """Return 128-bit integers as arrays."""
    data = b"".join(number.to_bytes(ID_BYTES, "big") for number in numbers)
    return _from_bytes(data)


def random_ids(count: int, rng: Random) -> Ids:
    """Return ids, all equally likely, in no order."""
    return _from_bytes(rng.randbytes(count * ID_BYTES))


def ids_at(ids: Ids, chosen: NDArray[np.generic]) -> Ids:
    """Return some of the ids, by number or by flag."""
    return ids[0][chosen], ids[1][chosen]


def random_nodes(size: int, count: int, seed: int) -> Ints:
    """Return node numbers of a ring of this size, all equally likely."""
    return np.random.default_rng(seed).integers(0, size, count, np.int32)


@dataclass(frozen=True, slots=True)
class Routes:
    """How many routes went, each an element: hops, the node where it ended, delay of all hops."""

    hops: Ints
    ends: Ints
    travelled_s: Floats


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of all tables: `entries[place[node]]` are its slots; place -1: all empty."""

    place: Ints
    entries: Ints


class VectorRing:
    """The settled tables of all nodes of one ring."""

    def __init__(
        self,
        ids: Ids,
        seed: int,
        *,
        bits_per_digit: int = 4,
        leaf_set_size: int = 16,
        delays: DelayFunction | None = None,
        candidates: int = 32,
    ) -> None:
        """Raise `ConfigError` for a ring within one leaf set or whose ids are too close.

        `delays`: of so many `candidates` that fit in a slot the nearest gets it; otherwise any.
        """
        order = np.lexsort((ids[1], ids[0]))
        self.ids: Ids = (ids[0][order], ids[1][order])
        self.size = len(order)
        self.delays = delays
        self.bits = bits_per_digit
        self.leaf_set_size = leaf_set_size
        self._half = leaf_set_size // 2
        self._candidates = candidates if delays is not None else 1
        if self.size <= leaf_set_size:
            raise ConfigError(f"a ring of arrays has more than {leaf_set_size} nodes")
        if (self.ids[0][1:] == self.ids[0][:-1]).any():
            raise ConfigError("two ids share their first 64 bits")
        self.rows: list[_Row] = []
        for index in range(HALF_BITS // bits_per_digit):
            row = self._make_row(index, np.random.default_rng((seed, index)))
            if row is None:
                break
            self.rows.append(row)

    @property
    def table_bytes(self) -> int:
        """How much memory the tables take."""
        return sum(row.place.nbytes + row.entries.nbytes for row in self.rows)

    def leaf_sets(self, nodes: Ints) -> Ints:
        """Return the members of each node's leaf set, counter-clockwise side first."""
        offsets = [o for o in range(-self._half, self._half + 1) if o]
        return ((nodes[:, None] + np.array(offsets, np.int32)) % self.size).astype(np.int32)

    def row(self, index: int, nodes: Ints) -> Ints:
        """Return each node's slots of one row, by column; `NOBODY` in empty ones."""
        row = self.rows[index]
        place = row.place[nodes]
        found: Ints = np.where((place < 0)[:, None], NOBODY, row.entries[place])
        return found

    def roots(self, keys: Ids) -> Ints:
        """Return the node closest to each key; ties go clockwise."""
        after = self._successors(keys)
        before = (after - 1) % self.size
        ahead = _minus(ids_at(self.ids, after), keys)
        back = _minus(keys, ids_at(self.ids, before))
        return np.where(_less(back, ahead), before, after).astype(np.int32)

    def next_hops(self, nodes: Ints, keys: Ids) -> Ints:
        """Return where messages for these keys go next from these nodes; `NOBODY`: deliver."""
        left = ids_at(self.ids, (nodes - self._half) % self.size)
        right = ids_at(self.ids, (nodes + self._half) % self.size)
        covered = ~_less(_minus(right, left), _minus(keys, left))
        hops = np.full(len(nodes), NOBODY, np.int32)
        roots = self.roots(ids_at(keys, covered))
        hops[covered] = np.where(roots == nodes[covered], NOBODY, roots)
        open_ = np.flatnonzero(~covered)
        hops[open_] = entries = self._entries(nodes[open_], ids_at(keys, open_))
        rare = open_[entries == NOBODY]
        if len(rare):
            hops[rare] = self._rare_case(nodes[rare], ids_at(keys, rare))
        return hops

    def walk(self, starts: Ints, keys: Ids, hops_max: int = 32) -> Routes:
        """Route from each start to the root of its key. Raise `ConfigError` if one goes on."""
        at = starts.copy()
        hops = np.zeros(len(at), np.int32)
        travelled_s = np.zeros(len(at))
        going = np.arange(len(at))
        for _ in range(hops_max + 1):
            step = self.next_hops(at[going], ids_at(keys, going))
            on_way = step != NOBODY
            going, step = going[on_way], step[on_way]
            if not len(going):
                return Routes(hops, at, travelled_s)
            if self.delays is not None:
                travelled_s[going] += self.delays(at[going], step)
            at[going] = step
            hops[going] += 1
        raise ConfigError(f"{len(going)} routes took more than {hops_max} hops")

    # -- tables --

    def _make_row(self, index: int, rng: np.random.Generator) -> _Row | None:
        """Make one row of all nodes; None: nobody shares so many digits with anybody."""
        bits, columns = self.bits, 1 << self.bits
        child = self.ids[0] >> np.uint64(HALF_BITS - bits * (index + 1))
        parent = child >> np.uint64(bits)
        first = np.flatnonzero(np.concatenate(([True], parent[1:] != parent[:-1])))
        sizes = np.diff(first, append=self.size)
        shared = sizes > 1
        if not shared.any():
            return None
        # bounds[block, column]: where the nodes with that next digit begin; one more: the end.
        prefixes = parent[first[shared]] << np.uint64(bits)
        wanted = prefixes[:, None] | np.arange(columns, dtype=np.uint64)
        bounds = np.empty((len(prefixes), columns + 1), np.int32)
        bounds[:, :columns] = np.searchsorted(child, wanted)
        bounds[:, columns] = (first + sizes)[shared]
        nodes = np.flatnonzero(np.repeat(shared, sizes)).astype(np.int32)
        blocks = np.repeat(np.arange(len(prefixes)), sizes[shared])
        place = np.full(self.size, NOBODY, np.int32)
        place[nodes] = np.arange(len(nodes))
        entries = np.empty((len(nodes), columns), np.int32)
        own = (child & np.uint64(columns - 1)).astype(np.int32)
        for begin in range(0, len(nodes), CHUNK):
            part = slice(begin, begin + CHUNK)
            starts = bounds[blocks[part], :columns]
            counts = bounds[blocks[part], 1:] - starts
            counts[np.arange(len(counts)), own[nodes[part]]] = 0
            entries[part] = self._choose(nodes[part], starts, counts, rng)
        return _Row(place, entries)

    def _choose(self, nodes: Ints, starts: Ints, counts: Ints, rng: np.random.Generator) -> Ints:
        """Fill slots from the `counts` nodes that fit, numbered from `starts`: the nearest seen.

        Where no more fit than there are candidates all are seen, elsewhere one from each of as many
        equal parts.
        """
        owners = np.broadcast_to(nodes[:, None], starts.shape)
        chosen = np.full(starts.shape, NOBODY, np.int32)
        nearest_s = np.full(starts.shape, np.inf)
        for number in range(self._candidates):
            drawn = (rng.random(starts.shape, np.float32) + number) * (counts / self._candidates)
            few = counts <= self._candidates
            offset = np.where(few, number, np.minimum(drawn.astype(np.int32), counts - 1))
            fits = offset < counts
            other = starts + offset
            if self.delays is None:
                chosen = np.where(fits, other, chosen)
                continue
            delay_s = self.delays(owners, np.where(fits, other, owners))
            better = fits & (delay_s < nearest_s)
            chosen = np.where(better, other, chosen)
            nearest_s = np.where(better, delay_s, nearest_s)
        return chosen

    # -- the routing rule --

    def _entries(self, nodes: Ints, keys: Ids) -> Ints:
        """Return the table entry for the first digit in which each key differs from its node."""
        shared = self._shared_digits(self.ids[0][nodes], keys[0])
        found = np.full(len(nodes), NOBODY, np.int32)
        for index in range(len(self.rows)):
            here = np.flatnonzero(shared == index)
            shift = np.uint64(HALF_BITS - self.bits * (index + 1))
            columns = (keys[0][here] >> shift) & np.uint64((1 << self.bits) - 1)
            slots = self.row(index, nodes[here])
            found[here] = slots[np.arange(len(here)), columns.astype(np.intp)]
        return found

    def _rare_case(self, nodes: Ints, keys: Ids) -> Ints:
        """Of all that a node knows, take the nearest that shares as much with the key as it does.

        Nobody shares more: tables are complete, and the slot for the key's next digit is empty.
        """
        own_shared = self._shared_digits(self.ids[0][nodes], keys[0])
        best, best_rank = (
            np.full(len(nodes), NOBODY, np.int32),
            _rank(keys, ids_at(self.ids, nodes)),
        )
        rows = [self.row(index, nodes) for index in range(len(self.rows))]
        for other in np.concatenate([self.leaf_sets(nodes), *rows], axis=1).T:
            rank = _rank(keys, ids_at(self.ids, other))
            nearer = (other != NOBODY) & _ranks_before(rank, best_rank)
            nearer &= self._shared_digits(self.ids[0][other], keys[0]) == own_shared
            best = np.where(nearer, other, best)
            best_rank = (
                np.where(nearer, rank[0], best_rank[0]),
                np.where(nearer, rank[1], best_rank[1]),
                np.where(nearer, rank[2], best_rank[2]),
            )
        return best

    def _shared_digits(self, a: Halves, b: Halves) -> Ints:
        """Return how many leading digits of the high halves are equal."""
        different = a ^ b
        shared = np.zeros(len(a), np.int32)
        for digits in range(1, HALF_BITS // self.bits + 1):
            shared += (different >> np.uint64(HALF_BITS - self.bits * digits)) == 0
        return shared

    def _successors(self, keys: Ids) -> Ints:
        """Return the first node at or after each key."""
        index = np.searchsorted(self.ids[0], keys[0])
        found = index % self.size
        equal = (index < self.size) & (self.ids[0][found] == keys[0])
        past = equal & (self.ids[1][found] < keys[1])
        successors: Ints = ((found + past) % self.size).astype(np.int32)
        return successors


# -- arithmetic of 128 bits --

_Rank = tuple[Halves, Halves, Flags]
"""Distance, and whether counter-clockwise: orders nodes by closeness, as `ids.rank`."""


def _from_bytes(data: bytes) -> Ids:
    halves = np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])


def _minus(a: Ids, b: Ids) -> Ids:
    """Subtract modulo 2**128."""
    return a[0] - b[0] - (a[1] < b[1]), a[1] - b[1]


def _less(a: Ids, b: Ids) -> Flags:
    less: Flags = (a[0] < b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
    return less


def _rank(keys: Ids, nodes: Ids) -> _Rank:
    ahead, back = _minus(nodes, keys), _minus(keys, nodes)
    behind = _less(back, ahead)
    return np.where(behind, back[0], ahead[0]), np.where(behind, back[1], ahead[1]), behind


def _ranks_before(a: _Rank, b: _Rank) -> Flags:
    nearer = _less((a[0], a[1]), (b[0], b[1]))
    as_near: Flags = (a[0] == b[0]) & (a[1] == b[1])
    return nearer | (as_near & ~a[2] & b[2])
