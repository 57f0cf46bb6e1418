"""Heartbeats: each node sends one per period to its left neighbour, and watches its right one.

Who is silent for longer is for `liveness.py` to doubt.
"""

from pastryd.ids import NodeId
from pastryd.protocol.context import Context
from pastryd.protocol.liveness import LivenessMonitor
from pastryd.state.deadlines import Timer
from pastryd.state.peers import Peer
from pastryd.wire.messages import Heartbeat


class Heartbeats:
    """What one node sends and expects."""

    __slots__ = ("_context", "_liveness", "_look", "_stopped", "_trusted_at", "_watched")

    def __init__(self, context: Context, liveness: LivenessMonitor) -> None:
        self._context = context
        self._liveness = liveness
        self._watched: tuple[NodeId, float] | None = None
        self._look: Timer
        self._trusted_at = float("-inf")
        self._stopped = False

    def start(self, now: float) -> None:
        """Begin sending heartbeats and watching."""
        self._beat(now)
        self._watch(now)

    def on_heartbeat(self, peer: Peer, now: float) -> None:
        """Look after our neighbour once more a period from now: nobody is woken in between."""
        if self._watched is not None and self._watched[0] == peer.id and self._look.pending:
            self._look.cancel()
            self._watch(now)

    def stop(self) -> None:
        """Beat no more: we are leaving."""
        self._stopped = True

    def postpone(self, by_s: float) -> None:
        """We stood still: our neighbour's silence during that time does not count."""
        if self._watched is not None:
            self._watched = (self._watched[0], self._watched[1] + by_s)

    def _beat(self, now: float) -> None:
        """Tell the left neighbour that we live, unless something else told it within the period."""
        if self._stopped:
            return
        context = self._context
        period = context.config.heartbeat_s
        next_at = now + period
        left = context.leaf_set.immediate_left
        if left is not None:
            peer = context.peers.of(left)
            if peer.last_sent + period <= now + 0.02 * period:
                context.send(Heartbeat(context.leaf_set.left_digest), peer, now)
            else:
                next_at = peer.last_sent + period
        context.deadlines.arm(next_at, self._beat)

    def _watch(self, now: float) -> None:
        """Doubt the right neighbour when it was silent for longer than a period."""
        if self._stopped:
            return
        config = self._context.config
        period = config.heartbeat_s + config.heartbeat_grace_s
        patience = self._liveness.awareness.scale(period)
        right = self._context.leaf_set.immediate_right
        next_at = now + config.heartbeat_s / 2
        if right is not None:
            peer = self._context.peers.of(right)
            if self._watched is None or self._watched[0] != right.id:
                # It does not know of us yet: its period starts now.
                self._watched = (right.id, now)
            silent_since = max(peer.last_heard, self._watched[1])
            if silent_since + patience <= now:
                self._liveness.doubt(peer, None, now)
            else:
                next_at = silent_since + patience
                if peer.last_heard >= self._trusted_at + config.heartbeat_s / 2:
                    # Its heartbeat came in time: we do hear.
                    self._trusted_at = peer.last_heard
                    self._liveness.awareness.trust()
        self._look = self._context.deadlines.arm(min(next_at, now + period), self._watch)
