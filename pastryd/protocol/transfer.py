"""Pulling items: receiver-driven, windowed, loss-proof, resumable (DESIGN and ALGORITHMS sec. 7).

One mechanism for get, put, replication and repair: who needs an item pulls its segments from one or
several holders, which keep no state (`segment_server.py`). Owns the pulls, what is on its way for
them, and the node's receive window; knows neither sockets nor stores nor why an item is wanted.

Rules: a request carries a fresh nonce, so every answer is a fair RTT sample; a request is given up
when a later one on its path was answered, or after a retransmission timeout without any progress;
its late segments are counted, and used if still wanted. Never is more on its way than the windows
allow. A pull ends exactly once for each caller, never within `pull` itself.
"""

from collections.abc import Callable, Sequence

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.ids import Name
from pastryd.protocol.context import Context
from pastryd.protocol.path_prober import PathProber
from pastryd.protocol.pull_queue import PROBED_BYTES, PullQueue
from pastryd.protocol.pull_state import (
    ASKED,
    RECEIVED,
    AbsentEverywhere,
    Holder,
    OnDone,
    Pulled,
    Pulling,
    PullResult,
    Request,
    Standing,
    TimedOut,
    Unreachable,
    Waiter,
)
from pastryd.protocol.segment_server import Read, SegmentServer
from pastryd.state.peers import Liveness, Peer
from pastryd.wire.codec import SEGMENT_HEADER, SEGMENT_HEADER_BYTES, SEGMENT_TAG
from pastryd.wire.messages import Absent, Pull, Segment

Verify = Callable[[Name, bytes | bytearray], bool]
Result = Callable[[float, tuple[Peer, ...]], PullResult]

VANISHED_MAX = 4
"""Requests in a row for long segments that may go unanswered before the path gets short ones."""
SILENCES_MAX = 7
"""Requests in a row that a holder may leave unanswered before a pull gives it up."""


