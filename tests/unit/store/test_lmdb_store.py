"""What only the store on disk does: it lasts, it is one sync per batch, it meets full disks."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from pastryd.errors import StoreError, StoreLostError
from pastryd.ids import Name
from pastryd.protocol.outbox import DeleteItem, WriteItem, WriteStatus
from pastryd.store import lmdb_tree
from pastryd.store.base import FIRST_NAME
from pastryd.store.data_directory import MARKER
from pastryd.store.lmdb_store import LmdbStore

MIB = 1 << 20
OK = WriteStatus.OK
FULL = WriteStatus.FULL


def name_of(number: int) -> Name:
    return Name(number.to_bytes(32, "big"))


def write(number: int, size: int) -> WriteItem:
    return WriteItem(number, name_of(number), os.urandom(size))


def value_in(store: LmdbStore, number: int) -> bytes | None:
    seen: list[bytes | None] = []
    store.read(
        name_of(number), 0, -1, lambda data, _: seen.append(None if data is None else bytes(data))
    )
    return seen[0]


def commits_of(path: Path) -> int:
    with lmdb.open(str(path / "store"), readonly=True, lock=False, max_dbs=2) as environment:
        return int(environment.info()["last_txnid"])


def test_items_and_meta_outlast_the_store_object(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, MIB)
    requests = [write(1, 100), write(2, 5000)]
    store.apply(requests)
    store.put_meta("identity", b"key")
    used = store.used_bytes
    store.close()
    store = LmdbStore(tmp_path, MIB)
    assert [value_in(store, 1), value_in(store, 2)] == [r.value for r in requests]
    assert store.get_meta("identity") == b"key"
    assert (store.item_count, store.used_bytes) == (2, used)
    store.close()


def test_a_directory_need_not_have_a_name_in_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff")
    for _ in range(2):
        store = LmdbStore(path, MIB)
        store.apply([write(1, 100)])
        store.release_memory()
        assert value_in(store, 1) is not None
        store.close()


def test_a_batch_is_one_commit_and_a_known_name_is_none(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    store.close()
    before = commits_of(tmp_path)
    store = LmdbStore(tmp_path, 16 * MIB)
    batch = [write(number, 1000) for number in range(500)]
    store.apply(batch)
    store.apply(batch[:10])
    store.close()
    assert commits_of(tmp_path) == before + 1


def test_a_smaller_capacity_than_what_is_stored_refuses_writes_only(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 4 * MIB)
    store.apply([write(number, MIB // 2) for number in range(6)])
    store.close()
    store = LmdbStore(tmp_path, MIB)
    assert store.item_count == 6
    assert store.apply([write(10, 100), DeleteItem(1, name_of(1))]) == [FULL, OK]
    assert store.item_count == 5
    store.close()


def test_no_capacity_given_means_what_the_disk_has(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, None)
    disk = os.statvfs(tmp_path)
    assert store.capacity_bytes == disk.f_blocks * disk.f_frsize
    store.close()


def test_a_full_map_is_a_full_store_for_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The map is as large as the capacity, the pages of LMDB itself come on top: the map is first.
    monkeypatch.setattr(lmdb_tree, "MAP_SLACK_BYTES", -(2 * MIB) // 4)
    store = LmdbStore(tmp_path, 2 * MIB)
    batch = [write(number, 100_000) for number in range(40)]
    statuses = store.apply(batch)
    assert set(statuses) == {OK, FULL}
    assert statuses.count(OK) >= 10
    for request, status in zip(batch, statuses, strict=True):
        assert value_in(store, request.ticket) == (request.value if status is OK else None)
    assert store.apply([DeleteItem(0, name_of(0))]) == [OK]
    store.close()


def test_a_scan_left_half_way_keeps_no_old_pages(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 64 * MIB)
    store.apply([write(number, 10) for number in range(100)])
    scan = store.names()
    next(scan)
    for number in range(100, 150):
        store.apply([write(number, MIB)])
        store.apply([DeleteItem(number, name_of(number))])
    assert (tmp_path / "store" / "data.mdb").stat().st_size < 8 * MIB
    assert len(list(scan)) == 99
    store.close()


def test_space_is_reused_after_deletes(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 8 * MIB)
    for number in range(3, 60):
        assert store.apply([write(number, MIB), DeleteItem(0, name_of(number - 3))]) == [OK, OK]
    assert (tmp_path / "store" / "data.mdb").stat().st_size < 12 * MIB
    store.close()


def test_a_second_store_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, MIB)
    with pytest.raises(StoreError, match="in use"):
        LmdbStore(tmp_path, MIB)
    store.close()
    LmdbStore(tmp_path, MIB).close()


def test_damage_is_told_in_one_line_and_frees_the_lock(tmp_path: Path) -> None:
    LmdbStore(tmp_path, MIB).close()
    data = tmp_path / "store" / "data.mdb"
    whole = data.read_bytes()
    data.write_bytes(b"\xff" * len(whole))
    for _ in range(2):
        with pytest.raises(StoreError, match="move the data directory away") as caught:
            LmdbStore(tmp_path, MIB)
        assert "\n" not in str(caught.value)
    data.write_bytes(whole)
    LmdbStore(tmp_path, MIB).close()


def spoil_pages(path: Path, content: bytes, fill: int = 0xFF) -> None:
    """Fill all pages of the tree that hold these bytes, as a failing disk might."""
    with (path / "store" / "data.mdb").open("r+b") as data:
        file = data.read()
        at = file.find(content)
        assert at >= 0
        while at >= 0:
            page = at - at % 4096
            data.seek(page)
            data.write(bytes([fill]) * 4096)
            at = file.find(content, page + 4096)


def test_a_damaged_page_of_meta_values_is_told_in_one_line(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    store.put_meta("identity", b"key")
    store.close()
    spoil_pages(tmp_path, b"identitykey")
    with pytest.raises(StoreError, match="move the data directory away") as caught:
        LmdbStore(tmp_path, 16 * MIB)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_short_is_refused_instead_of_a_bus_error(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    store.apply([write(number, MIB) for number in range(4)])
    store.close()
    os.truncate(tmp_path / "store" / "data.mdb", MIB)
    with pytest.raises(StoreError, match="cut short"):
        LmdbStore(tmp_path, 16 * MIB)


def test_an_error_of_the_disk_is_failed_and_not_an_exception(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, MIB)
    store._tree._environment.close()
    assert store.apply([write(1, 10), write(2, 10)]) == [WriteStatus.FAILED] * 2
    with pytest.raises(StoreError):
        store.put_meta("identity", b"key")
    store.close()


def test_a_store_that_gave_up_says_so_whatever_it_is_asked(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    store.apply([write(1, 100_000)])

    def begin(*_: object, **__: object) -> object:
        raise lmdb.PanicError("Update of meta page failed or environment had fatal error")

    store._tree._begin = begin
    for ask in (
        lambda: value_in(store, 1),
        lambda: list(store.names()),
        lambda: store.get_meta("identity"),
        lambda: store.apply([write(2, 100_000)]),
        lambda: store.apply([write(2, 100)]),
    ):
        with pytest.raises(StoreLostError, match="start the node again"):
            ask()
    store.close()


@pytest.mark.parametrize("write_something", ["apply", "put_meta"])
def test_a_store_gives_up_with_the_very_write_that_spoiled_it(
    tmp_path: Path, write_something: str
) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)

    def panic(*_: object, **__: object) -> object:
        raise lmdb.PanicError("Update of meta page failed or environment had fatal error")

    def fail(*_: object, **__: object) -> object:
        store._tree._begin = panic
        raise lmdb.Error("mdb_txn_commit: Input/output error")

    store._tree._begin = fail
    with pytest.raises(StoreLostError, match="start the node again"):
        if write_something == "apply":
            store.apply([write(1, 100_000)])
        else:
            store.put_meta("identity", b"key")
    store.close()


def test_an_item_whose_pages_are_damaged_is_not_there(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    store.apply([write(1, 100_000)])

    class Damaged:
        def get(self, name: Name) -> bytes:
            raise lmdb.CorruptedError("a page of another kind")

        def abort(self) -> None: ...

    store._tree._begin = lambda *_: Damaged()
    assert value_in(store, 1) is None
    store.close()


def test_a_damaged_page_spoils_no_write_elsewhere(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    store.apply([write(number, 1000) for number in range(500)])
    spoil_pages(tmp_path, name_of(77))
    assert value_in(store, 77) is None
    with pytest.raises(StoreError, match="damaged"):
        list(store.names())
    batch = [write(number, 1000) for number in (1000, 1001, 77, 1002)]
    assert store.apply(batch) == [OK, OK, WriteStatus.FAILED, OK]
    assert [value_in(store, r.ticket) for r in batch] == [
        None if r.ticket == 77 else r.value for r in batch
    ]
    store.close()


@pytest.mark.parametrize("fill", [0, 0xFF])
def test_a_scan_goes_around_damaged_pages_and_tells_of_each(tmp_path: Path, fill: int) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    numbers = [(7 << 250) + number for number in range(500)]
    store.apply([write(number, 1000) for number in numbers])
    names = [name_of(number) for number in numbers]
    read = store._tree._leaves_from(names[0])[0]
    assert all(read)
    lost = [keys for i, keys in enumerate(read) if keys is not None and i in (0, 3, 4)]
    for keys in lost:
        spoil_pages(tmp_path, keys[-1], fill)
    there = [name for name in names if not any(name in keys for keys in lost)]
    told: list[str] = []
    assert list(store.names(names[0], lambda: told.append("damage"))) == there
    assert len(told) == 3
    waiting = write(8 << 250, 100)
    store.apply([waiting])
    found = list(store.names(FIRST_NAME, lambda: told.append("again")))
    assert found == [*there, waiting.name]
    assert list(store.names(there[200], lambda: told.append("no more"))) == found[200:]
    assert len(told) == 6
    store.close()


def test_a_name_that_cannot_be_one_is_damage(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    store.apply([write((7 << 250) + number - 300, 100) for number in range(700)])
    with (tmp_path / "store" / "data.mdb").open("r+b") as data:
        file = data.read()
        at = file.find(name_of(7 << 250))
        while at >= 0:  # the two bytes before a name say how long it is
            data.seek(at - 2)
            data.write(b"\0\0")
            at = file.find(name_of(7 << 250), at + 1)
    with pytest.raises(StoreError, match="move the data directory away"):
        list(store.names())
    told: list[str] = []
    found = list(store.names(FIRST_NAME, lambda: told.append("damage")))
    assert len(told) == 1
    assert 660 < len(found) < 700
    store.close()


def test_an_empty_file_beside_a_journal_is_refused(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    store.apply([write(1, 100)])
    store.close()
    data = tmp_path / "store" / "data.mdb"
    for spoil in (lambda: os.truncate(data, 0), data.unlink):
        spoil()
        with pytest.raises(StoreError, match="cut short"):
            LmdbStore(tmp_path, 16 * MIB)


def test_under_a_much_smaller_capacity_there_is_room_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_tree, "MAP_SLACK_BYTES", MIB)
    store = LmdbStore(tmp_path, 64 * MIB)
    for number in range(20):
        assert store.apply([write(number, MIB)]) == [OK]
    store.close()
    store = LmdbStore(tmp_path, 4 * MIB)
    assert [store.apply([DeleteItem(0, name_of(n))]) for n in range(18)] == [[OK]] * 18
    assert store.apply([write(50, 1000)]) == [OK]
    store.close()


def test_a_disk_that_does_not_even_say_how_full_it_is_is_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)

    def fail(*_: object, **__: object) -> object:
        raise OSError(5, os.strerror(5))

    store._tree._begin = fail
    monkeypatch.setattr(os, "statvfs", fail)
    assert store.apply([write(1, 100_000)]) == [WriteStatus.FAILED]
    store.close()


@pytest.mark.parametrize("call", ["statvfs", "mkdir", "fsync"])
def test_whatever_the_disk_refuses_at_the_start_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    LmdbStore(tmp_path, MIB).close()
    shutil.rmtree(tmp_path / "store")

    def fail(*_: object, **__: object) -> object:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreError, match=r"Input/output error.*check the disk") as caught:
            LmdbStore(tmp_path, None)
    assert "\n" not in str(caught.value)
    LmdbStore(tmp_path, MIB).close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a real full disk needs root: it mounts a small tmpfs")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a real full disk needs a small tmpfs: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_refuses_politely_and_loses_nothing(small_disk: Path) -> None:
    store = LmdbStore(small_disk / "data", 64 * MIB)
    batch = [write(number, 300_000) for number in range(60)]
    statuses = store.apply(batch)
    assert set(statuses) == {OK, FULL}
    assert statuses.count(OK) >= 15
    for request, status in zip(batch, statuses, strict=True):
        assert value_in(store, request.ticket) == (request.value if status is OK else None)
    number = 100
    while store.apply([write(number, 2000)]) == [OK]:
        number += 1
    stored = sorted(store.names())
    assert store.apply([write(number, 100_000)]) == [FULL]
    store.close()
    store = LmdbStore(small_disk / "data", 64 * MIB)
    assert list(store.names()) == stored
    deletes: list[DeleteItem | WriteItem] = [DeleteItem(0, name) for name in stored[:5]]
    assert store.apply(deletes) == [OK] * 5, "a full disk can be emptied"
    assert store.apply([write(1000, 300_000)]) == [OK]
    store.close()


def test_a_disk_too_full_to_start_on_is_told_in_one_line(small_disk: Path) -> None:
    with (
        open(small_disk / "ballast", "wb", buffering=0) as ballast,
        pytest.raises(OSError, match="No space"),
    ):
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(StoreError, match=r"No space|full") as caught:
        LmdbStore(small_disk / "data", 64 * MIB)
    assert "\n" not in str(caught.value)
    (small_disk / "ballast").unlink()
    LmdbStore(small_disk / "data", 64 * MIB).close()
    assert (small_disk / "data" / MARKER).exists()
