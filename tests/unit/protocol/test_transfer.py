"""Named situations of a transfer (DESIGN sec. 7); `tests/property` has the arbitrary ones."""

from random import Random

import pytest

from pastryd.config import OBJECT_BYTES_MAX, Config
from pastryd.ids import Name
from pastryd.protocol.pull_state import AbsentEverywhere, Pulled, TimedOut, Unreachable
from pastryd.state.peers import Liveness
from pastryd.wire.messages import Message, Pull, Segment
from tests.support.transfer_link import Faults, Link

ONE_MIB = Random(1).randbytes(OBJECT_BYTES_MAX)
SMALL = b"a small item"


def value_of(results: list) -> bytes:
    assert len(results) == 1
    assert isinstance(results[0], Pulled), results
    return bytes(results[0].value)


@pytest.mark.parametrize("size", [0, 1, 1117, 1118, 1119, 2236, 50_000, OBJECT_BYTES_MAX])
@pytest.mark.parametrize("known", [True, False])
def test_any_size_arrives_whole_whether_or_not_it_was_known(size: int, known: bool) -> None:
    link = Link()
    value = ONE_MIB[:size]
    name = link.hold(value, 1)
    results = link.pull(name, [1], size if known else None)
    link.run(results)
    assert value_of(results) == value
    assert not link.stations[0].transfer.is_pulling(name)
    assert link.stations[0].transfer.outstanding_bytes == 0
    assert link.count("segments_lost") == 0


def test_a_zero_byte_item_costs_one_round_trip() -> None:
    link = Link()
    results = link.pull(link.hold(b"", 1), [1])
    assert link.run(results) == pytest.approx(0.002)
    assert value_of(results) == b""


@pytest.mark.parametrize("hint", [0, 10, 5000, OBJECT_BYTES_MAX])
def test_a_wrong_size_hint_is_corrected_by_the_first_segment(hint: int) -> None:
    link = Link()
    value = ONE_MIB[:3000]
    results = link.pull(link.hold(value, 1), [1], hint)
    link.run(results)
    assert value_of(results) == value


def test_a_lossless_path_is_not_asked_for_anything_twice() -> None:
    link = Link(faults=Faults(delay_s=0.01))
    results = link.pull(link.hold(ONE_MIB, 1), [1], len(ONE_MIB))
    link.run(results)
    asked = sum(m.mask.bit_count() for m in link.stations[0].sent if isinstance(m, Pull))
    assert asked == 938
    assert link.count("segments_unasked") == link.count("segments_unknown") == 0


def test_absent_everywhere_is_said_when_every_holder_said_so() -> None:
    link = Link(3)
    results = link.pull(Name(bytes(32)), [1, 2])
    link.run(results)
    assert results == [AbsentEverywhere(())]


def test_absent_at_one_holder_and_present_at_the_other_is_found() -> None:
    link = Link(3)
    results = link.pull(link.hold(ONE_MIB, 2), [1, 2])
    link.run(results)
    assert value_of(results) == ONE_MIB


def test_a_pull_without_holders_ends_in_a_later_step() -> None:
    link = Link()
    results = link.pull(Name(bytes(32)), [])
    assert results == []
    link.run(results)
    assert results == [AbsentEverywhere(())]


def test_a_hung_holder_costs_one_timeout_while_another_lives() -> None:
    link = Link(3)
    name = link.hold(ONE_MIB, 1, 2)
    link.stations[1].alive = False
    results = link.pull(name, [1, 2])
    assert link.run(results) < 2 * link.config.rto_initial_s
    assert value_of(results) == ONE_MIB


def test_a_holder_known_to_be_silent_is_not_asked_again_at_once() -> None:
    link = Link(3)
    first, second = link.hold(ONE_MIB, 1, 2), link.hold(SMALL, 1, 2)
    link.stations[1].alive = False
    link.run(link.pull(first, [1, 2]))
    results = link.pull(second, [1, 2])
    assert link.run(results) < 0.01
    assert value_of(results) == SMALL


def test_a_suspected_holder_is_asked_only_when_nobody_else_is_there() -> None:
    link = Link(3)
    name = link.hold(ONE_MIB, 1, 2)
    link.peer(0, 1).liveness = Liveness.SUSPECT
    link.run(link.pull(name, [1, 2]))
    assert not link.stations[1].sent
    results = link.pull(name, [1])
    link.run(results)
    assert value_of(results) == ONE_MIB


