"""Who asks whom for what next: the node's receive window, the order of its pulls (DESIGN sec. 7).

Owns the outstanding requests and what they are charged at; no pull may ask past its path's window
or the node's. Background pulls share what is left over, at most half. Where there is no room for
all, the oldest goes first, and new ones get a word in: pulls that took turns would end together,
and what each has lost would be asked for while nothing else is on its way.
Knows nothing of answers, failures or callers: `transfer.py` tells it what ended.
"""

from collections.abc import Callable, Collection, Sequence
from operator import attrgetter

from pastryd.ids import Name
from pastryd.protocol.context import Context
from pastryd.protocol.path_window import PathWindow
from pastryd.protocol.pull_state import LAPSED_MAX, Holder, Pulling, Request, segment_cost
from pastryd.state.deadlines import Timer
from pastryd.state.peers import Liveness
from pastryd.wire.codec import SEGMENT_HEADER_BYTES
from pastryd.wire.messages import Pull

BACKOFF_DOUBLINGS_MAX = 6
BACKOFF_MAX_S = 2.0
FEW_BYTES = 8_900
"""Asking for less than this waits for more room, unless the path is idle."""
PROBED_BYTES = 64 << 10
"""Items from this size on are worth knowing how long their segments may be."""
PROBE_WAIT_S = 0.01
"""And worth waiting for that where the round trip is no longer. Elsewhere waiting would cost more
than short segments do, and the items that begin later get long ones."""

_NUMBER = attrgetter("number")
_BEGUN = attrgetter("begun")


