"""How many bytes may be on their way from one peer, and how fast they may be asked for.

Congestion control (DESIGN sec. 7), receiver-driven: the window is 2.5 products of the rate and the
latency that `path_model.py` finds, so that a full path stays full while losses are noticed, and
requests on longer paths are paced. Loss alone is no congestion: only what exceeds a few per cent
while a queue stands, or `LOSS_TOLERATED` anyhow, lowers a ceiling that then rises again. Background
work has a window of its own that gives way as soon as a queue stands (LEDBAT, RFC 6817).

Knows neither pulls nor segments' contents; `transfer.py` charges and discharges it. Sizes are bytes
of segments' data; loss is counted in segments, for that is what a path loses.
"""

from typing import TYPE_CHECKING

from pastryd.protocol.path_model import UP_BYTES, Mark, PathModel, Phase
from pastryd.state.peers import Peer

if TYPE_CHECKING:
    from pastryd.protocol.pull_state import Request

SIZE_INITIAL = 48_000
"""As QUIC's (32 packets); in a train so long one sees how far its segments come apart."""
SIZE_LEAST = 18_000
"""On longer paths, however little the model expects; and what background work begins with."""
SIZE_MIN = 4_500
SIZE_MAX = 9 << 20
SIZE_SHORT_MIN = 144_000
"""Short paths: a scheduler's delays, not the wire's, decide what keeps them full."""
SHORT_SEGMENTS = 8
"""Of the longest: who carries 64 KB is this machine's memory, where being woken for each is what
costs. On other short paths this is less than `SIZE_SHORT_MIN`."""
SHORT_S = 0.002
"""Shorter paths are not paced: timers are no finer than that."""
PACE_S = 0.001
"""A paced request asks for what arrives in this time, as much as TCP's bbr sends in one go: of
longer bursts a full queue drops more than of others' short ones."""
BURST_MIN = 4_500
LATE_S = 0.005
"""Pacing catches up when it was late by less than this."""
PRODUCTS = 2.5
STARTUP_PACE = 1.25
LOSS_QUEUED = 0.02
LOSS_TOLERATED = 0.1
DECREASE = 0.9
KEPT = 1.25
"""Congestion takes none of what is on its way now, with a quarter to grow: who has little, beside
others who never yield, must not get less."""
INCREASE = 1.125
"""Of the ceiling, after as many rounds as it takes to probe once."""
BACKGROUND_INCREASE_SHARE = 4
ROUND_SEGMENTS_MIN = 128
"""Fewer say nothing about loss: six of sixty would already look like congestion."""
IDLE_S = 5.0
SILENCE_S = 0.5
SILENCE_MAX_S = 8.0