def test_a_holder_dying_in_flight_does_not_stall_the_pull() -> None:
    link = Link(3, Faults(delay_s=0.005))
    name = link.hold(ONE_MIB, 1, 2)
    results = link.pull(name, [1, 2])
    link.run_for(0.05)
    assert not results
    link.stations[1].alive = False
    assert link.run(results) < 0.4
    assert value_of(results) == ONE_MIB
    asked = sum(m.mask.bit_count() for m in link.stations[0].sent if isinstance(m, Pull))
    assert asked < 938 + 2 * 80  # what was under way; resumed, not begun anew


def test_a_pull_resumes_when_its_only_holder_comes_back() -> None:
    link = Link(2, Faults(delay_s=0.005))
    results = link.pull(link.hold(ONE_MIB, 1), [1])
    link.run_for(0.05)
    link.stations[1].alive = False
    link.run_for(0.3)
    link.stations[1].alive = True
    assert link.run(results) < 1.5
    assert value_of(results) == ONE_MIB
    segments = sum(isinstance(m, Segment) for m in link.stations[1].sent)
    assert segments < 938 + 50


def test_a_holder_that_never_answers_is_unreachable_before_the_deadline() -> None:
    link = Link()
    link.stations[1].alive = False
    results = link.pull(Name(bytes(32)), [1], deadline_s=60)
    link.run(results)
    assert isinstance(results[0], Unreachable)
    assert 1 < results[0].after_s < 10


def test_a_dead_holder_is_given_up_at_its_first_silence() -> None:
    link = Link()
    link.stations[1].alive = False
    link.peer(0, 1).liveness = Liveness.DEAD
    results = link.pull(Name(bytes(32)), [1])
    assert link.run(results) < 0.2
    assert isinstance(results[0], Unreachable)


def test_the_deadline_ends_a_pull_that_is_merely_slow() -> None:
    link = Link(faults=Faults(bytes_per_s=50_000))
    results = link.pull(link.hold(ONE_MIB, 1), [1], deadline_s=2)
    link.run(results)
    assert results == [TimedOut(pytest.approx(2), ())]
    assert link.stations[0].transfer.outstanding_bytes == 0


def test_another_holder_can_be_named_while_pulling() -> None:
    link = Link(3)
    name = link.hold(ONE_MIB, 2)
    link.stations[1].alive = False
    results = link.pull(name, [1])
    link.stations[0].transfer.add_holder(name, link.peer(0, 2), link.now)
    link.flush()
    assert link.run(results) < 0.3
    assert value_of(results) == ONE_MIB


def corrupting(message: Message) -> Message:
    if isinstance(message, Segment) and message.data:
        return message._replace(data=bytes(len(message.data)))
    return message


def test_the_only_holder_being_corrupt_is_reported_not_delivered() -> None:
    link = Link()
    link.stations[1].tamper = corrupting
    results = link.pull(link.hold(ONE_MIB, 1), [1])
    link.run(results)
    assert results == [AbsentEverywhere((link.peer(0, 1),))]


@pytest.mark.parametrize("liar", [1, 2, 3])
def test_a_corrupt_holder_among_three_is_found_and_named(liar: int) -> None:
    link = Link(4, Faults(delay_s=0.003, jitter_s=0.002))
    name = link.hold(ONE_MIB, 1, 2, 3)
    link.stations[liar].tamper = corrupting
    results = link.pull(name, [1, 2, 3])
    link.run(results)
    assert value_of(results) == ONE_MIB
    assert results[0].corrupt == (link.peer(0, liar),)


def test_two_corrupt_holders_of_three_do_not_hide_the_honest_one() -> None:
    link = Link(4)
    name = link.hold(ONE_MIB, 1, 2, 3)
    link.stations[1].tamper = link.stations[2].tamper = corrupting
    results = link.pull(name, [1, 2, 3])
    link.run(results)
    assert value_of(results) == ONE_MIB
    assert set(results[0].corrupt) == {link.peer(0, 1), link.peer(0, 2)}


def lying_size(size: int):
    def tamper(message: Message) -> Message:
        return message._replace(size=size) if isinstance(message, Segment) else message

    return tamper


@pytest.mark.parametrize("size", [0, 1, 2236, OBJECT_BYTES_MAX, OBJECT_BYTES_MAX + 1, 2**32 - 1])
def test_a_holder_lying_about_the_size_neither_wins_nor_costs_memory(size: int) -> None:
    link = Link(3)
    value = ONE_MIB[:100_000]
    name = link.hold(value, 1, 2)
    link.stations[1].tamper = lying_size(size)
    results = link.pull(name, [1, 2])
    assert link.run(results) < 5
    assert value_of(results) == value


