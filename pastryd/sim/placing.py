"""Rules for where replicas go while stores fill, without nodes: sizes, free bytes, sorted ids.

`next_closest` is ours (docs/decisions/0010): the Putter's walk over the 2k closest. The others are
PAST's (Rowstron & Druschel 2001, sec. 3): without diversion, and with replica diversion.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from random import Random

from pastryd.ids import RING, clockwise

PRIMARY_MAX = 0.1
DIVERTED_MAX = 0.05
"""PAST's t_pri and t_div: a node refuses an item larger than this part of its free bytes."""


class Stores:
    """The stores of a ring: who is how full."""

    def __init__(self, ids: Sequence[int], capacities: Sequence[int], k: int) -> None:
        """`ids` ascending; capacities in bytes beside them."""
        self._ids = ids
        self.free = list(capacities)
        self.capacity = sum(capacities)
        self.used = 0
        self.k = k

    @property
    def utilisation(self) -> float:
        """The part of all bytes that is in use."""
        return self.used / self.capacity

    def closest(self, position: int, count: int) -> list[int]:
        """Return the nodes closest to a position, closest first; as many as there are."""
        ids, size = self._ids, len(self._ids)
        after = bisect_left(ids, position)
        before = after - 1
        found: list[int] = []
        while len(found) < min(count, size):
            ahead, behind = after % size, before % size
            if clockwise(position, ids[ahead]) <= clockwise(ids[behind], position):
                found.append(ahead)
                after += 1
            else:
                found.append(behind)
                before -= 1
        return found

    def keep(self, node: int, size: int) -> None:
        """Store a copy."""
        self.free[node] -= size
        self.used += size


PlaceRule = Callable[[Stores, int, int], bool]
"""(stores, position, bytes) -> whether k copies were stored."""


def next_closest(stores: Stores, position: int, size: int) -> bool:
    """Ours: who is full is passed over; copies stay even if they are fewer than k."""
    kept = 0
    for node in stores.closest(position, 2 * stores.k):
        if kept < stores.k and stores.free[node] >= size:
            stores.keep(node, size)
            kept += 1
    return kept == stores.k


def all_or_nothing(stores: Stores, position: int, size: int) -> bool:
    """PAST without diversion: if one of the k closest lacks the room, nothing is stored."""
    nodes = stores.closest(position, stores.k)
    if any(stores.free[node] < size for node in nodes):
        return False
    for node in nodes:
        stores.keep(node, size)
    return True


def diverting(leaf_set_size: int, salts: int, rng: Random) -> PlaceRule:
    """PAST with replica diversion, and file diversion: another position, `salts` times."""

    def place(stores: Stores, position: int, size: int) -> bool:
        for _ in range(1 + salts):
            if _divert(stores, position, size, leaf_set_size):
                return True
            position = rng.randrange(RING)
        return False

    return place


def _divert(stores: Stores, position: int, size: int, leaf_set_size: int) -> bool:
    near = stores.closest(position, leaf_set_size + 1)
    closest, others = near[: stores.k], near[stores.k :]
    chosen: list[int] = []
    for node in closest:
        if size <= PRIMARY_MAX * stores.free[node]:
            chosen.append(node)
            continue
        roomiest = max((o for o in others if o not in chosen), key=stores.free.__getitem__)
        if size > DIVERTED_MAX * stores.free[roomiest]:
            return False
        chosen.append(roomiest)
    for node in chosen:
        stores.keep(node, size)
    return True