class Transfer:
    """All pulls of one node (or client), and its answers to those of others."""

    __slots__ = ("_context", "_pulls", "_queue", "_server", "_stats", "_verify", "prober")

    def __init__(self, context: Context, read: Read, verify: Verify) -> None:
        self._context = context
        self._stats = context.stats
        self._verify = verify
        self._server = SegmentServer(context, read)
        self._queue = PullQueue(context, self._handle_timeout)
        self.prober = PathProber(context, lambda peer, now: self._queue.pump(now))
        self._pulls: dict[Name, Pulling] = {}

    # -- commands --

    def pull(
        self,
        name: Name,
        size: int | None,
        holders: Sequence[Peer],
        on_done: OnDone,
        now: float,
        *,
        background: bool = False,
        deadline_s: float | None = None,
        checked: bool = True,
    ) -> None:
        """Fetch an item from those who may have it, nearest first; `on_done` is called once.

        A pull of the same item that is already going on is joined. `size` may be unknown, or
        wrong: what the first segment says counts. `background` work takes only what is left over.
        Not `checked`: the caller verifies what it gets, and may not get what it asked for.
        """
        pull = self._pulls.get(name)
        if pull is None:
            pull = Pulling(name, self._queue.segment_bytes, background)
            if size is not None and 0 <= size <= OBJECT_BYTES_MAX:
                pull.learn_size(size)
            self._pulls[name] = pull
            self._queue.enter(pull)
        elif pull.background and not background:
            self._queue.promote(pull)
        pull.checked |= checked
        waiter = Waiter(on_done, now)
        wait_s = self._context.config.get_timeout_s if deadline_s is None else deadline_s
        waiter.timer = self._context.deadlines.arm(
            now + wait_s, self._handle_deadline, pull, waiter
        )
        pull.waiters.append(waiter)
        for peer in holders:
            pull.add_holder(peer)
            self._probe(pull, peer, now)
        if pull.good_holders():
            self._queue.pump(now)
        else:
            self._context.deadlines.arm(now, self._settle, pull)

    def add_holder(self, name: Name, peer: Peer, now: float) -> None:
        """Tell a pull of another peer that may have the item; harmless when none is going on."""
        pull = self._pulls.get(name)
        if pull is not None and pull.add_holder(peer):
            self._probe(pull, peer, now)
            self._queue.pump(now)

    def _probe(self, pull: Pulling, peer: Peer, now: float) -> None:
        """For a large item know how long its segments may be."""
        if not 0 <= pull.size < PROBED_BYTES:
            self.prober.probe(peer, now)

    def cancel(self, name: Name, now: float, on_done: OnDone | None = None) -> None:
        """Forget one caller's interest, or everybody's; their `on_done` is not called."""
        pull = self._pulls.get(name)
        if pull is None:
            return
        for waiter in list(pull.waiters):
            if on_done is None or waiter.on_done == on_done:
                pull.waiters.remove(waiter)
                if waiter.timer is not None:
                    waiter.timer.cancel()
        if not pull.waiters:
            self._drop(pull)
            self._queue.pump(now)

    def is_pulling(self, name: Name) -> bool:
        """Tell whether an item is on its way here."""
        return name in self._pulls

    def __len__(self) -> int:
        return len(self._pulls)

    @property
    def outstanding_bytes(self) -> int:
        """What is on its way, at what it may take of the receive buffer."""
        return self._queue.charged

    # -- messages --

    def on_pull(self, message: Pull, peer: Peer, now: float) -> None:
        """Answer from cache or store; no state is kept about the asker."""
        self._server.on_pull(message, peer, now)

    def take_segments(self, train: Sequence[bytes], peer: Peer, now: float) -> Sequence[bytes]:
        """Put the segments of messages that came together in their places.

        Returns those that are no segments, or that need the closer look of `on_segment`.
        """
        rest: list[bytes] = []
        i = 0
        while i < len(train):
            taken = self._take_burst(train[i:], peer, now)
            if not taken:
                rest.append(train[i])
            i += taken or 1
        return rest

    def _take_burst(self, train: Sequence[bytes], peer: Peer, now: float) -> int:
        """Take in as many expected answers to one request as `train` begins with.

        What `on_segment` does, with the accounts made once for all of them.
        """
        if len(train[0]) < SEGMENT_HEADER_BYTES or train[0][0] != SEGMENT_TAG:
            return 0
        request = self._queue.requests.get(SEGMENT_HEADER.unpack_from(train[0])[1])
        if request is None or request.lapsed or not request.holder.answers_as(peer):
            return 0
        pull, window = request.pull, request.holder.window
        count, has_top = pull.place(request, train)
        if not count:
            return 0
        window.progress_at = now
        if not request.answered or window.silences:
            self._note_answer(request, now)
        window.on_arrived(count, pull.segment_bytes, now)
        self._queue.discharge(pull, count)
        self._go_on(request, count, has_top, now)
        return count

    def on_segment(self, message: Segment, peer: Peer, now: float) -> None:
        """Put a segment in its place, if it was asked for and still is wanted."""
        nonce, index, size, data = message
        request = self._queue.requests.get(nonce)
        if request is None or not request.holder.answers_as(peer):
            self._stats.count("segments_unknown")
            return
        position = index - request.first
        if position < 0 or not request.missing >> position & 1:
            self._stats.count("segments_unasked")
            return
        pull = request.pull
        holder = request.holder
        if size != pull.size and not self._accept_size(pull, request, index, size, now):
            return
        expected = pull.segment_bytes if index < pull.last else pull.last_bytes
        if len(data) != expected:
            self._stats.count("segments_wrong_length")
            self._accuse(pull, holder, now)
            return
        window = holder.window
        window.progress_at = now
        request.missing ^= 1 << position
        request.left -= 1
        if not request.answered or window.silences or request.lapsed:
            self._note_answer(request, now)
        state = pull.state
        wanted = state[index]
        if not request.lapsed:
            window.on_arrived(1, pull.segment_bytes, now)
            self._queue.discharge(pull, 1)
        elif wanted < ASKED:
            pull.wanted -= 1
            self._queue.want(pull)
        if wanted < RECEIVED:
            state[index] = RECEIVED + holder.number
            offset = index * pull.segment_bytes
            pull.view[offset : offset + expected] = data
            pull.left -= 1
        else:
            self._stats.count("segments_duplicate")
        self._go_on(request, 1, position == request.top, now)

    def _go_on(self, request: Request, count: int, has_top: bool, now: float) -> None:
        """After `count` segments of a request came: is that all, or room to ask for more?"""
        if has_top:
            request.holder.window.on_train(request, now)
        if not request.pull.left:
            self._complete(request.pull, now)
        elif not request.left:
            self._queue.retire(request)
            self._queue.pump(now)
        elif request.left <= request.half < request.left + count:
            self._queue.pump(now)
        elif has_top:
            self._hasten(request, now)

    def on_absent(self, message: Absent, peer: Peer, now: float) -> None:
        """Do without a holder that does not hold."""
        nonce, name = message
        request = self._queue.requests.get(nonce)
        if request is None or not request.holder.answers_as(peer) or request.pull.name != name:
            self._stats.count("absents_unknown")
            return
        if not request.answered or request.holder.window.silences:
            self._note_answer(request, now)
        self._exclude(request.pull, request.holder, Standing.ABSENT, now)

    # -- what a segment may mean --

    def _note_answer(self, request: Request, now: float) -> None:
        """Learn from the first answer to a request, from a late one, or after a silence."""
        holder = request.holder
        window = holder.window
        if request.lapsed:
            self._stats.count("segments_late")
            window.on_late()
        if window.silences:
            window.on_life(request.lapsed)
        holder.silences = 0
        if request.pull.segment_bytes > self._queue.segment_bytes:
            window.vanished = 0
        if holder.standing is Standing.GONE:
            holder.standing = Standing.GOOD
        if request.answered:
            return
        request.answered_at = now
        latency_s = now - request.sent_at
        if request.samples:
            holder.peer.sample_rtt(latency_s)
        if request.mark is not None:
            window.on_answered(request.mark, latency_s, now)
        if request.lapsed:
            return
        for older in list(window.requests.values()):
            if older is request:
                break
            self._hasten(older, now)

    def _hasten(self, request: Request, now: float) -> None:
        """What was sent later has arrived: it is lost, or just late; wait a fraction of an RTT."""
        if request.hastened or request.timer is None:
            return
        request.hastened = True
        request.timer.cancel()
        wait_s = request.holder.window.reorder_s(request.holder.peer.srtt_s)
        request.timer = self._context.deadlines.arm(now + wait_s, self._handle_timeout, request)

    def _accept_size(
        self, pull: Pulling, request: Request, index: int, size: int, now: float
    ) -> bool:
        """Take the size from the first segment; from then on whoever disagrees is set aside."""
        if size > OBJECT_BYTES_MAX or index * pull.segment_bytes >= max(size, 1):
            self._stats.count("segments_wrong_size")
            self._accuse(pull, request.holder, now)
            return False
        if pull.left == pull.count:
            self._queue.resize(pull, size)
            return True
        self._stats.count("segments_wrong_size")
        holder = request.holder
        if RECEIVED + holder.number in pull.state:
            self._accuse(pull, holder, now)  # it contradicts itself
        else:
            self._exclude(pull, holder, Standing.DISAGREES, now)
        return False

    # -- ends --

    def _complete(self, pull: Pulling, now: float) -> None:
        """Check the bytes once; if they are wrong find out whose, and pull again."""
        pull.view.release()
        if not pull.checked or self._verify(pull.name, pull.value):
            for holder in pull.liars():
                self._note_corrupt(pull, holder)
            value, source = pull.value, pull.main_source()
            self._finish(pull, lambda _, corrupt: Pulled(value, corrupt, source), now)
            return
        self._stats.count("pulls_corrupt")
        sources = pull.sources()
        if len(sources) == 1:
            self._note_corrupt(pull, sources[0])
        else:
            pull.suspect = (pull.value, pull.state, pull.segment_bytes)
        pull.exclusive = True
        self._restart(pull)
        self._settle(pull, now)
        self._queue.pump(now)

    def _note_corrupt(self, pull: Pulling, holder: Holder) -> None:
        if holder.standing is not Standing.CORRUPT:
            holder.standing = Standing.CORRUPT
            pull.corrupt.append(holder.peer)
            self._stats.count("holders_corrupt")

    def _accuse(self, pull: Pulling, holder: Holder, now: float) -> None:
        """Drop a holder that breaks the protocol, with all that came from it."""
        self._note_corrupt(pull, holder)
        if RECEIVED + holder.number in pull.state:
            self._restart(pull)
        self._exclude(pull, holder, Standing.CORRUPT, now)

    def _exclude(self, pull: Pulling, holder: Holder, standing: Standing, now: float) -> None:
        """Ask a holder no more; others take over what was asked from it."""
        holder.standing = standing
        for request in list(pull.requests.values()):
            if request.holder is holder:
                self._queue.withdraw(request)
        if pull.solo is holder:
            self._restart(pull)
        self._settle(pull, now)
        self._queue.pump(now)

    def _restart(self, pull: Pulling) -> None:
        """Begin anew; those who were set aside get their chance."""
        self._queue.forget_requests(pull)
        pull.reset()
        for holder in pull.holders.values():
            if holder.standing is Standing.DISAGREES:
                holder.standing = Standing.GOOD
        self._queue.want(pull)

    def _settle(self, pull: Pulling, now: float) -> None:
        """End a pull that has nobody left to ask."""
        if self._pulls.get(pull.name) is not pull or pull.good_holders():
            return
        standings = [h.standing for h in pull.holders.values()]
        if Standing.DISAGREES in standings:
            self._restart(pull)
        elif Standing.GONE in standings:
            self._finish(pull, Unreachable, now)
        else:
            self._finish(pull, lambda _, corrupt: AbsentEverywhere(corrupt), now)

    def _handle_deadline(self, pull: Pulling, waiter: Waiter, now: float) -> None:
        pull.waiters.remove(waiter)
        result = TimedOut(now - waiter.since, tuple(pull.corrupt))
        if not pull.waiters:
            self._drop(pull)
        waiter.on_done(result, now)
        self._queue.pump(now)

    def _finish(self, pull: Pulling, result: Result, now: float) -> None:
        self._drop(pull)
        corrupt = tuple(pull.corrupt)
        for waiter in pull.waiters:
            if waiter.timer is not None:
                waiter.timer.cancel()
        for waiter in pull.waiters:
            waiter.on_done(result(now - waiter.since, corrupt), now)
        self._queue.pump(now)

    def _drop(self, pull: Pulling) -> None:
        self._queue.remove(pull)
        del self._pulls[pull.name]
        pull.view.release()

    # -- silence --

    def _handle_timeout(self, request: Request, now: float) -> None:
        """Give a request up, unless its path made progress meanwhile."""
        window = request.holder.window
        silent = False
        if not request.hastened:
            due = max(request.sent_at, window.progress_at) + self._queue.timeout_s(request)
            if due > now:
                request.timer = self._context.deadlines.arm(due, self._handle_timeout, request)
                return
            silent = window.progress_at < request.sent_at
        self._stats.count("segments_lost", request.left)
        self._queue.lapse(request)
        vanished = not request.answered and request.pull.segment_bytes > self._queue.segment_bytes
        if vanished and window.on_vanished(request.sent_at, now) >= VANISHED_MAX:
            self.prober.shrink(request.holder.peer, now)
        if silent:
            self._note_silence(request, now)
        self._queue.pump(now)

    def _note_silence(self, request: Request, now: float) -> None:
        holder, pull = request.holder, request.pull
        holder.window.on_silence(request.sent_at, now)
        if request.sent_at >= holder.silent_at:  # once for all that were under way together
            holder.silences += 1
            holder.silent_at = now
        # To a background pull its other pulls' silences count, too.
        silences = max(holder.silences, holder.window.silences if pull.background else 0)
        if silences >= SILENCES_MAX or holder.peer.liveness is Liveness.DEAD:
            holder.standing = Standing.GONE
        if pull.solo is holder and (
            holder.standing is Standing.GONE
            or any(self._queue.awake(other, now) for other in pull.good_holders())
        ):
            self._restart(pull)
        self._settle(pull, now)

    def postpone(self, by_s: float) -> None:
        """We stood still: that is part of no path's latency."""
        self._queue.postpone(by_s)

    # -- self-examination --

    def check_invariants(self) -> None:
        """Assert what must hold between two steps."""
        self._queue.check_invariants(list(self._pulls.values()))
