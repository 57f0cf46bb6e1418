"""Range-based set reconciliation (ALGORITHMS sec. 6): which items one of two neighbours lacks.

Owns the conversation; knows neither who should hold what nor how items move. One side asks: here
are the fingerprints of up to 16 ranges; the other answers with those that differ, as it sees them.
A range that differs is split and asked again, or, when both hold few names on it, listed in one
datagram. All state is with the side that asks, every question is repeated until answered, and each
answer is one datagram: equal stores cost one round trip, others the size of their difference. Who
answers may lie, and differ without end: a session has so many questions, and so many a second.

Both sides learn what they lack: `missing(names, peer, now)`.
"""

from collections.abc import Callable, Sequence

from pastryd.ids import RING_MASK, Arc, Name, NodeId, position_of, within
from pastryd.protocol.context import Context
from pastryd.protocol.requests import Requests
from pastryd.state.deadlines import Timer
from pastryd.state.inventory import Inventory
from pastryd.state.peers import Peer
from pastryd.state.token_bucket import TokenBucket
from pastryd.wire.messages import RANGES_MAX, Names, Range, Ranges

NAMES_PER_LIST = 31
"""32 names and their range would be 4 bytes too many for a datagram of 1,200."""
NAMES_PER_SPLIT = 16
"""How many names a part should hold after a split: about half a list."""
QUESTIONS_MAX = 4
"""Outstanding at one time with one peer; a burst of them is what a small socket buffer takes."""
STACK_MAX = 4096
"""Ranges yet to be compared with one peer. Depth first, so that it does not come to this."""
SESSIONS_MAX = 64
QUESTIONS_BASE = 4096
"""Of one session: an eighth of what `missing.py` can queue, for a list brings at least as many."""
NAMES_PER_QUESTION = 8
"""And one more for so many names of ours: to list all of them takes one for 10 or more."""
QUESTIONS_BURST = 256.0
QUESTIONS_PER_S = 256.0
"""Of one session in the long run: names come as fast as small items can be pulled."""
ATTEMPTS = 5
"""Per question; a session has many, and one that stays unanswered ends it."""

OnDone = Callable[[bool | None, float], None]
"""Told whether all was equal (None: the peer stopped answering), once."""
Missing = Callable[[Sequence[Name], Peer, float], None]
"""Told which names a peer holds and we do not."""


class _Session:
    __slots__ = (
        "equal",
        "failed",
        "on_done",
        "outstanding",
        "pace",
        "peer",
        "questions_left",
        "stack",
        "to_list",
        "wake",
    )

    def __init__(self, peer: Peer, arcs: Sequence[Arc], questions: int, on_done: OnDone) -> None:
        self.peer = peer
        self.stack: list[Arc] = list(arcs)
        self.to_list: list[Arc] = []
        self.questions_left = questions
        self.pace = TokenBucket(QUESTIONS_PER_S, QUESTIONS_BURST)
        self.wake: Timer | None = None
        self.on_done = on_done
        self.outstanding = 0
        self.equal = True
        self.failed = False


