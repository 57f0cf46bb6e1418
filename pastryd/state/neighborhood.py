"""Neighbourhood set (Rowstron & Druschel 2001, sec. 2.1): the nearest nodes by round trip time.

Not used for ordinary routing: it seeds the tables of nodes that join near us and is the last resort
of the rare case. Knows no liveness and no time.
"""

from bisect import bisect_left, bisect_right

from pastryd.ids import NodeId
from pastryd.state.handle import Handle


class NeighborhoodSet:
    """At most `size` handles, nearest first; of equals the one that came first."""

    __slots__ = ("_handles", "_ids", "_rtts", "owner", "size")

    def __init__(self, owner: NodeId, size: int) -> None:
        self.owner = owner
        self.size = size
        self._handles: list[Handle] = []
        self._ids: list[NodeId] = []  # beside _handles
        self._rtts: list[float] = []  # beside _handles, ascending

    def __len__(self) -> int:
        return len(self._handles)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._ids

    def members(self) -> list[Handle]:
        """Return the members, nearest first."""
        return self._handles.copy()

    def rtt_of(self, node_id: NodeId) -> float | None:
        """Return the RTT of a member."""
        return self._rtts[self._ids.index(node_id)] if node_id in self._ids else None

    def would_enter(self, rtt_s: float) -> bool:
        """Tell whether a new node at this distance would become a member."""
        return len(self._rtts) < self.size or (self.size > 0 and rtt_s < self._rtts[-1])

    def consider(self, handle: Handle, rtt_s: float) -> bool:
        """Take in a node with its measured RTT, or move it; return whether membership changed."""
        node_id = handle.id
        if node_id == self.owner:
            return False
        is_known = node_id in self._ids
        if not is_known and not self.would_enter(rtt_s):
            return False
        known = self._forget(node_id) if is_known else None
        if known is not None and known.incarnation > handle.incarnation:
            handle = known
        if not self.would_enter(rtt_s):
            return known is not None
        index = bisect_right(self._rtts, rtt_s)
        self._rtts.insert(index, rtt_s)
        self._handles.insert(index, handle)
        self._ids.insert(index, node_id)
        if len(self._rtts) > self.size:
            self._rtts.pop()
            self._handles.pop()
            self._ids.pop()
        return known != handle

    def discard(self, node_id: NodeId) -> bool:
        """Forget a member; return whether it was one."""
        if node_id not in self._ids:
            return False
        self._forget(node_id)
        return True

    def check_invariants(self) -> None:
        """Assert what always holds."""
        assert len(self._handles) == len(self._rtts) <= self.size
        assert self._rtts == sorted(self._rtts)
        ids = [handle.id for handle in self._handles]
        assert ids == self._ids
        assert len(set(ids)) == len(ids) and self.owner not in ids
        assert not self._rtts or bisect_left(self._rtts, 0.0) == 0, "a negative RTT"

    def _forget(self, node_id: NodeId) -> Handle:
        index = self._ids.index(node_id)
        del self._ids[index], self._rtts[index]
        return self._handles.pop(index)
