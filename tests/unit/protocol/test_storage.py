"""Storage: tickets and continuations, joined writes, the cache of objects in transit."""

from dataclasses import replace
from random import Random

import pytest

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.protocol import storage as module
from pastryd.protocol.context import Context
from pastryd.protocol.items import ENTRIES_PER_KEY, IndexEntry, name_of
from pastryd.protocol.outbox import (
    DeleteItem,
    ReadDone,
    ReadItem,
    WriteDone,
    WriteItem,
    WriteStatus,
)
from pastryd.protocol.storage import Storage
from pastryd.state.handle import Handle
from pastryd.store.memory import MemoryStore


class Disk:
    """Serves the outbox from a memory store, at once or when told."""

    def __init__(self, cache_bytes: int = 1000, capacity: int = 1 << 20) -> None:
        config = replace(Config(), cache_bytes=cache_bytes)
        self.context = Context(Handle(bytes(32), "127.0.0.1", 1, 1), config, Random(1))
        self.storage = Storage(self.context)
        self.store = MemoryStore(capacity)
        self.requests: list[object] = []
        self.fails = 0
        """So many of the next writes and deletes fail."""

    def drain(self) -> None:
        store_requests = self.context.outbox.store
        while store_requests:
            request = store_requests.pop(0)
            self.requests.append(request)
            if isinstance(request, ReadItem):
                self.store.read(
                    request.name,
                    request.offset,
                    request.length,
                    lambda data, size, ticket=request.ticket: self.storage.store_completed(
                        ReadDone(ticket, data, size), 0.0
                    ),
                )
            else:
                assert isinstance(request, WriteItem | DeleteItem)
                status = WriteStatus.FAILED
                if self.fails:
                    self.fails -= 1
                else:
                    (status,) = self.store.apply([request])
                self.storage.store_completed(WriteDone(request.ticket, status), 0.0)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def put(disk: Disk, value: bytes, name: Name | None = None) -> list[WriteStatus]:
    statuses: list[WriteStatus] = []
    name = name or name_of(value)
    disk.storage.write(name, value, lambda status, now: statuses.append(status), 0.0)
    return statuses


def get(disk: Disk, name: Name, offset: int = 0, length: int = -1) -> tuple[bytes | None, int]:
    found: list[tuple[bytes | None, int]] = []
    disk.storage.read(
        name,
        offset,
        length,
        lambda data, size, now: found.append((None if data is None else bytes(data), size)),
        0.0,
    )
    disk.drain()
    (result,) = found
    return result


def test_an_item_is_held_only_once_it_is_durable(disk):
    statuses = put(disk, b"abc")
    assert not disk.storage.holds(name_of(b"abc"))
    assert not statuses
    disk.drain()
    assert statuses == [WriteStatus.OK]
    assert disk.storage.holds(name_of(b"abc"))
    assert get(disk, name_of(b"abc")) == (b"abc", 3)
    assert get(disk, name_of(b"abc"), 1, 1) == (b"b", 3)
    assert disk.storage.inventory.bytes_held == 3


def test_equal_writes_at_one_time_cost_one_request(disk):
    first, second = put(disk, b"abc"), put(disk, b"abc")
    disk.drain()
    assert first == second == [WriteStatus.OK]
    third = put(disk, b"abc")
    assert third == [WriteStatus.OK]
    assert len(disk.requests) == 1


def test_a_full_disk_refuses_and_the_item_is_not_held():
    disk = Disk(capacity=10)
    statuses = put(disk, b"x" * 100)
    disk.drain()
    assert statuses == [WriteStatus.FULL]
    assert not disk.storage.holds(name_of(b"x" * 100))
    assert disk.context.stats.counters["writes_full"] == 1


def test_more_writes_than_may_wait_are_refused_as_such(disk, monkeypatch):
    monkeypatch.setattr(module, "WRITES_MAX", 1)
    monkeypatch.setattr(module, "JOINED_MAX", 2)
    statuses = [put(disk, value) for value in (b"a", b"a", b"a", b"b")]
    assert statuses == [[], [], [WriteStatus.BUSY], [WriteStatus.BUSY]]
    disk.drain()
    assert put(disk, b"b") == []


def test_what_is_not_here_reads_as_none_without_asking_the_disk(disk):
    assert get(disk, name_of(b"nothing")) == (None, 0)
    assert not disk.requests


def test_a_deleted_item_is_not_claimed_from_that_moment_on(disk):
    put(disk, b"abc")
    disk.drain()
    statuses = []
    disk.storage.delete(name_of(b"abc"), lambda status, now: statuses.append(status), 0.0)
    assert not disk.storage.holds(name_of(b"abc"))
    disk.drain()
    assert statuses == [WriteStatus.OK]
    assert disk.storage.inventory.bytes_held == 0
    assert disk.store.item_count == 0


