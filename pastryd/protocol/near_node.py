"""The search for a near node to join through (Castro et al. 2002; MSPastry 2004, sec. 4.3).

From a seed on it moves to the nearest node that a row of the best so far knows, from deep rows,
which are samples of the whole ring, up to those whose entries are all near who tells.
"""

from collections.abc import Callable
from typing import Protocol

from pastryd.ids import NodeId
from pastryd.protocol.context import Context
from pastryd.protocol.requests import Requests
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire.messages import DEEPEST_ROW, ROW_PADDING, Hop, RowReply, RowRequest, microseconds

NEAR_S = 0.002
"""A node this near is near enough to join through; walking on would cost more than it brings."""
WALK_ROUNDS = 5
WALK_PINGS = 5


class Table(Protocol):
    """What the search needs of `TableUpkeep`."""

    def measure(
        self, handle: Handle, then: Callable[[Peer, bool, float], None], now: float
    ) -> None:
        """Ping a node unless its distance is known; then tell whether it answered."""

    def take_row(self, teller: Peer, entries: tuple[Hop, ...], now: float) -> None:
        """Take what is better than ours of a row."""


class NearNode:
    """Finds a node near us: `on_progress(now)` hears of each answer, `then(node, now)` the end."""

    __slots__ = ("_context", "_on_progress", "_requests", "_table", "_then", "id")

    def __init__(
        self,
        context: Context,
        requests: Requests,
        table: Table,
        on_progress: Callable[[float], None],
        then: Callable[[Peer, float], None],
    ) -> None:
        self._context = context
        self._requests = requests
        self._table = table
        self._on_progress = on_progress
        self._then = then
        self.id: NodeId | None = None
        """Which one was found last, if its first row is in our table already."""

    def search(self, start: Peer, now: float) -> None:
        """Walk from a node that answers to one near us."""
        self._walk(start, DEEPEST_ROW, WALK_ROUNDS, now)

    def _walk(self, best: Peer, row: int, rounds: int, now: float) -> None:
        """Ask the best so far for a row, and move to the nearest that it names."""

        def on_row(answer: RowReply | None, now: float) -> None:
            self._on_progress(now)
            own_id = self._context.identity.id
            others = [] if answer is None else [h for h in answer.entries if h.handle.id != own_id]
            if answer is None or len(others) < WALK_PINGS:
                self._then(best, now)  # a small ring: nobody is far
            else:
                self._measure(best, answer, others, rounds - 1, now)

        if not rounds or (best.srtt_s or 0.0) <= NEAR_S:
            self._then(best, now)
        else:
            request = RowRequest(self._context.nonce(), row, ROW_PADDING)
            self._requests.ask(best, request, on_row, now, attempts=2)

    def _measure(
        self, best: Peer, answer: RowReply, others: list[Hop], rounds: int, now: float
    ) -> None:
        # Who is beside us is as far from the teller as we are; in its first row all are near it.
        apart_us = microseconds(best.srtt_s) if answer.row else 0
        hops = sorted(others, key=lambda hop: abs(hop.rtt_us - apart_us))[:WALK_PINGS]
        outstanding = len(hops)
        nearest = best

        def on_pong(peer: Peer, answered: bool, now: float) -> None:
            nonlocal outstanding, nearest
            outstanding -= 1
            self._on_progress(now)
            if answered and (peer.srtt_s or 0.0) < (nearest.srtt_s or 0.0):
                nearest = peer
            if outstanding:
                return
            if answer.row or nearest is not best:
                self._walk(nearest, max(0, answer.row - 1), rounds, now)
            else:
                self.id = best.id
                self._table.take_row(best, answer.entries, now)
                self._then(best, now)

        for hop in hops:
            self._table.measure(hop.handle, on_pong, now)
