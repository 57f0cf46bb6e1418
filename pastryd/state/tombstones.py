"""Who was declared dead, and in which incarnation: gossip about them is not believed for a while.

Bounded. Knows no time but what it is told.
"""

from pastryd.ids import NodeId
from pastryd.state.handle import Handle

TOMBSTONES_MAX = 1024


class Tombstones:
    """The dead by id, in the order in which they were buried."""

    __slots__ = ("_failed",)

    def __init__(self) -> None:
        self._failed: dict[NodeId, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._failed)

    def bury(self, handle: Handle, expires_at: float) -> None:
        """Believe no gossip about a node until then, or until it speaks for itself."""
        if len(self._failed) >= TOMBSTONES_MAX:
            self._failed.pop(next(iter(self._failed)))
        self._failed.pop(handle.id, None)
        self._failed[handle.id] = (handle.incarnation, expires_at)

    def lift(self, node_id: NodeId) -> None:
        """It spoke for itself."""
        self._failed.pop(node_id, None)

    def covers(self, handle: Handle) -> bool:
        """Tell whether gossip about this node is a ghost: declared dead, and not reborn since."""
        tombstone = self._failed.get(handle.id)
        return tombstone is not None and handle.incarnation <= tombstone[0]

    def expire(self, node_id: NodeId, now: float) -> None:
        """Forget a tombstone whose time has come."""
        tombstone = self._failed.get(node_id)
        if tombstone is not None and tombstone[1] <= now:
            del self._failed[node_id]
            if not self._failed:
                self._failed.clear()  # a dict keeps the size that it once needed

    def latest(self, count: int) -> tuple[tuple[NodeId, int], ...]:
        """Return the last `count` of them, each with its incarnation."""
        latest = list(self._failed)[-count:] if count else []
        return tuple([(node_id, self._failed[node_id][0]) for node_id in latest])