class PathWindow:
    """The window of one path, and the requests that are on it, oldest first."""

    __slots__ = (
        "arrived",
        "background_size",
        "ceiling",
        "latency_s",
        "limited",
        "limited_background",
        "lost",
        "model",
        "most_outstanding",
        "outstanding",
        "probe_at",
        "probe_round",
        "probes",
        "probing",
        "progress_at",
        "ready_at",
        "requests",
        "segment_bytes",
        "silences",
        "silent_at",
        "silent_until",
        "size",
        "size_before_silence",
        "vanished",
        "vanished_at",
        "yielded",
    )

    def __init__(self) -> None:
        self.model = PathModel()
        self.size = SIZE_INITIAL
        self.ceiling = SIZE_MAX
        """What congestion leaves of the window."""
        self.yielded = False
        """Congestion was answered since the last time of probing."""
        self.background_size = SIZE_LEAST
        self.ready_at = float("-inf")
        """When the pace allows the next request."""
        self.outstanding = 0
        """Asked for, neither received nor given up."""
        self.most_outstanding = 0
        """In this round."""
        self.requests: dict[int, Request] = {}
        self.limited = False
        """The window or the pace, not the want, ended a request during this round."""
        self.limited_background = False
        self.arrived = 0
        self.lost = 0
        """Segments of the last rounds."""
        self.latency_s = 0.0
        """Smoothed time from a request to its first segment, queues included; 0: not known."""
        self.progress_at = float("-inf")
        self.silences = 0
        """Requests in a row that met no sign of life."""
        self.silent_at = float("-inf")
        self.silent_until = float("-inf")
        self.size_before_silence = 0
        self.segment_bytes = 0
        """The longest segment that was seen to arrive; 0: what every path carries."""
        self.probing = False
        self.probe_at = float("-inf")
        """When to find out again; `path_prober.py` does."""
        self.probe_round = 0
        self.probes: dict[int, tuple[int, int, int]] = {}
        self.vanished = 0
        """Requests in a row for long segments of which nothing came."""
        self.vanished_at = float("-inf")

    def room(self, background: bool) -> int:
        """Return how many more bytes may be asked for."""
        size = self.background_size if background else self.size
        return max(0, size - self.outstanding)

    def burst(self, background: bool) -> int:
        """Return how many bytes one request may ask for: where there is a pace, few at a time."""
        pace = self._pace(background)
        return max(BURST_MIN, int(pace * PACE_S)) if pace else SIZE_MAX

    def _pace(self, background: bool) -> float:
        """Return at how many bytes per second to ask; 0: not paced."""
        model = self.model
        latency_s = model.latency_min_s
        if not SHORT_S < latency_s < float("inf"):
            return 0.0
        if background:
            return STARTUP_PACE * self.background_size / latency_s
        if model.phase is Phase.STARTUP or not model.rate:
            pace = STARTUP_PACE * self.size / latency_s
            return min(pace, model.bottleneck or pace)
        return model.pace

    def note_limited(self, background: bool) -> None:
        """Note that the window or the pace, not the want, ended what was asked for."""
        if background:
            self.limited_background = True
        else:
            self.limited = True

    def silent(self, now: float) -> bool:
        """Tell whether to avoid this path when there is another one."""
        return self.silences > 0 and now < self.silent_until

    def timeout_s(self, rto: float) -> float:
        """Return how long without progress means loss: bursts wait in queues and for disks."""
        return max(rto, 2 * self.latency_s)

    def reorder_s(self, srtt: float | None) -> float:
        """Return how long an overtaken request may be just late (RACK: a quarter of an RTT)."""
        return max(0.004, (srtt or 0.0) / 4)

    def on_asked(self, size: int, background: bool, now: float) -> Mark:
        """Charge window and pace; return what the request has to remember.

        What was learnt before a long pause is only half believed.
        """
        if not self.outstanding:
            self.model.on_idle(now)
            if now - self.progress_at > IDLE_S:
                self._restart(min(self.size, 2 * SIZE_INITIAL))
        self.outstanding += size
        self.most_outstanding = max(self.most_outstanding, self.outstanding)
        if pace := self._pace(background):
            self.ready_at = max(self.ready_at, now - LATE_S) + size / pace
        return self.model.mark(now)

    def _restart(self, size: int) -> None:
        self.model.restart()
        self.size = size

    def on_answered(self, mark: Mark, latency_s: float, now: float) -> None:
        """Learn from the first segment that answers a request."""
        old = self.latency_s
        self.latency_s = old + (latency_s - old) / 8 if old else latency_s
        ended = self.model.on_answered(mark, latency_s, now)
        if ended:
            self._end_round()
        elif self.model.phase is Phase.DRAIN:
            self.model.end_drain(self.outstanding)
        if self.model.phase is not Phase.STARTUP:
            self._fit()
        elif self.model.latency_min_s <= SHORT_S:
            self.size = min(self.ceiling, max(self.size, self._least))

    def _end_round(self) -> None:
        """Judge what was lost, then look for the next size."""
        model = self.model
        if not model.rate:
            # What did not come may be what our address, not proven yet, was not sent.
            self.arrived = self.lost = 0
        total = self.arrived + self.lost
        congested = False
        if total >= ROUND_SEGMENTS_MIN:
            # In the start the queue may be somebody else's.
            queued = model.queued and model.phase is not Phase.STARTUP
            congested = self.lost > (LOSS_QUEUED if queued else LOSS_TOLERATED) * total
            # Halved, not cleared: short rounds are judged together with the ones before.
            self.arrived >>= 1
            self.lost >>= 1
        if congested and not self.yielded:
            # Once for each time of probing: others that never yield would take everything.
            self.yielded = True
            yielded = DECREASE * min(self.size, self.most_outstanding)
            self.ceiling = max(SIZE_MIN, int(max(KEPT * model.held + UP_BYTES, yielded)))
            self.arrived = self.lost = 0
            if model.phase is Phase.STARTUP:
                model.enter(Phase.DRAIN)
        if model.round > 1:
            # The first train, still arriving, will tell how much more may be asked for.
            self._grow()
        self._end_background_round(model.queued or congested)
        was = model.phase
        model.end_round(self.limited, self.outstanding)
        if model.phase is Phase.UP is not was:
            if not self.yielded:
                self.ceiling = min(SIZE_MAX, int(INCREASE * self.ceiling) + UP_BYTES)
            self.yielded = False
        self.limited = self.limited_background = False
        self.most_outstanding = self.outstanding

    def _grow(self) -> None:
        """In the start ask for more, if the window was what kept us from it."""
        model = self.model
        in_use = self.limited and self.size <= 2 * self.most_outstanding
        if model.phase is not Phase.STARTUP or not in_use:
            return
        found = int(model.bottleneck * model.latency_min_s)
        if found > self.size:
            # Two steps at once while that is less than half of what the path holds.
            grown = min(max(2 * self.size, min(4 * self.size, found // 2)), found)
        else:
            grown = int(model.startup_growth * self.size)
            if model.rate:
                # What is measured in a small window lags: hence the initial size on top.
                grown = min(grown, int(PRODUCTS * (SIZE_INITIAL + model.product)))
        self.size = min(SIZE_MAX, self.ceiling, max(self.size, grown))

    def on_train(self, request: "Request", now: float) -> None:
        """Learn how long the segments of a request, sent in one go, took to arrive."""
        if request.mark is None:
            return
        known = self.model.bottleneck
        size = (request.count - 1) * request.pull.segment_bytes
        self.model.on_train(size, now - request.answered_at)
        if self.model.bottleneck and not known:
            self._grow()

    def _end_background_round(self, others: bool) -> None:
        """Give way to others; take more while there is no sign of them."""
        size = self.background_size
        if others:
            self.background_size = max(SIZE_MIN, size // 2)
        elif self.limited_background:
            more = max(SIZE_MIN, size // BACKGROUND_INCREASE_SHARE)
            self.background_size = min(SIZE_MAX, size + more)

    def _fit(self) -> None:
        """Set the window to what the model says."""
        model = self.model
        size = int((1 if model.phase is Phase.DRAIN else PRODUCTS) * model.product)
        self.size = max(SIZE_MIN, min(self.ceiling, max(self._least, size), SIZE_MAX))

    @property
    def _least(self) -> int:
        """What is on its way however little the model expects."""
        if self.model.latency_min_s > SHORT_S:
            return SIZE_LEAST
        return max(SIZE_SHORT_MIN, SHORT_SEGMENTS * self.segment_bytes)

    def on_arrived(self, count: int, segment_bytes: int, now: float) -> None:
        """Discharge segments that came."""
        self.outstanding -= count * segment_bytes
        self.arrived += count
        self.model.on_arrived(count * segment_bytes, now)

    def on_lost(self, count: int, segment_bytes: int, answered: bool) -> None:
        """Discharge segments that are given up; the end of the round judges.

        Where nothing of a burst came, it was one datagram that was lost: the request. Then the time
        that the pace gave it was free, and is given again.
        """
        self.outstanding -= count * segment_bytes
        self.lost += count if answered else 1
        if not answered and (pace := self._pace(False)):
            self.ready_at -= count * segment_bytes / pace

    def on_late(self) -> None:
        """Take back the loss of a segment that was only late."""
        if self.lost:
            self.lost -= 1

    def on_silence(self, asked_at: float, now: float) -> None:
        """Note that nothing at all came since `asked_at`; requests sent together count once."""
        if asked_at < self.silent_at:
            return
        if not self.silences:
            self.size_before_silence = self.size
        self.silences += 1
        self.silent_at = now
        self.silent_until = now + min(SILENCE_MAX_S, SILENCE_S * (1 << min(self.silences, 5)))
        self._restart(SIZE_MIN)

    def on_vanished(self, asked_at: float, now: float) -> int:
        """Count that nothing came of a request for long segments; those sent together count once.

        Returns how many in a row: a holder that stands still for a moment is not a narrow path.
        """
        if asked_at >= self.vanished_at:
            self.vanished += 1
            self.vanished_at = now
        return self.vanished

    def on_life(self, late: bool) -> None:
        """End a silence. A late answer shows that nothing was lost: the window comes back."""
        self.silences = 0
        self.silent_until = float("-inf")
        if late:
            self.size = max(self.size, self.size_before_silence)

    def check_invariants(self) -> None:
        """Assert what must hold between two steps."""
        assert SIZE_MIN <= self.size <= SIZE_MAX
        asked = sum(r.left * r.pull.segment_bytes for r in self.requests.values())
        assert self.outstanding == asked
        assert not any(r.lapsed or not r.left for r in self.requests.values())


def window_of(peer: Peer) -> PathWindow:
    """Return the window of the path to a peer."""
    window = peer.window
    if not isinstance(window, PathWindow):
        window = peer.window = PathWindow()
    return window