def test_a_size_that_changes_between_segments_convicts_the_holder() -> None:
    link = Link(3)
    value = ONE_MIB[:100_000]
    name = link.hold(value, 1, 2)
    sizes = iter(range(100_000, 90_000, -10))

    def tamper(message: Message) -> Message:
        return message._replace(size=next(sizes)) if isinstance(message, Segment) else message

    link.stations[1].tamper = tamper
    results = link.pull(name, [1, 2])
    link.run(results)
    assert value_of(results) == value
    assert results[0].corrupt == (link.peer(0, 1),)


def test_segments_of_wrong_length_convict_the_holder() -> None:
    link = Link(3)
    name = link.hold(ONE_MIB, 1, 2)

    def tamper(message: Message) -> Message:
        return message._replace(data=b"") if isinstance(message, Segment) else message

    link.stations[1].tamper = tamper
    results = link.pull(name, [1, 2])
    link.run(results)
    assert value_of(results) == ONE_MIB
    assert results[0].corrupt == (link.peer(0, 1),)
    assert link.count("segments_wrong_length") == 1


def test_joined_pulls_are_one_transfer() -> None:
    link = Link()
    name = link.hold(ONE_MIB, 1)
    results = [link.pull(name, [1], background=i < 2) for i in range(4)]
    link.run(results[-1])
    assert [value_of(r) for r in results] == [ONE_MIB] * 4
    assert sum(isinstance(m, Segment) for m in link.stations[1].sent) == 938


def test_each_joined_caller_has_its_own_deadline_and_can_leave_alone() -> None:
    link = Link(faults=Faults(bytes_per_s=500_000))
    name = link.hold(ONE_MIB, 1)
    hasty, patient = link.pull(name, [1], deadline_s=0.5), link.pull(name, [1])

    def never(*_: object) -> None:
        raise AssertionError("cancelled")

    transfer = link.stations[0].transfer
    transfer.pull(name, None, [], never, link.now)
    transfer.cancel(name, link.now, never)
    link.run(patient)
    assert isinstance(hasty[0], TimedOut)
    assert value_of(patient) == ONE_MIB


def test_a_cancelled_pull_leaves_nothing_behind() -> None:
    link = Link()
    name = link.hold(ONE_MIB, 1)
    results = link.pull(name, [1])
    link.run_for(0.003)
    link.stations[0].transfer.cancel(name, link.now)
    link.flush()
    assert link.stations[0].transfer.outstanding_bytes == 0
    link.run_for(1)
    assert not results
    assert not len(link.stations[0].context.deadlines)
    assert link.count("segments_unknown") > 0


def test_foreground_takes_the_window_and_background_at_most_half() -> None:
    link = Link(3, Faults(delay_s=0.02))
    limit = link.config.receive_window_bytes
    behind = link.pull(link.hold(ONE_MIB, 1), [1], background=True)
    link.run_for(0.3)
    assert not behind
    assert 0 < link.outstanding_most <= limit // 2
    ahead = link.pull(link.hold(ONE_MIB[1:], 2), [2])
    alone_s = 0.5
    assert link.run(ahead) < 2 * alone_s
    link.run(behind)
    assert value_of(behind) == ONE_MIB
    assert link.outstanding_most <= limit


def test_a_small_pull_is_not_starved_by_bulk_on_a_long_path() -> None:
    link = Link(3)
    link.stations[1].extra_delay_s = 0.2
    bulk = [link.pull(link.hold(ONE_MIB[i:], 1), [1]) for i in range(6)]
    link.run_for(1.5)
    assert not any(bulk)
    small = link.pull(link.hold(SMALL, 2), [2])
    assert link.run(small) < 0.01


def test_an_unproven_asker_gets_a_few_segments_until_its_address_is_proven() -> None:
    link = Link(proven=False)
    results = link.pull(link.hold(ONE_MIB, 1), [1])
    sent = link.stations[1].sent
    while not sent:
        link.step()
    assert len(sent) <= 4
    unproven = link.peer(1, 0).unproven
    assert unproven is not None and len(unproven.held) <= 3
    link.run(results)
    assert value_of(results) == ONE_MIB
    assert link.count("segments_unproven", 1) > 0


