"""Who was found slow a moment ago, so that others are asked first.

Bounded. Knows no time but what it is told.
"""

from pastryd.ids import NodeId

SLOW_MAX = 64


class RecentlySlow:
    """Nodes, each until a time, in the order in which they were found slow."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[NodeId, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def note(self, node_id: NodeId, until: float) -> None:
        """Remember a node until then; of too many who was noted first is forgotten."""
        self._until.pop(node_id, None)
        if len(self._until) >= SLOW_MAX:
            del self._until[next(iter(self._until))]
        self._until[node_id] = until

    def covers(self, node_id: NodeId, now: float) -> bool:
        """Tell whether a node is remembered still."""
        until = self._until.get(node_id)
        if until is not None and until <= now:
            del self._until[node_id]
            return False
        return until is not None
