"""Naive models: sort everything, count everything. Slow, short, and obviously right."""

from collections.abc import Callable, Iterable, Sequence

from pastryd.ids import RING, RING_MASK, Position, clockwise, position_of, rank, within

Arc = tuple[Position, Position]


def true_root(key: int, node_ids: Iterable[int]) -> int:
    """Return the node that a key belongs to."""
    return min(node_ids, key=lambda node_id: rank(key, node_id))


def replica_ids(key: int, node_ids: Iterable[int], k: int) -> list[int]:
    """Return the k closest nodes, closest first."""
    return sorted(node_ids, key=lambda node_id: rank(key, node_id))[:k]


def sides(owner: int, others: Iterable[int], size: int) -> tuple[list[int], list[int]]:
    """Return what (left, right) of a leaf set must be when all `others` were added."""
    ids = list(others)
    left = sorted(ids, key=lambda node_id: clockwise(node_id, owner))[: size // 2]
    right = sorted(ids, key=lambda node_id: clockwise(owner, node_id))[: size // 2]
    return left, right


def in_replica_set(node_id: int, position: int, node_ids: Iterable[int], k: int) -> bool:
    """Tell by counting whether fewer than k nodes are closer to the position than this one."""
    own = rank(position, node_id)
    return sum(rank(position, other) < own for other in node_ids) < k


def in_any(arcs: Iterable[Arc], position: int) -> bool:
    """Tell whether a position lies on one of the arcs."""
    return any(within(start, end, position) for start, end in arcs)


def interesting_positions(node_ids: Sequence[int]) -> list[int]:
    """Return where closeness may change: at nodes, half-way between any two, and beside."""
    found: set[int] = set()
    for a in node_ids:
        for b in node_ids:
            middle = a + clockwise(a, b) // 2
            found.update((middle + d) & RING_MASK for d in (-1, 0, 1))
            found.update((middle + RING // 2 + d) & RING_MASK for d in (-1, 0, 1))
    return sorted(found)


def names_on(names: Iterable[bytes], start: int, end: int) -> list[bytes]:
    """Return the names on an arc, clockwise from its start."""
    chosen = [name for name in names if within(start, end, position_of(name))]
    return sorted(chosen, key=lambda name: (clockwise(start, position_of(name)), name))


def fold(names: Iterable[bytes]) -> int:
    """Return the XOR over both halves of each name."""
    value = 0
    for name in names:
        value ^= int.from_bytes(name[:16], "big") ^ int.from_bytes(name[16:], "big")
    return value


class SortedTimers:
    """Deadlines as a plain list that is sorted whenever somebody asks."""

    def __init__(self) -> None:
        self.pending: list[tuple[float, int]] = []

    def arm(self, when: float, number: int) -> None:
        """Remember a timer; numbers ascend."""
        self.pending.append((when, number))

    def cancel(self, number: int) -> None:
        """Forget it, if it is still there."""
        self.pending = [entry for entry in self.pending if entry[1] != number]

    def due(self, now: float) -> list[int]:
        """Take out what is due, in order."""
        ready = sorted(entry for entry in self.pending if entry[0] <= now)
        self.pending = [entry for entry in self.pending if entry[0] > now]
        return [number for _, number in ready]

    def shift(self, by_s: float) -> None:
        """Move all later."""
        self.pending = [(when + by_s, number) for when, number in self.pending]

    def next_deadline(self) -> float | None:
        """Return the earliest time."""
        return min(self.pending)[0] if self.pending else None


def largest_within(
    function: Callable[[float], float], target: float, low: float, high: float, steps: int = 20_000
) -> float:
    """Return the largest sampled x whose value is within target; `low` when none is."""
    best = low
    for i in range(steps + 1):
        x = low + (high - low) * i / steps
        if function(x) <= target:
            best = x
    return best
