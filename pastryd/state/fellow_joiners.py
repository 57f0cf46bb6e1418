"""Who is joining as we are, and who of us begins the ring when nobody is in one.

All who answer a joiner may be joining too, as after a power cut. Once that has been so for long the
lowest of them starts a ring alone, and the others find it there. Knows no messages and no clock.
"""

from pastryd.ids import NodeId

ATTEMPTS = 8
"""In so many attempts who said that it is joining must have said it again: one lost answer makes
nobody else the lowest of the joiners, and we ask only some of them at a time."""


class FellowJoiners:
    """What one joiner knows of the others."""

    __slots__ = ("_all_joining_since", "_said_in")

    def __init__(self) -> None:
        self._said_in: dict[NodeId, int] = {}
        """Who said that it is joining, and in which attempt of ours it did last."""
        self._all_joining_since = 0.0

    def __bool__(self) -> bool:
        return bool(self._said_in)

    def add(self, node_id: NodeId, attempt: int) -> None:
        """A node answered that it is joining, too."""
        self._said_in[node_id] = attempt

    def discard(self, node_id: NodeId) -> None:
        """A node has joined."""
        self._said_in.pop(node_id, None)

    def clear(self) -> None:
        """We begin anew."""
        self._said_in.clear()

    def begin_attempt(self, attempt: int, any_active: bool, now: float) -> None:
        """Forget who is silent. `any_active`: the last attempt met somebody to join through."""
        since = attempt - ATTEMPTS
        self._said_in = {i: said for i, said in self._said_in.items() if said > since}
        if any_active or not self._said_in:
            self._all_joining_since = now

    def is_first(self, own_id: NodeId, patience_s: float, now: float) -> bool:
        """All who answered have been joining for long, and we are the lowest: ours to begin."""
        return now - self._all_joining_since >= patience_s and own_id < min(self._said_in)
