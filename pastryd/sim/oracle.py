"""What a settled ring looks like, from the sorted ids of all that live: leaf sets and roots."""

from bisect import bisect_left
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pastryd.ids import rank

if TYPE_CHECKING:
    from pastryd.sim.world import SimNode


class RingOracle:
    """What should be, among these nodes. To be made anew when one comes or goes."""

    def __init__(self, nodes: "Iterable[SimNode]", leaf_set_size: int) -> None:
        self._half = leaf_set_size // 2
        self._nodes = sorted(nodes, key=lambda node: node.id)
        self._ids = [node.id for node in self._nodes]
        self._wrong: Iterable[int] = range(len(self._ids))

    def is_right(self, place: int) -> bool:
        """Tell whether the node at this place of the ring is active and knows its neighbours."""
        node, ids = self._nodes[place], self._ids
        if not node.core.active:
            return False
        size, half = len(ids), self._half
        members = {handle.id for handle in node.core.context.leaf_set.members()}
        if size <= 2 * half:
            return members == set(ids) - {node.id}
        expected = [ids[(place + offset) % size] for offset in range(-half, half + 1) if offset]
        return len(members) == 2 * half and members.issuperset(expected)

    def settled(self) -> bool:
        """Tell whether all are right. Cheap while some are not: only those are looked at."""
        self._wrong = [place for place in self._wrong if not self.is_right(place)]
        if not self._wrong:
            self._wrong = [place for place in range(len(self._ids)) if not self.is_right(place)]
        return not self._wrong

    def root_of(self, key: int) -> "SimNode":
        """Return the node closest to a key."""
        after = bisect_left(self._ids, key) % len(self._ids)
        return self._nodes[min(after, after - 1, key=lambda place: rank(key, self._ids[place]))]

    def closest(self, key: int, count: int) -> "list[SimNode]":
        """Return the nodes closest to a key, the root first."""
        size = len(self._ids)
        after = bisect_left(self._ids, key)
        near = {place % size for place in range(after - count, after + count)}
        places = sorted(near, key=lambda place: rank(key, self._ids[place]))
        return [self._nodes[place] for place in places[:count]]