class Reconcile:
    """Both sides of the comparison for one node."""

    __slots__ = ("_context", "_inventory", "_missing", "_requests", "_sessions")

    def __init__(
        self, context: Context, requests: Requests, inventory: Inventory, missing: Missing
    ) -> None:
        self._context = context
        self._requests = requests
        self._inventory = inventory
        self._missing = missing
        self._sessions: dict[NodeId, _Session] = {}

    def compare(self, peer: Peer, arcs: Sequence[Arc], on_done: OnDone, now: float) -> bool:
        """Compare these arcs with a peer; False: already at it, or too many at once."""
        if peer.id in self._sessions or len(self._sessions) >= SESSIONS_MAX:
            return False
        ours = sum(self._inventory.fingerprint(*arc)[0] for arc in arcs)
        session = _Session(peer, arcs, QUESTIONS_BASE + ours // NAMES_PER_QUESTION, on_done)
        self._sessions[peer.id] = session
        self._ask_on(session, now)
        return True

    # -- the side that asks --

    def _ask_on(self, session: _Session, now: float) -> None:
        while session.outstanding < QUESTIONS_MAX and not session.failed:
            if not session.to_list and not session.stack:
                break
            if not session.questions_left:
                self._drop_rest(session)
                break
            if not session.pace.take(now):
                if session.wake is None or not session.wake.pending:
                    session.wake = self._context.deadlines.arm(
                        now + QUESTIONS_MAX / QUESTIONS_PER_S, self._ask_on, session
                    )
                return
            session.questions_left -= 1
            if session.to_list:
                self._ask_names(session, session.to_list.pop(), now)
            else:
                arcs = session.stack[-RANGES_MAX:]
                del session.stack[-RANGES_MAX:]
                self._ask_ranges(session, arcs, now)
        if not session.outstanding and self._sessions.get(session.peer.id) is session:
            del self._sessions[session.peer.id]
            session.on_done(None if session.failed else session.equal, now)

    def _drop_rest(self, session: _Session) -> None:
        """Leave what is still to be compared to the next session."""
        dropped = len(session.stack) + len(session.to_list)
        self._context.stats.count("reconcile_ranges_dropped", dropped)
        session.stack.clear()
        session.to_list.clear()

    def _ask_ranges(self, session: _Session, arcs: list[Arc], now: float) -> None:
        ranges = tuple(Range(*arc, *self._inventory.fingerprint(*arc)) for arc in arcs)
        session.outstanding += 1

        def answered(answer: object, now: float) -> None:
            session.outstanding -= 1
            if isinstance(answer, Ranges):
                self._take_ranges(session, dict.fromkeys(arcs), answer.ranges)
            else:
                session.failed = True
            self._ask_on(session, now)

        message = Ranges(self._context.nonce(), False, ranges)
        self._requests.ask(session.peer, message, answered, now, attempts=ATTEMPTS)

    def _take_ranges(
        self, session: _Session, asked: dict[Arc, None], theirs: Sequence[Range]
    ) -> None:
        """Split or list the ranges that differ, unless they became equal meanwhile."""
        for range_ in theirs:
            arc = (range_.start, range_.end)
            if arc not in asked:
                continue  # an answer to something else; what we asked is asked again next round
            del asked[arc]
            count, fingerprint = self._inventory.fingerprint(*arc)
            if (count, fingerprint) == (range_.count, range_.fingerprint):
                continue
            session.equal = False
            larger = max(count, range_.count)
            if larger <= NAMES_PER_LIST or (arc[1] - arc[0]) & RING_MASK == 1:
                session.to_list.append(arc)
                continue
            parts = min(RANGES_MAX, -(-larger // NAMES_PER_SPLIT))
            session.stack += self._inventory.split(*arc, parts)
        if len(session.stack) > STACK_MAX:
            self._context.stats.count("reconcile_ranges_dropped", len(session.stack) - STACK_MAX)
            del session.stack[:-STACK_MAX]

    def _ask_names(self, session: _Session, arc: Arc, now: float) -> None:
        names = tuple(self._inventory.names_in(*arc, limit=NAMES_PER_LIST))
        session.outstanding += 1

        def answered(answer: object, now: float) -> None:
            session.outstanding -= 1
            if isinstance(answer, Names):
                self._report(answer, arc, session.peer, now)
            else:
                session.failed = True
            self._ask_on(session, now)

        message = Names(self._context.nonce(), *arc, False, names)
        self._requests.ask(session.peer, message, answered, now, attempts=ATTEMPTS)

    # -- the side that answers --

    def on_ranges(self, message: Ranges, peer: Peer, now: float) -> None:
        """Answer with those ranges that differ; keep nothing."""
        if message.final:
            self._requests.answered(message, peer, now)
            return
        differing = []
        for start, end, count, fingerprint in message.ranges:
            if count:
                peer.holds_items = self._context.items_near = True
            ours = self._inventory.fingerprint(start, end)
            if ours != (count, fingerprint):
                differing.append(Range(start, end, *ours))
        self._context.send(Ranges(message.nonce, True, tuple(differing)), peer, now)

    def on_names(self, message: Names, peer: Peer, now: float) -> None:
        """Answer with what the other side lacks of this range; note what we lack."""
        if message.final:
            self._requests.answered(message, peer, now)
            return
        theirs = frozenset(message.names)
        start, end = message.start, message.end
        # Bounded: whoever lists a range believes that we hold few names there.
        ours = self._inventory.names_in(start, end, limit=4 * NAMES_PER_LIST)
        lacking = tuple([name for name in ours if name not in theirs][:NAMES_PER_LIST])
        self._context.send(Names(message.nonce, start, end, True, lacking), peer, now)
        self._report(message, (start, end), peer, now)

    def _report(self, message: Names, arc: Arc, peer: Peer, now: float) -> None:
        inventory = self._inventory
        missing = [
            name
            for name in message.names
            if name not in inventory and within(*arc, position_of(name))
        ]
        if missing:
            self._missing(missing, peer, now)
