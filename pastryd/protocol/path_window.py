"""How many bytes may be on their way from one peer: congestion control (DESIGN sec. 7).

Owns arithmetic only: slow start, growth while the window is used, a gentle decrease when the loss
of a round exceeds a few per cent (a lossy path is not a congested one), and what silence means.
Knows neither pulls nor segments' contents; `transfer.py` charges and discharges it. Sizes are bytes
of segments' data; loss is counted in segments, for that is what a path loses.

Rounds are timed by requests as in BBR: a round ends when a request that was sent during it is first
answered. A later issue may replace the rule by a rate-based one behind the same few verbs.
"""

from typing import TYPE_CHECKING

from pastryd.state.peers import Peer

if TYPE_CHECKING:
    from pastryd.protocol.pull_state import Request

SIZE_INITIAL = 18_000
SIZE_MIN = 4_500
SIZE_MAX = 9 << 20
SIZE_USEFUL_MIN = 144_000
"""Short paths: a scheduler's delays, not the wire's, decide what keeps them full."""
LATENCY_MIN_S = 10.0
LOSS_TOLERATED = 0.08
DECREASE_MAX = 0.3
ROUND_SEGMENTS_MIN = 64
"""Fewer say nothing about loss: six of sixty would already look like congestion."""
IDLE_S = 5.0
SILENCE_S = 0.5
SILENCE_MAX_S = 8.0


class PathWindow:
    """The window of one path, and the requests that are on it, oldest first."""

    __slots__ = (
        "arrived",
        "delivered",
        "delivered_before",
        "latency_min_at",
        "latency_min_s",
        "latency_s",
        "limited",
        "lost",
        "outstanding",
        "probe_at",
        "probes",
        "probing",
        "progress_at",
        "rate",
        "requests",
        "round",
        "round_at",
        "segment_bytes",
        "silences",
        "silent_at",
        "silent_until",
        "size",
        "size_before_silence",
        "slow_start",
        "vanished",
    )

    def __init__(self) -> None:
        self.size = SIZE_INITIAL
        self.outstanding = 0
        """Asked for, neither received nor given up."""
        self.requests: dict[int, Request] = {}
        self.slow_start = True
        self.limited = False
        """The window, not the want, ended a request during this round: only then may it grow."""
        self.round = 0
        self.arrived = 0
        self.lost = 0
        """Segments of the last rounds."""
        self.delivered = 0
        self.latency_s = 0.0
        """Smoothed time from a request to its first segment, queues included; 0: not known."""
        self.latency_min_s = float("inf")
        self.latency_min_at = float("-inf")
        self.rate = 0.0
        """Bytes per second in the best of the last rounds."""
        self.round_at = float("-inf")
        self.delivered_before = 0
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
        self.probes: dict[int, tuple[int, int, int]] = {}
        self.vanished = 0
        """Requests in a row for long segments of which nothing came."""

    def room(self, background: bool) -> int:
        """Return how many more bytes may be asked for; background work gets half a window."""
        room = (self.size >> 1 if background else self.size) - self.outstanding
        return room if room > 0 else 0

    def silent(self, now: float) -> bool:
        """Tell whether to avoid this path when there is another one."""
        return self.silences > 0 and now < self.silent_until

    def timeout_s(self, rto: float) -> float:
        """Return how long without progress means loss: bursts wait in queues and for disks."""
        return max(rto, 2 * self.latency_s)

    def reorder_s(self, srtt: float | None) -> float:
        """Return how long an overtaken request may be just late (RACK: a quarter of an RTT)."""
        return max(0.004, (srtt or 0.0) / 4)

    def on_asked(self, size: int, now: float) -> None:
        """Charge the window. What was learnt before a long pause is only half believed."""
        if not self.outstanding and now - self.progress_at > IDLE_S:
            self.size = min(self.size, 2 * SIZE_INITIAL)
        self.outstanding += size

    def on_first_segment(self, latency_s: float, asked_in_round: int, now: float) -> None:
        """Learn from the first segment that answers a request."""
        if latency_s <= self.latency_min_s or now - self.latency_min_at > LATENCY_MIN_S:
            # Raised in small steps: a queue of our own making must not pass for a longer path.
            self.latency_min_s = min(latency_s, 1.25 * self.latency_min_s)
            self.latency_min_at = now
        old = self.latency_s
        self.latency_s = old + (latency_s - old) / 8 if old else latency_s
        if asked_in_round == self.round:
            self.round += 1
            self._end_round(now)

    def _note_rate(self, now: float) -> None:
        elapsed_s = now - self.round_at
        if elapsed_s > 0:
            rate = (self.delivered - self.delivered_before) / elapsed_s
            self.rate = max(rate, self.rate * 0.9)
        self.round_at = now

    def _end_round(self, now: float) -> None:
        self._note_rate(now)
        self._judge_round()
        self.delivered_before = self.delivered

    def _judge_round(self) -> None:
        total = self.arrived + self.lost
        loss = self.lost / max(total, ROUND_SEGMENTS_MIN)
        if loss > LOSS_TOLERATED and total >= ROUND_SEGMENTS_MIN:
            self.slow_start = False
            self.size = max(SIZE_MIN, int(self.size * (1 - min(loss, DECREASE_MAX))))
            self.arrived = self.lost = 0
        elif self.limited:
            gentle = max(SIZE_MIN >> 2, int(self.size / 8 * (1 - loss / LOSS_TOLERATED)))
            grown = self.size + (self.size if self.slow_start else gentle)
            # Two bandwidth-delay products fill any path; more only fills its queue.
            useful = max(SIZE_USEFUL_MIN, int(2 * self.rate * self.latency_min_s))
            self.size = max(self.size, min(SIZE_MAX, useful, grown))
        if total >= ROUND_SEGMENTS_MIN:
            # Halved, not cleared: short rounds are judged together with the ones before.
            self.arrived >>= 1
            self.lost >>= 1
        self.limited = False

    def on_arrived(self, count: int, segment_bytes: int) -> None:
        """Discharge segments that came."""
        self.outstanding -= count * segment_bytes
        self.delivered += count * segment_bytes
        self.arrived += count

    def on_lost(self, count: int, segment_bytes: int, answered: bool) -> None:
        """Discharge segments that are given up; the end of the round judges.

        Where nothing of a burst came, it was one datagram that was lost: the request.
        """
        self.outstanding -= count * segment_bytes
        self.lost += count if answered else 1

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
        self.size = SIZE_MIN
        self.slow_start = True

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
