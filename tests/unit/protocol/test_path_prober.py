"""`protocol/path_prober.py`: as long segments as the path carries, and no longer (RFC 8899)."""

from dataclasses import replace
from random import Random

import pytest

from pastryd.config import OBJECT_BYTES_MAX, Config
from pastryd.protocol.path_window import window_of
from pastryd.protocol.pull_state import Pulled, PullResult
from pastryd.protocol.transfer import VANISHED_MAX
from pastryd.wire.messages import Message, PathProbe, PathReply, Pull, Segment
from tests.support.transfer_link import Faults, Link

BYTES = Random(5).randbytes(OBJECT_BYTES_MAX)
CONFIG = replace(Config.lan(), datagram_bytes_max=65_000, receive_window_bytes=4 << 20)


def _link(stations: int = 2, proven: bool = True, **faults: float) -> Link:
    return Link(stations, Faults(**faults), 1, CONFIG, proven)


def _pulled(link: Link, results: list[PullResult]) -> bytes:
    link.run(results)
    assert isinstance(results[0], Pulled)
    return bytes(results[0].value)


def _asked(link: Link) -> set[int]:
    return {m.segment_bytes for m in link.stations[0].sent if isinstance(m, Pull)}


@pytest.mark.parametrize(
    ("carries", "segment_bytes"),
    [
        (1_200, 1_118),
        (1_451, 1_118),
        (1_452, 1_370),
        (8_900, 8_818),
        (64_999, 8_818),
        (1e9, 64_918),
    ],
)
@pytest.mark.parametrize("proven", [True, False])
def test_the_longest_segments_that_the_path_carries_are_asked_for_from_the_first_on(
    carries: float, segment_bytes: int, proven: bool
) -> None:
    link = _link(proven=proven, datagram_bytes_max=carries)
    assert _pulled(link, link.pull(link.hold(BYTES, 1), [1], OBJECT_BYTES_MAX)) == BYTES
    assert _asked(link) == {segment_bytes}
    assert link.now < 100.1


def test_on_a_long_path_nothing_waits_for_probes_and_later_items_have_long_segments() -> None:
    link = _link(delay_s=0.04, datagram_bytes_max=1_452)
    link.peer(0, 1).sample_rtt(0.08)
    first = link.pull(link.hold(BYTES, 1), [1], OBJECT_BYTES_MAX)
    link.run_for(0.08 + 0.001)
    assert window_of(link.peer(0, 1)).probing
    assert window_of(link.peer(0, 1)).model.delivered > 0
    assert _pulled(link, first) == BYTES
    assert _asked(link) == {1_118}
    assert _pulled(link, link.pull(link.hold(BYTES[1:], 1), [1], OBJECT_BYTES_MAX - 1)) == BYTES[1:]
    assert _asked(link) == {1_118, 1_370}


@pytest.mark.parametrize("carries", [9_000, 1e9])
def test_short_segments_are_asked_for_as_many_at_once_when_the_path_proves_to_carry_long_ones(
    carries: float,
) -> None:
    link = _link(delay_s=0.04, datagram_bytes_max=carries)
    link.peer(0, 1).sample_rtt(0.08)
    assert _pulled(link, link.pull(link.hold(BYTES, 1), [1], OBJECT_BYTES_MAX)) == BYTES
    assert link.now < 101
    assert _asked(link) == {1_118}
    assert sum(isinstance(m, Pull) for m in link.stations[0].sent) < 300


def test_a_path_is_probed_once_for_all_pulls_and_not_for_small_items() -> None:
    link = _link()
    _pulled(link, link.pull(link.hold(BYTES[:9000], 1), [1], 9000))
    assert not any(isinstance(m, PathProbe) for m in link.stations[0].sent)
    for i in range(5):
        _pulled(link, link.pull(link.hold(BYTES[i:], 1), [1], OBJECT_BYTES_MAX - i))
    probes = [m for m in link.stations[0].sent if isinstance(m, PathProbe)]
    assert len(probes) == 4


