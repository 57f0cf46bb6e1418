"""What a path can carry: how fast it delivers, how long it is, and when to try for more.

Owns the model of BBR (Cardwell et al. 2016, and the draft of its third version) as the receiver
sees it: the best rate of the last rounds, the least latency of the last seconds, and the phases in
which somewhat more or less than that rate is asked for. Arithmetic only: `path_window.py` feeds it
and makes a window and a pace of it.

A round ends when a request that was sent during it is first answered. A rate is measured over the
round trip before such an answer: what was delivered between two arrivals, over the longer of the
times in which it arrived and in which it was asked for, so that arrivals that waited for us and
come in one go do not pass for a fast path.

Deviation: there is no phase of its own for the least latency. Of what is asked for in `DOWN` the
queue that `UP` has made drains, and other flows of this kind drain theirs.
"""

from enum import Enum
from typing import NamedTuple

LATENCY_MIN_S = 10.0
LATENCY_RAISE = 1.25
"""Raised in small steps: a queue of our own making must not pass for a longer path."""
QUEUED_MIN_S = 0.004
QUEUED_SHARE = 16
"""A latency this much above the least (or a sixteenth of it) means a queue, not a scheduler."""
STARTUP_GROWTH, STARTUP_GROWTH_QUEUED = 2.0, 1.5
"""A queue may be somebody else's: who comes later must not stop at it, only be careful."""
PLATEAU_GROWTH = 1.15
PLATEAU_ROUNDS, PLATEAU_ROUNDS_QUEUED = 3, 2
CRUISE_ROUNDS = 6
WIDER = 1.1
TRAIN_BYTES_MIN = 32_000
"""Shorter ones say more of how our machine was woken than of the path."""
UP_BYTES = 48_000
UP_SHARE_MAX = 0.5


class Phase(Enum):
    """What is tried; the value is the pace, in measured rates."""

    STARTUP = 2.0
    """Twice as much every round, until a queue builds up, or no more arrives."""
    DRAIN = 0.5
    CRUISE = 0.99
    """Slightly less than was measured: what was measured too high must not build a queue."""
    UP = 1.125
    """And `UP_BYTES` per round trip where a queue stands, for there may be others: who has less
    gains more, so that shares become equal. Alone that much would only overflow a short queue."""
    DOWN = 0.75


class Mark(NamedTuple):
    """What was so when a request was sent."""

    round: int
    delivered: int
    delivered_at: float
    asked_at: float
    """Of the request that had been answered last; this one was asked for at `sent_at`."""
    sent_at: float


