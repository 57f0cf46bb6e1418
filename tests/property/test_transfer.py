"""Under any loss, duplication, reordering and delay a transfer ends: in the exact bytes, or typed.

`Link` checks every machine's invariants after every step: never more on its way than the windows
allow, every segment in one place, nothing forgotten (DESIGN sec. 7, TESTING.md).
"""

from dataclasses import replace
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pastryd.config import OBJECT_BYTES_MAX, Config
from pastryd.protocol.pull_state import (
    AbsentEverywhere,
    Pulled,
    PullResult,
    TimedOut,
    Unreachable,
)
from pastryd.wire.messages import Absent, Message, Pull, Segment
from tests.support.transfer_link import Faults, Link

BYTES = Random(7).randbytes(OBJECT_BYTES_MAX)
SIZES = st.one_of(
    st.sampled_from([0, 1, 1117, 1118, 1119, 53_664, 53_665, OBJECT_BYTES_MAX]),
    st.integers(0, 300_000),
)
FAULTS = st.builds(
    Faults,
    delay_s=st.sampled_from([0.0, 0.0001, 0.005, 0.08]),
    jitter_s=st.sampled_from([0.0, 0.0005, 0.02]),
    loss=st.sampled_from([0.0, 0.01, 0.05, 0.3]),
    duplication=st.sampled_from([0.0, 0.1]),
    bytes_per_s=st.sampled_from([0.0, 2e6, 2e7]),
    queue_bytes=st.sampled_from([5_000.0, 20_000.0, 1e9]),
    datagram_bytes_max=st.sampled_from([1_200.0, 1_452.0, 9_000.0, 1e9]),
    trains=st.booleans(),
)
"""A datagram that finds the queue empty passes, even one that is longer than the queue."""
CONFIGS = st.sampled_from(
    [
        Config.lan(),
        replace(Config.lan(), datagram_bytes_max=65_000, receive_window_bytes=2 << 20),
    ]
)
"""Paths are probed for longer datagrams, or not."""
HOLDERS = st.sampled_from([[1], [2], [1, 2], [2, 1]])
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_ended(results: list[PullResult], value: bytes) -> None:
    assert len(results) == 1
    match results[0]:
        case Pulled(data):
            assert bytes(data) == value
        case AbsentEverywhere() | Unreachable() | TimedOut():
            pass


def assert_quiet(link: Link) -> None:
    """Nothing stays behind: no room taken, no timer armed."""
    link.run_for(30)
    assert link.stations[0].transfer.outstanding_bytes == 0
    assert all(not len(s.context.deadlines) for s in link.stations)


@SETTINGS
@given(SIZES, FAULTS, st.integers(1, 2), st.integers(0, 2**32), st.booleans(), CONFIGS)
def test_the_exact_bytes_arrive_from_honest_holders_whatever_the_link_does(
    size: int, faults: Faults, holders: int, seed: int, known: bool, config: Config
) -> None:
    link = Link(1 + holders, faults, seed, config)
    value = BYTES[:size]
    name = link.hold(value, *range(1, 1 + holders))
    results = link.pull(name, list(range(1, 1 + holders)), size if known else None, deadline_s=120)
    link.run(results, 130)
    assert_ended(results, value)
    # Seven requests in a row lost in both directions is as good as unreachable; at 5 % it is not.
    assert isinstance(results[0], Pulled) or faults.loss > 0.05
    assert_quiet(link)


@SETTINGS
@given(
    st.lists(
        st.tuples(SIZES, st.booleans(), st.sampled_from([[1], [2], [1, 2], [2, 1]])), max_size=6
    ),
    FAULTS,
    st.integers(2_500, 200_000),
    st.integers(0, 2**32),
)
def test_many_pulls_share_any_receive_window_and_all_end(
    pulls: list[tuple[int, bool, list[int]]], faults: Faults, window: int, seed: int
) -> None:
    config = replace(Config.lan(), receive_window_bytes=window)
    link = Link(3, faults, seed, config)
    ended = []
    for i, (size, background, holders) in enumerate(pulls):
        value = BYTES[i : i + size]
        ended.append((link.pull(link.hold(value, 1, 2), holders, None, background, 60), value))
        link.run_for(link.rng.random() * 0.05)
    for results, value in ended:
        link.run(results, 70)
        assert_ended(results, value)
    assert link.outstanding_most <= window
    assert_quiet(link)


