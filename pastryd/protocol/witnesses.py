"""Whose word counts when a node is called dead.

A network key is soon had, and accusations cost a lie nothing: each would make a living node depend
on a ping that may be lost. Owns who lied or was mistaken lately; `liveness.py` verifies.
"""

from collections.abc import Collection

from pastryd.ids import NodeId
from pastryd.protocol.context import Context
from pastryd.state import leaf_set_summary as views

FALSE_WITNESS_S = 60.0
"""So long who accused a node that answered us is no witness: it may be cut off, or lie."""
FALSE_WITNESSES_MAX = 1024


class Witnesses:
    """Those who accuse others to one node."""

    __slots__ = ("_context", "_false")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._false: dict[NodeId, float] = {}
        """Until when each is no witness."""

    def believes(self, accuser: NodeId, accused: NodeId, now: float) -> bool:
        """Tell whether an accuser is a node of the ring for us, and has not been wrong lately.

        One that we do not know may come into our leaf set in the place of the accused: it has had
        that in its own, as far as we know. If it fitted already it would have come before.
        """
        if self._false.get(accuser, now) > now:
            return False
        leaf_set, side_max = self._context.leaf_set, self._context.config.leaf_set_size // 2
        if accuser in leaf_set or self._context.in_table(accuser):
            return True
        if leaf_set.would_enter(accuser):
            return False
        around = views.nearest_around(leaf_set, accuser, side_max)
        return accused in [handle.id for handle in around]

    def include_watcher(self, accusers: Collection[NodeId], accused: NodeId) -> bool:
        """Tell whether the left neighbour of the accused, as far as we know, is among them.

        Half of all true accusations come from there, and a liar is there for one node alone.
        """
        if not accusers:
            return False
        ring = [handle.id for handle in self._context.leaf_set.members()]
        ring.append(self._context.identity.id)
        return accused in ring and ring[ring.index(accused) - 1] in accusers

    def note_false(self, accusers: Collection[NodeId], now: float) -> None:
        """Remember who accused a node that lives."""
        known = self._false
        for accuser in accusers:
            known.pop(accuser, None)
            known[accuser] = now + FALSE_WITNESS_S
        while len(known) > FALSE_WITNESSES_MAX:
            del known[next(iter(known))]
