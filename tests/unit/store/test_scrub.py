"""The scrubber: everything in turn, at the pace that was set, from where it stopped."""

from hashlib import sha256

import pytest

from pastryd.errors import StoreLostError
from pastryd.ids import Name
from pastryd.protocol.outbox import DeleteItem, WriteItem
from pastryd.store.memory import MemoryStore
from pastryd.store.scrub import (
    ITEM_COST_BYTES,
    ROUND_INTERVAL_S,
    SAVE_INTERVAL_S,
    STEP_BYTES_MAX,
    Scrubber,
)
from tests.conformance.faulty_store import FaultyStore

SIZE = STEP_BYTES_MAX // 4
RATE = 4 * (SIZE + ITEM_COST_BYTES)
"""One full step a second."""


def verify(name: Name, value: memoryview) -> bool:
    return sha256(value).digest() == name


def filled(count: int) -> tuple[FaultyStore, list[Name]]:
    store = FaultyStore(MemoryStore())
    values = [number.to_bytes(4, "big") * (SIZE // 4) for number in range(count)]
    requests = [WriteItem(0, Name(sha256(value).digest()), value) for value in values]
    store.apply(requests)
    return store, sorted(request.name for request in requests)


def run(scrubber: Scrubber, until: float) -> list[tuple[float, list[Name]]]:
    """Step at each deadline up to a time; return when and what was found corrupt."""
    found = []
    while (deadline := scrubber.next_deadline()) is not None and deadline < until:
        corrupt = scrubber.step(deadline)
        if corrupt:
            found.append((deadline, corrupt))
    return found


def test_a_round_takes_as_long_as_the_pace_says() -> None:
    store, _ = filled(40)
    scrubber = Scrubber(store, verify, RATE, now=0.0)
    run(scrubber, until=9.5)
    assert (scrubber.items_checked, scrubber.rounds_finished) == (40, 1)


def test_a_flipped_bit_is_found_in_the_first_round() -> None:
    store, names = filled(20)
    store.flipped_bits[names[13]] = 77
    scrubber = Scrubber(store, verify, RATE, now=0.0)
    [(found_at, corrupt)] = run(scrubber, until=4.9)
    assert corrupt == [names[13]]
    assert found_at == 3.0
    assert scrubber.corrupt_found == 1


def test_what_cannot_be_read_is_counted_and_the_round_goes_on() -> None:
    store, names = filled(20)
    store.lost_names = {names[3], names[4], names[19]}
    store.flipped_bits[names[13]] = 77
    scrubber = Scrubber(store, verify, RATE, now=0.0)
    [(_, corrupt)] = run(scrubber, until=4.9)
    assert corrupt == [names[13]]
    assert (scrubber.damage_found, scrubber.items_checked) == (3, 17)
    assert scrubber.rounds_finished == 1


def test_nothing_happens_before_the_deadline() -> None:
    store, _ = filled(20)
    scrubber = Scrubber(store, verify, RATE, now=0.0)
    assert scrubber.step(0.0) == []
    checked = scrubber.items_checked
    assert scrubber.step(0.99) == []
    assert scrubber.items_checked == checked


def test_time_slept_through_is_not_caught_up_with_a_burst() -> None:
    store, _ = filled(40)
    scrubber = Scrubber(store, verify, RATE, now=0.0)
    scrubber.step(0.0)
    scrubber.step(3600.0)
    assert scrubber.items_checked == 8
    assert scrubber.next_deadline() == 3601.0


def test_a_restart_continues_where_the_last_run_stopped() -> None:
    store, names = filled(20)
    scrubber = Scrubber(store, verify, RATE, now=0.0)
    run(scrubber, until=2.5)
    scrubber.save(now=2.5)
    store.flipped_bits[names[0]] = 0
    store.flipped_bits[names[12]] = 0
    again = Scrubber(store, verify, RATE, now=100.0)
    assert again.step(100.0) == [names[12]]


def test_the_position_is_saved_now_and_then_without_being_asked() -> None:
    store, _ = filled(12)
    scrubber = Scrubber(store, verify, RATE / SAVE_INTERVAL_S, now=0.0)
    scrubber.step(0.0)
    assert store.get_meta("scrub.position") is None
    run(scrubber, until=SAVE_INTERVAL_S * 1.5)
    assert store.get_meta("scrub.position") is not None


def test_a_full_disk_does_not_stop_the_scrubber() -> None:
    store, _ = filled(40)
    store.meta_refused = True
    scrubber = Scrubber(store, verify, RATE / SAVE_INTERVAL_S, now=0.0)
    run(scrubber, until=SAVE_INTERVAL_S * 9.5)
    assert scrubber.rounds_finished == 1


def test_a_store_that_is_lost_does(monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = filled(40)

    def lost(key: str, value: bytes) -> None:
        raise StoreLostError("LMDB has given up; start the node again")

    monkeypatch.setattr(store, "put_meta", lost)
    scrubber = Scrubber(store, verify, RATE / SAVE_INTERVAL_S, now=0.0)
    with pytest.raises(StoreLostError):
        run(scrubber, until=SAVE_INTERVAL_S * 9.5)


def test_items_deleted_or_added_meanwhile_do_no_harm() -> None:
    store, names = filled(20)
    scrubber = Scrubber(store, verify, RATE, now=0.0)
    scrubber.step(0.0)
    store.apply([DeleteItem(0, name) for name in names[2:10]])
    run(scrubber, until=3.5)
    assert (scrubber.items_checked, scrubber.rounds_finished) == (14, 1)


def test_a_small_store_is_walked_over_once_an_interval() -> None:
    store, _ = filled(2)
    scrubber = Scrubber(store, verify, RATE, now=0.0)
    run(scrubber, until=2.5 * ROUND_INTERVAL_S)
    assert (scrubber.items_checked, scrubber.rounds_finished) == (6, 3)
    assert scrubber.next_deadline() == 3 * ROUND_INTERVAL_S


def test_an_empty_store_is_looked_at_now_and_then() -> None:
    scrubber = Scrubber(MemoryStore(), verify, RATE, now=0.0)
    assert scrubber.step(0.0) == []
    assert scrubber.next_deadline() == ROUND_INTERVAL_S


def test_a_pace_of_zero_means_never() -> None:
    store, _ = filled(1)
    scrubber = Scrubber(store, verify, 0, now=0.0)
    assert scrubber.next_deadline() is None
    assert scrubber.step(1e9) == []
    assert scrubber.items_checked == 0
