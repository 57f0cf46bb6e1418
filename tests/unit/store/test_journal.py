"""The journal: what was appended comes back, what was torn or is void does not."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from pastryd.errors import StoreError
from pastryd.ids import Name
from pastryd.protocol.outbox import DeleteItem, WriteItem, WriteStatus
from pastryd.store.journal import GENERATION_BYTES, JOURNAL_BYTES, Journal
from pastryd.store.lmdb_store import LmdbStore

MIB = 1 << 20
OK = WriteStatus.OK
GENERATION = b"g" * GENERATION_BYTES


def name_of(number: int) -> Name:
    return Name(number.to_bytes(32, "big"))


def write(number: int, size: int = 100) -> WriteItem:
    return WriteItem(number, name_of(number), bytes([number % 256]) * size)


def fail(error: int) -> NoReturn:
    raise OSError(error, os.strerror(error))


def replayed(path: Path, generation: bytes = GENERATION) -> dict[Name, bytes]:
    journal = Journal(path, generation)
    items = journal.replay()
    journal.close()
    return items


def items_of(store: LmdbStore) -> dict[Name, bytes]:
    items: dict[Name, bytes] = {}
    for name in store.names():

        def receive(data: memoryview | None, size: int, name: Name = name) -> None:
            assert data is not None
            items[name] = bytes(data)

        store.read(name, 0, -1, receive)
    return items


def test_what_was_appended_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    assert journal.replay() == {}
    assert journal.append([write(1), write(2, 0)])
    assert journal.append([WriteItem(3, name_of(3), memoryview(bytearray(b"abc")))])
    journal.close()
    assert replayed(path) == {name_of(1): b"\1" * 100, name_of(2): b"", name_of(3): b"abc"}


def test_appending_goes_on_behind_what_was_replayed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for number in range(5):
        journal = Journal(path, GENERATION)
        assert len(journal.replay()) == number
        journal.append([write(number)])
        journal.close()
    assert len(replayed(path)) == 5


def test_a_new_generation_voids_all_that_came_before(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    for number in range(5):
        journal.append([write(number)])
    other = b"h" * GENERATION_BYTES
    journal.start_over(other)
    journal.append([write(7)])
    journal.close()
    assert list(replayed(path, other)) == [name_of(7)]
    assert list(replayed(path, b"i" * GENERATION_BYTES)) == []


def test_a_record_torn_at_any_byte_takes_nothing_before_it_along(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    journal.append([write(1, 20)])
    before = path.read_bytes()
    journal.append([write(2, 20), write(3, 20)])
    journal.close()
    after = path.read_bytes()
    changed = [at for at in range(len(after)) if after[at] != before[at]]
    for at in range(changed[0], changed[-1] + 1):
        path.write_bytes(after[:at] + before[at:])
        assert list(replayed(path)) == [name_of(1)], at
        spoilt = bytearray(after)
        spoilt[at] ^= 1
        path.write_bytes(spoilt)
        assert list(replayed(path)) == [name_of(1)], at


class Killed(BaseException):
    """The process ends here."""


def killed(*_: object) -> None:
    raise Killed


def test_what_was_written_and_not_synced_is_durable_before_it_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    journal.append([write(1)])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "fdatasync", killed)
        journal.append([write(2)])
    journal.close()
    done: list[str] = []
    write_at, sync = os.pwrite, os.fdatasync
    monkeypatch.setattr(os, "pwrite", lambda *a: (done.append("write"), write_at(*a))[1])
    monkeypatch.setattr(os, "fdatasync", lambda fd: (done.append("sync"), sync(fd))[1])
    assert list(replayed(path)) == [name_of(1), name_of(2)]
    assert done == ["write", "sync"]


def test_a_bad_sector_is_an_error_and_not_the_end_of_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    for number in range(100):
        journal.append([write(number, 4000)])
    bad = 200 * 1024
    read = os.pread

    def stops(fd: int, count: int, at: int) -> bytes:
        return read(fd, min(count, bad - at), at) if at < bad else fail(errno.EIO)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", stops)
        with pytest.raises(OSError, match="Input/output"):
            journal.replay()
    assert len(journal.replay()) == 100
    journal.close()


@pytest.mark.parametrize("spoilt", [0, 5, 11, 30, 200, 4059])
def test_what_lies_behind_a_spoilt_record_is_kept(tmp_path: Path, spoilt: int) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    for number in range(20):
        journal.append([write(number, 4000)])
    journal.close()
    record = 4000 + 36 + 24
    content = bytearray(path.read_bytes())
    content[7 * record + spoilt] ^= 1
    path.write_bytes(content)
    journal = Journal(path, GENERATION)
    assert list(journal.replay()) == [name_of(n) for n in range(20) if n != 7]
    journal.append([write(50)])
    journal.close()
    assert len(replayed(path)) == 20


@pytest.mark.parametrize("missing", [1, 5000, MIB - 6000])
def test_a_journal_that_is_too_short_keeps_what_it_has(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    journal.append([write(1, 4000)])
    journal.close()
    os.truncate(path, JOURNAL_BYTES - missing)
    assert list(replayed(path)) == [name_of(1)]
    assert path.stat().st_size == JOURNAL_BYTES


def test_an_append_that_failed_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    journal.append([write(1)])
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(os, "fdatasync", lambda fd: fail(errno.EIO))
        journal.append([write(2)])
    journal.close()
    assert list(replayed(path)) == [name_of(1)]


def test_nor_does_it_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    journal.append([write(1)])
    durable: list[bytes] = []

    def sync(fd: int) -> None:
        # The first one fails although the disk has everything.
        durable.append(path.read_bytes())
        if len(durable) == 1:
            fail(errno.EIO)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(os, "fdatasync", sync)
        journal.append([write(2)])
    journal.close()
    path.write_bytes(durable[-1])
    assert list(replayed(path)) == [name_of(1)]


def test_a_full_journal_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, GENERATION)
    count = 0
    while journal.append([write(count, 10_000)]):
        count += 1
    assert count == JOURNAL_BYTES // (10_000 + 36 + 24)
    assert path.stat().st_size == JOURNAL_BYTES
    journal.close()
    assert len(replayed(path)) == count


def test_a_journal_full_of_anything_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for content in (b"\xff" * JOURNAL_BYTES, os.urandom(JOURNAL_BYTES), GENERATION * (MIB // 16)):
        path.write_bytes(content)
        assert replayed(path) == {}


def test_small_writes_wait_in_the_journal_and_outlast_the_process(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 64 * MIB)
    for number in range(20):
        assert store.apply([write(number)]) == [OK]
    expected = items_of(store)
    assert store._tree.item_count == 0
    store.close()
    store = LmdbStore(tmp_path, 64 * MIB)
    assert items_of(store) == expected
    assert store.item_count == len(expected) == 20
    store.close()


def test_deleted_items_do_not_come_back_from_the_journal(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 64 * MIB)
    store.apply([write(1)])
    store.apply([write(2)])
    assert store.apply([DeleteItem(0, name_of(1))]) == [OK]
    store.apply([write(3)])
    store.close()
    store = LmdbStore(tmp_path, 64 * MIB)
    assert list(store.names()) == [name_of(2), name_of(3)]
    store.close()


def test_the_tree_takes_over_again_and_again(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 64 * MIB)
    for number in range(250):
        assert store.apply([write(number, 20_000)]) == [OK]
        if number % 70 == 69:
            assert store.apply([write(number + 1000, MIB)]) == [OK]
    assert store._tree.item_count > 200
    expected = items_of(store)
    store.close()
    store = LmdbStore(tmp_path, 64 * MIB)
    assert items_of(store) == expected
    assert store.item_count == len(expected) == 253
    store.close()


def test_a_smaller_capacity_after_a_restart_keeps_what_waits(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 64 * MIB)
    store.apply([write(number) for number in range(100)])
    store.close()
    store = LmdbStore(tmp_path, 10_000)
    assert store.apply([write(200)]) == [WriteStatus.FULL]
    assert store.item_count == 100
    assert store.apply([DeleteItem(0, name_of(number)) for number in range(99)]) == [OK] * 99
    assert store.item_count == 1
    store.close()


def test_a_failed_append_is_answered_by_the_tree_and_leaves_no_ghost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path, 64 * MIB)
    store.apply([write(1)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda fd: fail(errno.EIO))
        assert store.apply([write(2)]) == [OK]
    assert store._tree.item_count == 2
    assert store.apply([DeleteItem(0, name_of(2)), write(3)]) == [OK, OK]
    assert store.apply([write(4)]) == [OK]
    assert store._tree.item_count == 2, "the journal is in use again"
    store.close()
    store = LmdbStore(tmp_path, 64 * MIB)
    assert list(store.names()) == [name_of(1), name_of(3), name_of(4)]
    store.close()


def test_a_disk_without_room_for_a_journal_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, at: fail(errno.ENOSPC))
        store = LmdbStore(tmp_path, 64 * MIB)
    assert store.apply([write(1)]) == [OK]
    assert store._tree.item_count == 1
    store.close()
    assert not (tmp_path / "store" / "journal").exists()


def test_a_journal_that_cannot_be_read_is_refused_not_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path, 64 * MIB)
    store.apply([write(1)])
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "replay", lambda journal: fail(errno.EIO))
        with pytest.raises(StoreError, match="check the disk"):
            LmdbStore(tmp_path, 64 * MIB)
    store = LmdbStore(tmp_path, 64 * MIB)
    assert store.item_count == 1
    store.close()


def test_a_scan_sees_each_name_once_while_the_tree_takes_over(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 64 * MIB)
    store.apply([write(number, 1000) for number in range(0, 200, 2)])
    store.apply([write(number, 10) for number in range(1, 200, 2)])
    scan = store.names()
    seen = [next(scan) for _ in range(50)]
    store.apply([write(1000, MIB)])
    assert store._tree.item_count == 201
    seen += scan
    assert seen == [name_of(number) for number in range(200)] + [name_of(1000)]
    store.close()