@pytest.mark.parametrize(
    ("segment_bytes", "first", "mask"),
    [(255, 0, 1), (0, 0, 1), (1119, 0, 1), (65_535, 0, 1), (1118, 2**32 - 1, 1), (1118, 0, 0)],
)
def test_malformed_pulls_are_counted_and_cause_nothing(
    segment_bytes: int, first: int, mask: int
) -> None:
    link = Link()
    name = link.hold(ONE_MIB, 1)
    pull = Pull(7, name, segment_bytes, first, mask)
    link.stations[1].transfer.on_pull(pull, link.peer(1, 0), link.now)
    assert link.stations[1].context.outbox.datagrams == []
    assert link.count("pulls_malformed", 1) == 1


def test_one_pull_causes_at_most_64_segments_all_inside_the_item() -> None:
    link = Link()
    name = link.hold(ONE_MIB, 1)
    transfer, outbox = link.stations[1].transfer, link.stations[1].context.outbox
    transfer.on_pull(Pull(7, name, 1118, 0, 2**64 - 1), link.peer(1, 0), link.now)
    assert len(outbox.datagrams) == 64
    outbox.datagrams.clear()
    transfer.on_pull(Pull(7, name, 1118, 930, 2**64 - 1), link.peer(1, 0), link.now)
    assert len(outbox.datagrams) == 8


def test_segments_nobody_asked_for_are_counted_and_dropped() -> None:
    link = Link(3)
    name = link.hold(ONE_MIB, 1)
    link.pull(name, [1])
    (asked,) = [m for m in link.stations[0].sent if isinstance(m, Pull)]
    transfer = link.stations[0].transfer
    honest = Segment(asked.nonce, 0, len(ONE_MIB), ONE_MIB[:1118])
    transfer.on_segment(honest._replace(nonce=asked.nonce + 1), link.peer(0, 1), link.now)
    transfer.on_segment(honest, link.peer(0, 2), link.now)
    assert link.count("segments_unknown") == 2
    transfer.on_segment(honest._replace(index=60), link.peer(0, 1), link.now)
    transfer.on_segment(honest, link.peer(0, 1), link.now)
    transfer.on_segment(honest, link.peer(0, 1), link.now)
    assert link.count("segments_unasked") == 2
    transfer.check_invariants()


def test_answers_later_than_the_timeout_are_used_not_asked_for_forever() -> None:
    link = Link(faults=Faults(delay_s=0.3), config=Config.lan())
    results = link.pull(link.hold(ONE_MIB[:100_000], 1), [1])
    assert link.run(results) < 6
    assert value_of(results) == ONE_MIB[:100_000]
    assert link.count("segments_late") > 0


def test_a_slow_store_is_not_taken_for_a_lossy_path() -> None:
    link = Link()
    link.stations[1].read_delay_s = 0.6 * link.config.rto_initial_s
    results = link.pull(link.hold(ONE_MIB, 1), [1])
    link.run(results)
    assert value_of(results) == ONE_MIB
    assert link.count("segments_lost") == 0


def test_only_requests_into_an_empty_pipe_measure_the_path() -> None:
    link = Link(faults=Faults(delay_s=0.02, bytes_per_s=1_000_000))
    results = link.pull(link.hold(ONE_MIB, 1), [1])
    link.run(results)
    srtt = link.peer(0, 1).srtt_s
    assert srtt is not None and srtt == pytest.approx(0.042, abs=0.005)


def test_a_lost_tail_is_recovered_within_about_one_timeout() -> None:
    link = Link()
    link.run(link.pull(link.hold(SMALL, 1), [1]))
    lost = iter([True])

    def tamper(message: Message) -> Message | None:
        last = isinstance(message, Segment) and message.index == 9
        return None if last and next(lost, False) else message

    link.stations[1].tamper = tamper
    results = link.pull(link.hold(ONE_MIB[:11_000], 1), [1])
    assert link.run(results) < 1.5 * link.peer(0, 1).rto_s


def test_a_lost_request_is_repeated_as_soon_as_a_later_one_is_answered() -> None:
    link = Link(faults=Faults(delay_s=0.01))
    asked: list[Message] = []

    def tamper(message: Message) -> Message | None:
        asked.append(message)
        return None if len(asked) == 6 else message

    link.stations[0].tamper = tamper
    results = link.pull(link.hold(ONE_MIB, 1), [1])
    elapsed = link.run(results)
    assert value_of(results) == ONE_MIB
    assert elapsed < 0.45