@st.composite
def misbehaviour(draw: st.DrawFn):
    """Something that a holder does to what it sends, now and then."""
    kind = draw(st.sampled_from(["honest", "hung", "zeros", "size", "length", "index", "absent"]))
    often = draw(st.sampled_from([1.0, 0.5, 0.05]))
    rng = Random(draw(st.integers(0, 2**32)))

    def tamper(message: Message) -> Message | None:
        if not isinstance(message, Segment) or kind == "honest" or rng.random() > often:
            return message
        match kind:
            case "hung":
                return None
            case "zeros":
                return message._replace(data=bytes(len(message.data)))
            case "size":
                return message._replace(size=rng.choice([0, 1, message.size + 1, 2**32 - 1]))
            case "length":
                return message._replace(data=bytes(rng.randrange(1119)))
            case "index":
                return message._replace(index=rng.choice([0, message.index + 1, 2**32 - 1]))
            case _:
                return Absent(message.nonce, rng.choice([bytes(32), link_name[0]]))

    link_name: list = [bytes(32)]
    tamper.link_name = link_name  # type: ignore[attr-defined]
    return tamper


@SETTINGS
@given(
    st.integers(0, 200_000),
    FAULTS,
    st.lists(misbehaviour(), min_size=2, max_size=2),
    st.integers(0, 3),
    st.integers(0, 2**32),
)
def test_one_honest_holder_among_liars_is_enough(
    size: int, faults: Faults, tampers: list, honest: int, seed: int
) -> None:
    faults.loss = min(faults.loss, 0.01)
    link = Link(4, faults, seed)
    value = BYTES[:size]
    name = link.hold(value, 1, 2, 3)
    for station, tamper in zip(link.stations[1:], tampers, strict=False):
        tamper.link_name[0] = name
        station.tamper = tamper
    order = [1, 2, 3][honest % 3 :] + [1, 2, 3][: honest % 3]
    results = link.pull(name, order, deadline_s=120)
    link.run(results, 130)
    assert_ended(results, value)
    assert isinstance(results[0], Pulled)
    assert link.peer(0, 3) not in results[0].corrupt
    assert_quiet(link)


@SETTINGS
@given(SIZES, FAULTS, st.lists(st.floats(0, 2), min_size=2, max_size=8), st.integers(0, 2**32))
def test_holders_that_stop_and_continue_delay_a_pull_but_do_not_break_it(
    size: int, faults: Faults, switches: list[float], seed: int
) -> None:
    link = Link(3, faults, seed)
    value = BYTES[:size]
    results = link.pull(link.hold(value, 1, 2), [1, 2], deadline_s=60)
    for i, pause in enumerate(switches):
        station = link.stations[1 + i % 2]
        station.alive = not station.alive
        link.run_for(pause)
    for station in link.stations:
        station.alive = True
    link.run(results, 70)
    assert_ended(results, value)
    assert_quiet(link)


@SETTINGS
@given(
    st.lists(
        st.builds(
            Segment,
            st.sampled_from([0, 1, 2]),
            st.integers(0, 2**32 - 1) | st.integers(0, 64),
            st.integers(0, 2**32 - 1) | st.sampled_from([0, 5000, OBJECT_BYTES_MAX]),
            st.integers(0, 1200).map(bytes),
        ),
        max_size=40,
    )
)
def test_no_segment_that_decodes_can_break_a_pull(segments: list[Segment]) -> None:
    link = Link(3, Faults(delay_s=0.05))
    value = BYTES[:100_000]
    results = link.pull(link.hold(value, 1, 2), [1, 2])
    for segment in segments:
        asked = [m.nonce for m in link.stations[0].sent if isinstance(m, Pull)]
        forged = segment._replace(nonce=asked[segment.nonce % len(asked)])
        for number in (1, 2):
            link.stations[0].transfer.on_segment(forged, link.peer(0, number), link.now)
            link.flush()
        link.run_for(0.003)
    link.run(results)
    assert_ended(results, value)