class PullQueue:
    """The requests of all pulls of one node."""

    __slots__ = (
        "_background",
        "_context",
        "_entered",
        "_foreground",
        "_handle_timeout",
        "_limit",
        "_limit_background",
        "_new_first",
        "_ready_at",
        "_reserve",
        "_wake",
        "charged",
        "charged_background",
        "requests",
        "segment_bytes",
    )

    def __init__(self, context: Context, handle_timeout: Callable[[Request, float], None]) -> None:
        self._context = context
        self._handle_timeout = handle_timeout
        self.segment_bytes = context.config.payload_bytes_max - SEGMENT_HEADER_BYTES
        """What every path carries."""
        cost = segment_cost(self.segment_bytes)
        self._limit = max(context.config.receive_window_bytes, cost)
        self._limit_background = max(self._limit >> 1, cost)
        # Kept for paths that have nothing on its way: bulk on a long path must not starve them.
        self._reserve = self._limit >> 3
        self.requests: dict[int, Request] = {}
        """By nonce; those given up too, for their late segments."""
        self._foreground: dict[Name, Pulling] = {}
        """Pulls that want segments."""
        self._background: dict[Name, Pulling] = {}
        self._entered = 0
        self._new_first = False
        self._ready_at = float("inf")
        """When the pace of a path allows what `pump` could not ask for."""
        self._wake: Timer | None = None
        self.charged = 0
        self.charged_background = 0

    def enter(self, pull: Pulling) -> None:
        """Take in a pull that begins."""
        self._entered += 1
        pull.number = self._entered
        self.want(pull)

    def want(self, pull: Pulling) -> None:
        """Keep a pull in the queue of those that have something to ask for, and only those."""
        queue = self._background if pull.background else self._foreground
        if pull.wanted:
            queue[pull.name] = pull
        else:
            queue.pop(pull.name, None)

    def promote(self, pull: Pulling) -> None:
        """Make a background pull a foreground one, with what it has on its way."""
        self.charged_background -= pull.cost * sum(r.left for r in pull.requests.values())
        self._background.pop(pull.name, None)
        pull.background = False
        self.want(pull)

    def discharge(self, pull: Pulling, count: int) -> None:
        """Give room back to the node's receive window."""
        self.charged -= count * pull.cost
        if pull.background:
            self.charged_background -= count * pull.cost

    def retire(self, request: Request) -> None:
        """Forget a request that nothing is missing of."""
        del self.requests[request.nonce]
        if request.lapsed:
            request.pull.lapsed.remove(request.nonce)
            return
        del request.pull.requests[request.nonce]
        del request.holder.window.requests[request.nonce]
        if request.timer is not None:
            request.timer.cancel()

    def withdraw(self, request: Request) -> None:
        """Stop waiting for a request without calling it lost; its missing segments are wanted."""
        request.holder.window.outstanding -= request.left * request.pull.segment_bytes
        self.discharge(request.pull, request.left)
        self.retire(request)
        request.pull.give_back(request.first, request.missing)
        self.want(request.pull)

    def lapse(self, request: Request) -> None:
        """Give a request up: what it lacks is wanted again, what comes late is welcome."""
        pull = request.pull
        request.holder.window.on_lost(request.left, pull.segment_bytes, request.answered)
        self.discharge(pull, request.left)
        self.retire(request)
        request.lapsed = True
        request.timer = None
        self.requests[request.nonce] = request
        pull.lapsed.append(request.nonce)
        if len(pull.lapsed) > LAPSED_MAX:
            del self.requests[pull.lapsed.popleft()]
        pull.give_back(request.first, request.missing)
        self.want(pull)

    def resize(self, pull: Pulling, size: int) -> None:
        """Take in a pull's size; forget segments beyond it, asked for while it was not known."""
        pull.learn_size(size)
        for request in list(pull.requests.values()):
            request.missing &= (1 << max(0, pull.count - request.first)) - 1
            beyond = request.left - request.missing.bit_count()
            request.left -= beyond
            request.half = request.left >> 1
            request.top = request.missing.bit_length() - 1
            request.holder.window.outstanding -= beyond * pull.segment_bytes
            self.discharge(pull, beyond)
            if not request.left:
                self.retire(request)
        for nonce in pull.lapsed:
            late = self.requests[nonce]
            late.missing &= (1 << max(0, pull.count - late.first)) - 1
            late.left = late.missing.bit_count()
        self.want(pull)

    def remove(self, pull: Pulling) -> None:
        """Forget a pull that ended."""
        self.forget_requests(pull)
        self._foreground.pop(pull.name, None)
        self._background.pop(pull.name, None)

    def forget_requests(self, pull: Pulling) -> None:
        """Stop waiting for anything that a pull asked for."""
        for request in list(pull.requests.values()):
            self.withdraw(request)
        for nonce in pull.lapsed:
            del self.requests[nonce]
        pull.lapsed.clear()

    def timeout_s(self, request: Request) -> float:
        """Return how long a request may go without progress; longer where there is no other way."""
        base = request.holder.window.timeout_s(request.holder.peer.rto_s)
        return max(base, min(base * request.timeout_factor, BACKOFF_MAX_S))

    def pump(self, now: float) -> None:
        """Ask for as much as the windows allow."""
        self._ready_at = float("inf")
        if self._foreground:
            self._serve(self._foreground, self._limit - self.charged, now)
        if self._background:
            left_over = self._limit - self.charged
            room = min(left_over, self._limit_background - self.charged_background)
            self._serve(self._background, room, now)
        if self._ready_at < float("inf"):
            self._wake_at(self._ready_at)

    def _wake_at(self, when: float) -> None:
        wake = self._wake
        if wake is not None and wake.pending:
            if wake.when <= when:
                return
            wake.cancel()
        self._wake = self._context.deadlines.arm(when, self.pump)

    def _serve(self, queue: dict[Name, Pulling], room: int, now: float) -> None:
        refused: Pulling | None = None
        for pull in self._in_order(queue):
            if refused is not None and pull.waits_behind(refused):
                continue
            while pull.wanted and room >= pull.cost:
                asked = self._ask(pull, room, now)
                if not asked:
                    if pull.size >= 0:
                        refused = pull
                    break
                room -= asked
                self.want(pull)

    def _in_order(self, queue: dict[Name, Pulling]) -> list[Pulling]:
        """Return the oldest first; every other time those before it that have had nothing yet.

        Else something small would wait for all that is large and began before it.
        """
        if len(queue) < 2:
            return list(queue.values())
        pulls = sorted(queue.values(), key=_NUMBER)
        self._new_first = not self._new_first
        if self._new_first:
            pulls.sort(key=_BEGUN)
        return pulls

    def _ask(self, pull: Pulling, budget: int, now: float) -> int:
        """Send one request if a holder has room for it; return what it is charged at."""
        if pull.requests and pull.size < 0:
            return 0
        holder, alone = self._choose(pull, budget, now)
        if holder is None:
            return 0
        window = holder.window
        carried = self.carried(holder)
        if carried < pull.segment_bytes or not pull.begun:
            self._resegment(pull, carried)
        # What has begun goes on with its own, however much longer ones the path carries.
        segment_bytes, cost = pull.segment_bytes, pull.cost
        room = window.room(pull.background) // segment_bytes
        if window.outstanding:
            budget -= self._reserve
        else:
            room = max(1, room)
        burst = max(1, window.burst(pull.background) // segment_bytes)
        count = min(pull.wanted, room, budget // cost, burst, pull.burst_max)
        if count <= 0:
            return 0
        nonce = self._context.nonce()
        first, mask = pull.take(count)
        samples = not window.outstanding and holder.peer.unproven is None
        request = Request(nonce, pull, holder, first, mask, now)
        request.samples = samples
        if alone:
            request.timeout_factor = 1 << min(window.silences, BACKOFF_DOUBLINGS_MAX)
        self.requests[nonce] = pull.requests[nonce] = window.requests[nonce] = request
        self.charged += request.left * cost
        if pull.background:
            self.charged_background += request.left * cost
        message = Pull(nonce, pull.name, pull.segment_bytes, first, mask)
        self._context.send(message, holder.peer, now)
        request.timer = self._context.deadlines.arm(
            now + self.timeout_s(request), self._handle_timeout, request
        )
        return request.left * cost

    def carried(self, holder: Holder) -> int:
        """Return how long the segments from a holder may be."""
        return max(holder.window.segment_bytes, self.segment_bytes)

    def _resegment(self, pull: Pulling, segment_bytes: int) -> None:
        """Ask for segments of another length from now on."""
        if pull.segment_bytes != segment_bytes:
            self.forget_requests(pull)
            pull.resegment(segment_bytes)
            self.want(pull)

    def awake(self, holder: Holder, now: float) -> bool:
        """Tell whether a holder may be expected to answer."""
        return holder.peer.liveness is Liveness.ALIVE and not holder.window.silent(now)

    def _choose(self, pull: Pulling, budget: int, now: float) -> tuple[Holder | None, bool]:
        """Return whom to ask next, and whether there is nobody better should it stay silent."""
        choice, alone = self._ranked(pull, now)
        length = pull.segment_bytes
        for holder in choice:
            window = holder.window
            if not window.outstanding:
                return holder, alone
            wanted = pull.wanted * length
            most = min(wanted, (budget - self._reserve) // pull.cost * length)
            if most < min(wanted, max(length, FEW_BYTES)):
                continue
            room = window.room(pull.background)
            burst = min(window.size >> 2, window.burst(pull.background))
            has_room = room >= min(most, max(length, burst))
            if has_room and window.ready_at <= now:
                return holder, alone
            window.note_limited(pull.background)
            if has_room:
                self._ready_at = min(self._ready_at, window.ready_at)
        return None, False

    def _ranked(self, pull: Pulling, now: float) -> tuple[Sequence[Holder], bool]:
        """Return who may be asked, best first, and whether there is nobody better."""
        good = pull.good_holders()
        if not 0 <= pull.size < PROBED_BYTES:
            good = [
                h for h in good if not h.window.probing or (h.peer.srtt_s or 0.0) > PROBE_WAIT_S
            ]
        if len(good) <= 1 and not pull.exclusive:
            return good, True
        awake = [h for h in good if self.awake(h, now)]
        if pull.begun:
            # A path for short segments alone is worth changing their length only without others.
            awake = [h for h in awake if self.carried(h) >= pull.segment_bytes] or awake
        if pull.exclusive:
            if pull.solo is None:
                pull.solo = next(iter(awake or good), None)
            good = awake = [pull.solo] if pull.solo is not None else []
        choice = awake or good
        alone = len(choice) < 2 or not awake
        if not alone:
            # Leave out who would answer after the nearest could have sent all the rest.
            latencies = [self._latency_s(h) for h in choice]
            least = min(latencies)
            nearest = choice[latencies.index(least)]
            patience = least * (1 + pull.wanted * pull.segment_bytes / nearest.window.size)
            ranked = sorted(zip(latencies, range(len(choice)), strict=True))
            choice = [choice[i] for latency, i in ranked if latency <= patience]
        return choice, alone

    def _latency_s(self, holder: Holder) -> float:
        measured = holder.window.latency_s or holder.peer.srtt_s
        return measured if measured is not None else self._context.config.rto_initial_s

    def postpone(self, by_s: float) -> None:
        """We stood still: that is part of no path's latency."""
        windows: dict[int, PathWindow] = {}
        for request in self.requests.values():
            request.sent_at += by_s
            request.mark = None
            request.samples = False
            windows[id(request.holder.window)] = request.holder.window
        for window in windows.values():
            window.progress_at += by_s

    def check_invariants(self, pulls: Collection[Pulling]) -> None:
        """Assert what must hold between two steps."""
        charged = background = tracked = 0
        for pull in pulls:
            pull.check_invariants()
            queue = self._background if pull.background else self._foreground
            assert (pull.name in queue) == (pull.wanted > 0)
            cost = pull.cost * sum(r.left for r in pull.requests.values())
            charged += cost
            background += cost if pull.background else 0
            tracked += len(pull.requests) + len(pull.lapsed)
            for holder in pull.holders.values():
                holder.window.check_invariants()
        assert tracked == len(self.requests)
        assert charged == self.charged <= self._limit
        assert background == self.charged_background <= self._limit_background
        assert len(self._foreground) + len(self._background) <= len(pulls)
