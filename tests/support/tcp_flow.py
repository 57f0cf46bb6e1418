"""TCP flows that share the link of a `transfer_link.Link`: a model of BBR, as Linux has it.

Nothing of TCP but what decides its share of a full queue: the pace, the window, and what counts as
lost. After Cardwell et al., "BBR: Congestion-Based Congestion Control" (2016), sections 3 and 4.
Sizes are packets.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from tests.support.transfer_link import Link, Station

PACKET_BYTES = 1500
BURST_S = 1 / 1024
"""What is sent in one go, as segmentation offload does."""
REORDERING = 3
STARTUP_GAIN = 2.89
WINDOW_GAIN = 2.0
CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
RATE_ROUNDS = 10
FULL_GROWTH, FULL_ROUNDS = 1.25, 3
PROBE_RTT_EVERY_S, PROBE_RTT_S, PROBE_RTT_WINDOW = 10.0, 0.2, 4


class State(Enum):
    """Of the sender."""

    STARTUP = 0
    DRAIN = 1
    PROBE_BW = 2
    PROBE_RTT = 3


@dataclass
class _Sent:
    """What was so when a packet was sent."""

    at: float
    delivered: int
    delivered_at: float
    first_sent_at: float


@dataclass
class Bbr:
    """The model of the path, and the pace and window that follow."""

    window: float = 10.0
    gain: float = STARTUP_GAIN
    state: State = State.STARTUP
    rtt_min_s: float = float("inf")
    _rtt_min_at: float = 0.0
    _rates: deque[tuple[int, float]] = field(default_factory=deque)
    _round: int = 0
    _round_ends_at: int = 0
    _full_rate: float = 0.0
    _full_rounds: int = 0
    _phase: int = 2
    _phase_at: float = 0.0
    _lost_in_phase: bool = False
    _probe_ends_at: float | None = None
    _window_before: float = 0.0

    @property
    def rate(self) -> float:
        """Packets a second: the best of the last rounds."""
        return self._rates[0][1] if self._rates else 0.0

    def on_lost(self) -> None:
        """Loss is no congestion; it only ends a time of probing."""
        self._lost_in_phase = True

    def on_acked(self, rtt_s: float, rate: float, sent: _Sent, flow: "TcpFlow", now: float) -> None:
        """Learn from one acknowledgement."""
        new_round = sent.delivered >= self._round_ends_at
        if new_round:
            self._round_ends_at = flow.delivered
            self._round += 1
        while self._rates and self._rates[0][0] <= self._round - RATE_ROUNDS:
            self._rates.popleft()
        while self._rates and self._rates[-1][1] <= rate:
            self._rates.pop()
        self._rates.append((self._round, rate))
        expired = now - self._rtt_min_at > PROBE_RTT_EVERY_S and self.rtt_min_s < float("inf")
        if rtt_s <= self.rtt_min_s or expired:
            self.rtt_min_s, self._rtt_min_at = rtt_s, now
        product = self.rate * self.rtt_min_s
        if self.state is State.STARTUP and new_round:
            self._look_for_plateau()
        if self.state is State.DRAIN and flow.in_flight <= product:
            self._enter_phase(2, now)
        if self.state is State.PROBE_BW:
            self._advance(product, flow.in_flight, now)
        if expired and self.state is not State.PROBE_RTT:
            self.state, self.gain, self._probe_ends_at = State.PROBE_RTT, 1.0, None
            self._window_before, self.window = self.window, PROBE_RTT_WINDOW
        if self.state is State.PROBE_RTT:
            self._probe_rtt(flow.in_flight, now)
        elif self.state is State.STARTUP:
            self.window += 1
        else:
            self.window = min(self.window + 1, WINDOW_GAIN * product + 6)

    def _look_for_plateau(self) -> None:
        if self.rate > FULL_GROWTH * self._full_rate:
            self._full_rate, self._full_rounds = self.rate, 0
            return
        self._full_rounds += 1
        if self._full_rounds >= FULL_ROUNDS:
            self.state, self.gain = State.DRAIN, 1 / STARTUP_GAIN

    def _enter_phase(self, phase: int, now: float) -> None:
        self.state, self._phase, self._phase_at = State.PROBE_BW, phase % len(CYCLE), now
        self.gain = CYCLE[self._phase]
        self._lost_in_phase = False

    def _advance(self, product: float, in_flight: int, now: float) -> None:
        over = now - self._phase_at > self.rtt_min_s
        if self.gain > 1:
            over = over and (self._lost_in_phase or in_flight >= self.gain * product)
        elif self.gain < 1:
            over = over or in_flight <= product
        if over:
            self._enter_phase(self._phase + 1, now)

    def _probe_rtt(self, in_flight: int, now: float) -> None:
        if self._probe_ends_at is None:
            if in_flight <= PROBE_RTT_WINDOW:
                self._probe_ends_at = now + PROBE_RTT_S
        elif now > self._probe_ends_at:
            self._rtt_min_at, self.window = now, self._window_before
            self._enter_phase(2, now)


class TcpFlow:
    """An endless flow out of a station, through its queue; every packet is acknowledged."""

    def __init__(self, link: Link, source: Station) -> None:
        self._link, self._source = link, source
        self._bbr = Bbr()
        self._sent: dict[int, _Sent] = {}
        self._order: deque[int] = deque()
        self._next = 0
        self._next_at = 0.0
        self._waiting = False
        self._delivered_at = self._first_sent_at = link.now
        self.delivered = 0
        """Packets so far."""

    @property
    def in_flight(self) -> int:
        """Packets sent, neither acknowledged nor lost."""
        return len(self._sent)

    def start(self) -> None:
        """Begin to send."""
        self._pump()

    def _woken(self) -> None:
        self._waiting = False
        self._pump()

    def _pump(self) -> None:
        link, bbr = self._link, self._bbr
        while self.in_flight < bbr.window:
            pace = bbr.gain * bbr.rate
            if not pace:
                self._send()
                continue
            if self._next_at > link.now:
                if not self._waiting:
                    self._waiting = True
                    link.call_at(self._next_at, self._woken)
                return
            burst = max(2, int(pace * BURST_S))
            self._next_at = max(self._next_at, link.now - BURST_S) + burst / pace
            for _ in range(min(burst, max(1, int(bbr.window) - self.in_flight))):
                self._send()

    def _send(self) -> None:
        link, number = self._link, self._next
        if not self._sent:
            self._delivered_at = self._first_sent_at = link.now
        self._next += 1
        self._order.append(number)
        self._sent[number] = _Sent(
            link.now, self.delivered, self._delivered_at, self._first_sent_at
        )
        arrives = link.carry(self._source, PACKET_BYTES)
        if arrives is not None:
            link.call_at(arrives + link.faults.delay_s, self._acknowledge(number))

    def _acknowledge(self, number: int) -> Callable[[], None]:
        def run() -> None:
            sent = self._sent.pop(number, None)
            if sent is None:
                return  # it was given up
            now = self._link.now
            self.delivered += 1
            self._delivered_at, self._first_sent_at = now, sent.at
            while self._order and self._order[0] < number - REORDERING:
                if self._sent.pop(self._order.popleft(), None):
                    self._bbr.on_lost()
            elapsed_s = max(sent.at - sent.first_sent_at, now - sent.delivered_at)
            rate = (self.delivered - sent.delivered) / elapsed_s
            self._bbr.on_acked(now - sent.at, rate, sent, self, now)
            self._pump()

        return run