class PathModel:
    """Rate and latency of one path, and the phase of probing it."""

    __slots__ = (
        "_asked_at",
        "_best",
        "_best_before",
        "_delivered_at",
        "_full_rate",
        "_latency_min_at",
        "_phase_rounds",
        "_round_best",
        "_round_latency_s",
        "_train_bytes",
        "_train_s",
        "delivered",
        "latency_min_s",
        "phase",
        "queued_s",
        "round",
    )

    def __init__(self) -> None:
        self.round = 0
        self.delivered = 0
        self._delivered_at = 0.0
        self._asked_at = 0.0
        self._best = 0.0
        self._best_before = 0.0
        self._round_best = 0.0
        self.latency_min_s = float("inf")
        """From a request to its first segment without queues; infinite: not known."""
        self._latency_min_at = float("-inf")
        self._round_latency_s = float("inf")
        self.queued_s = 0.0
        """By how much even the fastest answer of the last round exceeded the least latency."""
        self.restart()

    def restart(self) -> None:
        """Begin to search for the rate anew."""
        self.phase = Phase.STARTUP
        self._phase_rounds = 0
        self._full_rate = 0.0
        self._train_bytes = 0
        self._train_s = 0.0

    @property
    def bottleneck(self) -> float:
        """Bytes per second at which segments that were sent in one go arrive; 0: not known.

        After Hoe (SIGCOMM 1996): where the start has to end, known after one round trip. Others'
        traffic counts only as far as it came between the segments; so this is no share of ours.
        """
        enough = self._train_bytes >= TRAIN_BYTES_MIN
        return self._train_bytes / self._train_s if enough else 0.0

    @property
    def rate(self) -> float:
        """Bytes per second in the best of the last rounds; 0: not known."""
        return max(self._best, self._best_before)

    @property
    def product(self) -> float:
        """Bytes on their way when the path is full and its queue empty."""
        return self.rate * self.latency_min_s if self.rate else 0.0

    @property
    def held(self) -> float:
        """Bytes on their way at the measured rate, those in a standing queue included."""
        return self.rate * (self.latency_min_s + self.queued_s) if self.rate else 0.0

    @property
    def queued_tolerated_s(self) -> float:
        """What is not yet a queue."""
        return max(QUEUED_MIN_S, self.latency_min_s / QUEUED_SHARE)

    @property
    def queued(self) -> bool:
        """A queue stood during the whole last round."""
        return self.queued_s > self.queued_tolerated_s

    @property
    def startup_growth(self) -> float:
        """How many times as much to ask for in the next round of `STARTUP`."""
        return STARTUP_GROWTH_QUEUED if self.queued else STARTUP_GROWTH

    @property
    def _plateau_rounds(self) -> int:
        return PLATEAU_ROUNDS_QUEUED if self.queued else PLATEAU_ROUNDS

    @property
    def pace(self) -> float:
        """At how many bytes per second to ask, once the rate is known."""
        pace = self.phase.value * self.rate
        if self.phase is Phase.UP and self.queued:
            pace += min(UP_BYTES / self.latency_min_s, UP_SHARE_MAX * self.rate)
        return pace

    def on_idle(self, now: float) -> None:
        """Note that nothing is on its way: the time until something is says nothing."""
        self._delivered_at = self._asked_at = now

    def mark(self, now: float) -> Mark:
        """Return what a request sent now has to remember."""
        return Mark(self.round, self.delivered, self._delivered_at, self._asked_at, now)

    def on_arrived(self, size: int, now: float) -> None:
        """Count what came."""
        self.delivered += size
        self._delivered_at = now

    def on_train(self, size: int, elapsed_s: float) -> None:
        """Learn how long segments took to arrive that had been sent in one go."""
        if self.phase is Phase.STARTUP and elapsed_s > 0:
            self._train_bytes += size
            self._train_s += elapsed_s

    def on_answered(self, mark: Mark, latency_s: float, now: float) -> bool:
        """Learn from the first segment that answers a request; tell whether a round ended."""
        if latency_s <= self.latency_min_s or now - self._latency_min_at > LATENCY_MIN_S:
            self.latency_min_s = min(latency_s, LATENCY_RAISE * self.latency_min_s)
            self._latency_min_at = now
        self._round_latency_s = min(self._round_latency_s, latency_s)
        elapsed_s = max(self._delivered_at - mark.delivered_at, self._asked_at - mark.asked_at)
        if elapsed_s > self.latency_min_s / 2 > 0:
            rate = (self.delivered - mark.delivered) / elapsed_s
            self._round_best = max(self._round_best, rate)
            self._best = max(self._best, rate)
        self._asked_at = mark.sent_at
        if mark.round != self.round:
            return False
        self.round += 1
        self.queued_s = self._round_latency_s - self.latency_min_s
        self._round_latency_s = float("inf")
        return True

    def end_round(self, limited: bool, outstanding: int) -> None:
        """Go on to the next phase when this one has had its time.

        `limited`: more would have been asked for, had it been allowed; else nothing was tried.
        """
        round_best, self._round_best = self._round_best, 0.0
        if not limited:
            return
        self._phase_rounds += 1
        match self.phase:
            case Phase.STARTUP:
                if self.rate > PLATEAU_GROWTH * self._full_rate:
                    self._full_rate = self.rate
                    self._phase_rounds = 0
                elif self.rate and self._phase_rounds >= self._plateau_rounds:
                    self.enter(Phase.DRAIN)
            case Phase.DRAIN | Phase.DOWN:
                if outstanding <= self.product or self._phase_rounds > PLATEAU_ROUNDS:
                    self._leave_drained()
            case Phase.CRUISE:
                if self._phase_rounds >= CRUISE_ROUNDS:
                    self.enter(Phase.UP)
            case Phase.UP:
                # What was asked for in it is still to arrive: it counts for two cycles. But where a
                # queue stands we are not alone, and what we had before others came is history.
                self._best_before = round_best if self.queued else self._best
                self._best = 0.0
                self.enter(Phase.DOWN)

    def end_drain(self, outstanding: int) -> None:
        """End `DRAIN` within a round: its pace would leave the path half empty until the next."""
        if outstanding <= self.product:
            self._leave_drained()

    def _leave_drained(self) -> None:
        # Where the path was wider than thought, do not wait to look again.
        self.enter(Phase.UP if self.rate > WIDER * self._full_rate else Phase.CRUISE)

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        if phase is Phase.UP or phase is Phase.DRAIN:
            self._full_rate = self.rate
        self.phase = phase
        self._phase_rounds = 0