def test_a_write_during_a_delete_wins(disk):
    put(disk, b"abc")
    disk.drain()
    disk.storage.delete(name_of(b"abc"), lambda status, now: None, 0.0)
    statuses = put(disk, b"abc")
    disk.drain()
    assert statuses == [WriteStatus.OK]
    assert disk.storage.holds(name_of(b"abc"))
    assert disk.store.item_count == 1
    assert disk.storage.inventory.bytes_held == 3


@pytest.mark.parametrize("at_once", [False, True])
def test_a_key_has_a_bounded_number_of_index_entries(disk, at_once):
    key = name_of(b"blob")
    entries = [IndexEntry(key, name_of(b"%d" % i), 2 << 20) for i in range(ENTRIES_PER_KEY + 1)]
    results = []
    for entry in entries:
        results.append(put(disk, entry.encode(), entry.name))
        if not at_once:
            disk.drain()
    disk.drain()
    assert [r[0] for r in results] == [WriteStatus.OK] * ENTRIES_PER_KEY + [WriteStatus.TOO_MANY]
    assert sorted(disk.storage.records_at(key)) == sorted(e.name for e in entries[:-1])


def test_the_cache_is_bounded_and_evicts_the_least_recently_used(disk):
    values = [bytes([i]) * 300 for i in range(5)]
    names = [name_of(v) for v in values]
    for name, value in zip(names[:3], values[:3], strict=True):
        disk.storage.keep(name, value)
    assert disk.storage.cached(names[0]) == values[0]
    disk.storage.keep(names[3], values[3])
    assert disk.storage.cached(names[1]) is None
    assert disk.storage.cached(names[0]) == values[0]
    assert disk.storage.cache_bytes <= 1000
    assert get(disk, names[0], 10, 5) == (values[0][10:15], 300)


def test_what_is_pinned_is_not_evicted(disk):
    values = [bytes([i]) * 600 for i in range(3)]
    names = [name_of(v) for v in values]
    disk.storage.pin(names[0], values[0])
    disk.storage.pin(names[0], values[0])
    disk.storage.keep(names[1], values[1])
    assert disk.storage.cached(names[0]) is not None
    disk.storage.unpin(names[0])
    disk.storage.keep(names[2], values[2])
    assert disk.storage.cached(names[0]) is not None
    disk.storage.unpin(names[0])
    assert disk.storage.cache_bytes <= 1000


def test_a_bad_copy_is_forgotten_and_can_be_written_again(disk):
    name = name_of(b"good")
    put(disk, b"bad!", name)
    disk.drain()
    disk.storage.forget(name, 0.0)
    disk.drain()
    assert not disk.storage.holds(name)
    put(disk, b"good", name)
    disk.drain()
    assert get(disk, name) == (b"good", 4)


def spoil(disk: Disk, value: bytes) -> Name:
    """Let the disk spoil an item that is held."""
    name = name_of(value)
    put(disk, value)
    disk.drain()
    disk.store.apply([DeleteItem(0, name), WriteItem(0, name, b"spoilt")])
    return name


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_a_bad_copy_that_could_not_be_deleted_is_not_taken_for_the_good_one(
    disk: Disk, fails: int
) -> None:
    name = spoil(disk, b"good")
    disk.fails = fails
    disk.storage.forget(name, 0.0)
    disk.drain()
    for _ in range(3):
        put(disk, b"good")
        disk.drain()
    assert get(disk, name) == (b"good", 4)
    assert not disk.storage._spoiled


def test_a_write_in_the_step_that_forgets_a_bad_copy_takes_its_place(disk: Disk) -> None:
    name = spoil(disk, b"good")
    disk.storage.forget(name, 0.0)
    statuses = put(disk, b"good")
    disk.drain()
    assert statuses == [WriteStatus.OK]
    assert get(disk, name) == (b"good", 4)
    assert not disk.storage._spoiled


def test_a_write_in_that_step_claims_nothing_if_the_bad_copy_stays(disk: Disk) -> None:
    name = spoil(disk, b"good")
    disk.fails = 1
    disk.storage.forget(name, 0.0)
    statuses = put(disk, b"good")
    disk.drain()
    assert statuses == [WriteStatus.FAILED]
    assert not disk.storage.holds(name)


def test_what_the_disk_does_not_give_back_is_not_claimed_any_more(disk: Disk) -> None:
    put(disk, b"abc")
    disk.drain()
    disk.store.apply([DeleteItem(0, name_of(b"abc"))])
    assert get(disk, name_of(b"abc")) == (None, 0)
    assert not disk.storage.holds(name_of(b"abc"))
    assert disk.context.stats.counters["bad_copies_dropped"] == 1


def test_what_the_disk_does_not_give_back_is_not_counted_twice_when_it_comes_again(
    disk: Disk,
) -> None:
    put(disk, b"abc")
    put(disk, b"de")
    disk.drain()
    disk.store.apply([DeleteItem(0, name_of(b"abc"))])
    assert get(disk, name_of(b"abc")) == (None, 0)
    put(disk, b"abc")
    disk.drain()
    assert disk.storage.inventory.bytes_held == 5
