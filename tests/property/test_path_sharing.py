"""What congestion control reaches, in virtual time: share of a link, bytes sent twice, fairness.

The figures are of one seed each and repeat exactly; the bounds leave some room for other choices.
`scripts/bench_links.py` measures the same with real nodes over a link of its own.
"""

from dataclasses import replace
from random import Random

import pytest

from pastryd.config import OBJECT_BYTES_MAX, Config
from pastryd.protocol.path_window import window_of
from pastryd.protocol.pull_state import Pulled, PullResult
from pastryd.wire.messages import Segment
from tests.support.tcp_flow import PACKET_BYTES, TcpFlow
from tests.support.transfer_link import Faults, Link

BYTES_PER_S = 12.5e6
"""100 Mbit/s."""
IN_FLIGHT = 8
BYTES = Random(5).randbytes(OBJECT_BYTES_MAX + 4096)
PAYLOAD_SHARE = 1118 / 1135


class Flow:
    """Pulls without end by one station from station 1, several at a time."""

    def __init__(self, link: Link, at: int, background: bool = False) -> None:
        self._link, self._at, self._background = link, at, background
        self._began = 0

    def start(self) -> None:
        for _ in range(IN_FLIGHT):
            self._next()
        self._link.flush()

    def _next(self) -> None:
        self._began = (self._began + 1) % 4096
        name = self._link.hold(BYTES[self._began : self._began + OBJECT_BYTES_MAX], 1)
        station = self._link.stations[self._at]
        station.transfer.pull(
            name,
            OBJECT_BYTES_MAX,
            [self._link.peer(self._at, 1)],
            self._done,
            self._link.now,
            background=self._background,
        )

    def _done(self, result: PullResult, _: float) -> None:
        assert isinstance(result, Pulled)
        self._next()

    @property
    def delivered(self) -> int:
        """Bytes so far."""
        return window_of(self._link.peer(self._at, 1)).model.delivered

    def shares(self, other: "Flow", for_s: float) -> tuple[float, float]:
        """Let time pass; return what both got of the link meanwhile."""
        before = self.delivered, other.delivered
        self._link.run_for(for_s)
        after = self.delivered, other.delivered
        got = [b - a for a, b in zip(before, after, strict=True)]
        return got[0] / for_s / BYTES_PER_S, got[1] / for_s / BYTES_PER_S


def _link(rtt_s: float, loss: float, queue_bytes: float, stations: int) -> Link:
    faults = Faults(rtt_s / 2, 0.0005, loss, 0.0, BYTES_PER_S, queue_bytes)
    config = replace(Config.wan(), receive_window_bytes=6 << 20, datagram_bytes_max=1200)
    link = Link(stations, faults, 1, config)
    link.checked = False
    return link


@pytest.mark.parametrize(
    ("rtt_s", "loss", "queue_bytes", "least", "twice_most"),
    [
        (0.02, 0.0, 100_000, 0.92, 0.002),
        (0.02, 0.01, 100_000, 0.92, 0.012),
        (0.02, 0.05, 250_000, 0.80, 0.08),
        (0.08, 0.01, 1_000_000, 0.80, 0.04),
    ],
)
def test_one_pull_fills_the_link(
    rtt_s: float, loss: float, queue_bytes: float, least: float, twice_most: float
) -> None:
    link = _link(rtt_s, loss, queue_bytes, 2)
    flow = Flow(link, 0)
    flow.start()
    link.run_for(1.0)
    before, sent_before = flow.delivered, len(link.stations[1].sent)
    link.run_for(1.0)
    got = flow.delivered - before
    sent = sum(len(m.data) for m in link.stations[1].sent[sent_before:] if isinstance(m, Segment))
    assert got / (BYTES_PER_S * PAYLOAD_SHARE) > least
    assert sent / got - 1 < twice_most


@pytest.mark.parametrize(
    ("bytes_per_s", "queue_bytes", "least", "lost_most"),
    [(BYTES_PER_S, 100_000, 0.5, 0.01), (BYTES_PER_S / 10, 100_000, 0.7, 0.01)],
)
def test_the_start_is_quick_and_overflows_no_queue(
    bytes_per_s: float, queue_bytes: int, least: float, lost_most: float
) -> None:
    """How far the first segments come apart says where to stop: doubling lost a round trip."""
    link = _link(0.08, 0.0, queue_bytes, 2)
    link.faults.bytes_per_s = bytes_per_s
    flow = Flow(link, 0)
    flow.start()
    link.run_for(0.9)
    assert flow.delivered > least * 0.9 * bytes_per_s * PAYLOAD_SHARE
    assert link.count("segments_lost") * 1118 < lost_most * flow.delivered


def test_a_later_pull_gets_its_share() -> None:
    link = _link(0.02, 0.0, 100_000, 3)
    first, second = Flow(link, 0), Flow(link, 2)
    first.start()
    link.run_for(0.5)
    second.start()
    link.run_for(0.5)
    shares = first.shares(second, 1.0)
    assert sum(shares) > 0.9
    assert max(shares) < 2 * min(shares)


@pytest.mark.parametrize("queue_bytes", [100_000, 250_000])
def test_a_pull_and_a_tcp_flow_share(queue_bytes: int) -> None:
    link = _link(0.02, 0.0, queue_bytes, 2)
    flow, tcp = Flow(link, 0), TcpFlow(link, link.stations[1])
    tcp.start()
    link.run_for(1.0)
    alone = tcp.delivered * PACKET_BYTES / BYTES_PER_S
    flow.start()
    link.run_for(1.0)
    before = flow.delivered, tcp.delivered
    link.run_for(3.0)
    got = (flow.delivered - before[0]) / PAYLOAD_SHARE
    left = (tcp.delivered - before[1]) * PACKET_BYTES
    assert alone > 0.8
    assert (got + left) / 3.0 / BYTES_PER_S > 0.9
    assert max(got, left) < 2 * min(got, left)


def test_background_pulls_give_way_to_those_for_clients() -> None:
    link = _link(0.02, 0.0, 250_000, 3)
    background, client = Flow(link, 0, background=True), Flow(link, 2)
    background.start()
    link.run_for(1.0)
    alone = background.delivered / 1.0 / BYTES_PER_S
    client.start()
    link.run_for(0.5)
    left, taken = background.shares(client, 1.0)
    assert alone > 0.5
    assert taken > 0.75 and left < 0.15
