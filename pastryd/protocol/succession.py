"""A member of the leaf set is dead: who is told of it, and who comes in its place.

Owns what is remembered for that: heirs that others named, and who probed us while it did not fit.
Who is dead, and who enters on which evidence, is the business of `liveness.py` and
`leafset_upkeep.py`.
"""

from collections.abc import Callable, Sequence

from pastryd.ids import NodeId, clockwise
from pastryd.protocol.context import Context
from pastryd.state import leaf_set_summary as views
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire.messages import Suspect

UNFIT_MAX = 16


class Succession:
    """Announces deaths beside us, and fills the gap."""

    __slots__ = (
        "_context",
        "_heirs",
        "_probe",
        "_probe_news",
        "_side_max",
        "_unfit",
        "_welcome",
    )

    def __init__(
        self,
        context: Context,
        probe: Callable[[Handle, float], None],
        probe_news: Callable[[Sequence[Handle], float], None],
        welcome: Callable[[Peer, float], None],
    ) -> None:
        """`probe_news` probes those that would enter, of whom others told us unasked."""
        self._context = context
        self._side_max = context.config.leaf_set_size // 2
        self._probe = probe
        self._probe_news = probe_news
        self._welcome = welcome
        self._heirs: dict[NodeId, tuple[Handle, ...]] = {}
        """Who comes in the place of a member that may be dead, as its left neighbour told us."""
        self._unfit: dict[NodeId, float] = {}
        """Who probed us lately and lay beyond our ends, and when."""

    # -- telling --

    def tell_of(self, dead: Handle, before: views.Around, now: float) -> None:
        """Our right neighbour is dead: tell those who had it, and on our side who replaces it."""
        leaf_set, of = self._context.leaf_set, self._context.peers.of
        asks = before and len(leaf_set.right) < self._side_max and not leaf_set.spans_ring
        asked = leaf_set.right[-1] if asks and leaf_set.right else None
        if asked is not None:
            self._probe(asked, now)  # who comes behind it?
        for handle, heirs in views.heirs_of(leaf_set, dead.id, before, self._side_max):
            if handle is not asked or of(handle).unproven is not None:
                # Otherwise the list of failed nodes in our probe tells it.
                self._context.send(Suspect(dead.id, dead.incarnation, heirs), of(handle), now)

    def tell_in_its_place(self, dead: Handle, now: float) -> None:
        """We join, and came between a dead node and its watcher, which watches us instead."""
        own_id, leaf_set = self._context.identity.id, self._context.leaf_set
        right = leaf_set.immediate_right
        if right is None or clockwise(own_id, right.id) < clockwise(own_id, dead.id):
            return
        accusation = Suspect(dead.id, dead.incarnation, ())
        for member in views.nearest_around(leaf_set, dead.id, self._side_max):
            self._context.send(accusation, self._context.peers.of(member), now)

    # -- filling the gap --

    def note_unfit(self, node_id: NodeId, now: float) -> None:
        """Somebody probed us and does not fit now; it may soon."""
        self._unfit.pop(node_id, None)
        self._unfit[node_id] = now
        if len(self._unfit) > UNFIT_MAX:
            del self._unfit[next(iter(self._unfit))]

    def note_heirs(self, node_id: NodeId, members: tuple[Handle, ...], now: float) -> None:
        """Somebody tells of a death, and whom we need then: know them when we have verified it."""
        if node_id not in self._context.leaf_set:
            self._let_in(members, now)
        elif members:  # what was said before may be a lie, or of who is no member any more
            kept = {i: heirs for i, heirs in self._heirs.items() if i in self._context.leaf_set}
            self._heirs = {**kept, node_id: members}

    def let_in_heirs(self, node_id: NodeId, now: float) -> None:
        """A member is gone: let in who was named to come in its place."""
        self._let_in(self._heirs.pop(node_id, ()), now)

    def _let_in(self, handles: Sequence[Handle], now: float) -> None:
        """Probe who would enter; who has probed us lately, when it did not fit, enters at once."""
        context = self._context
        for peer_id, probed_at in list(self._unfit.items()):
            peer = context.peers.get(peer_id)
            fits = peer is not None and context.leaf_set.would_enter(peer_id)
            if fits and peer is not None and now - probed_at <= context.config.heartbeat_s:
                self._welcome(peer, now)
        self._probe_news(handles, now)