def test_lost_probes_cost_speed_and_nothing_else() -> None:
    link = _link()
    link.stations[1].tamper = lambda m: None if isinstance(m, PathReply) else m
    assert _pulled(link, link.pull(link.hold(BYTES, 1), [1], OBJECT_BYTES_MAX)) == BYTES
    assert _asked(link) == {1_118}


def test_long_replies_that_waited_behind_bulk_count_for_the_next_pull() -> None:
    link = _link()
    late: list[PathReply] = []

    def hold_back(message: Message) -> Message | None:
        if not isinstance(message, PathReply) or len(message.padding) < 2_000:
            return message
        late.append(message)
        return None

    link.stations[1].tamper = hold_back
    _pulled(link, link.pull(link.hold(BYTES, 1), [1]))
    assert _asked(link) == {1_370}
    for message in late:
        link.stations[0].transfer.prober.on_reply(message, link.peer(0, 1), link.now)
    _pulled(link, link.pull(link.hold(BYTES[1:], 1), [1]))
    assert _asked(link) == {1_370, 64_918}


def test_a_path_that_becomes_narrow_gets_short_segments_and_keeps_what_came() -> None:
    link = _link(bytes_per_s=1e7)
    _pulled(link, link.pull(link.hold(BYTES[1:], 1), [1]))
    results = link.pull(link.hold(BYTES, 1), [1], OBJECT_BYTES_MAX)
    link.run_for(0.05)
    link.faults.datagram_bytes_max = 1_500
    before = sum(len(m.data) for m in link.stations[1].sent if isinstance(m, Segment))
    assert _pulled(link, results) == BYTES
    assert link.count("path_black_holes") == 1
    assert _asked(link) == {1_118, 64_918}
    sent = sum(
        len(m.data)
        for m in link.stations[1].sent
        if isinstance(m, Segment) and len(m.data) <= 1_118
    )
    assert before > OBJECT_BYTES_MAX and sent < OBJECT_BYTES_MAX - 200_000
    link.run_for(6)
    link.faults.datagram_bytes_max = 9_000
    assert _pulled(link, link.pull(link.hold(BYTES[2:], 1), [1])) == BYTES[2:]
    assert _asked(link) == {1_118, 8_818, 64_918}


def test_a_holder_that_stands_still_for_a_moment_keeps_its_long_segments() -> None:
    link = _link(bytes_per_s=1e9)
    _pulled(link, link.pull(link.hold(BYTES, 1), [1]))
    results = [link.pull(link.hold(BYTES[i:], 1), [1]) for i in range(1, 9)]
    link.stations[1].alive = False
    link.run_for(0.05)
    assert link.count("segments_lost") >= VANISHED_MAX
    link.stations[1].alive = True
    for i, result in enumerate(results, 1):
        assert _pulled(link, result) == BYTES[i:]
    assert link.count("path_black_holes") == 0
    assert _asked(link) == {64_918}


def test_a_holder_behind_a_narrow_path_takes_over_when_it_is_the_last() -> None:
    link = _link(3, bytes_per_s=1e7)
    window_of(link.peer(0, 2)).probe_at = 1e9  # known to be narrow
    name = link.hold(BYTES, 1, 2)
    results = link.pull(name, [1], OBJECT_BYTES_MAX)
    link.run_for(0.05)
    link.stations[0].transfer.add_holder(name, link.peer(0, 2), link.now)
    link.run_for(0.01)
    assert _asked(link) == {64_918}
    link.stations[1].alive = False
    assert _pulled(link, results) == BYTES
    assert _asked(link) == {1_118, 64_918}


def test_who_has_not_proven_its_address_gets_no_long_answers() -> None:
    link = _link(proven=False)
    peer = link.peer(1, 0)
    link.stations[1].transfer.prober.on_probe(PathProbe(7, 64_935), peer, link.now)
    assert [len(data) for data, _ in link.stations[1].context.outbox.datagrams] == [126]
    assert link.count("path_probes_refused", 1) == 1


def test_replies_that_nobody_asked_for_change_nothing() -> None:
    link = _link()
    peer = link.peer(0, 1)
    link.stations[0].transfer.prober.on_reply(PathReply(9, bytes(60_000)), peer, link.now)
    assert window_of(peer).segment_bytes == 0
    assert link.count("path_replies_unexpected") == 1
