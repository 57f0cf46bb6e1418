"""What was read of the store does not stay resident, and can still be read."""

import errno
import mmap
import os
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from pastryd.ids import Name
from pastryd.protocol.outbox import WriteItem, WriteStatus
from pastryd.store.lmdb_store import LmdbStore
from pastryd.store.resident import MappedFile

MIB = 1 << 20


def shared_bytes() -> int:
    """Return how much of mapped files is resident in this process."""
    return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")


def sums(store: LmdbStore) -> list[bytes]:
    found = []
    for name in store.names():
        store.read(name, 0, -1, lambda data, _: found.append(sha256(data or b"").digest()))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_that_were_read_are_let_go_of_and_can_be_read_again(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 256 * MIB)
    values = [os.urandom(MIB) for _ in range(16)]
    items = [WriteItem(0, Name(sha256(value).digest()), value) for value in values]
    assert set(store.apply(items)) == {WriteStatus.OK}
    names = [bytes(item.name) for item in items]
    assert sums(store) == sorted(names)
    before = shared_bytes()
    store.release_memory()
    assert shared_bytes() < before - 12 * MIB
    assert sums(store) == sorted(names)
    store.close()


def test_a_closed_store_is_left_alone(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)
    store.close()
    store.release_memory()


def test_a_disk_that_does_not_say_how_long_the_file_is_keeps_its_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path, 16 * MIB)

    def fail(*_: object, **__: object) -> object:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        store.release_memory()
    store.close()


def test_a_file_that_is_not_mapped_has_nothing_to_let_go_of(tmp_path: Path) -> None:
    file = tmp_path / "data.mdb"
    file.write_bytes(bytes(MIB))
    MappedFile(file).release()
    assert file.read_bytes() == bytes(MIB)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells where a file is mapped")
def test_what_lies_behind_the_map_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(4 * mmap.PAGESIZE))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 2 * mmap.PAGESIZE):
        mapped = MappedFile(file)
        told: list[int] = []
        mapped._madvise = lambda address, length, advice: told.append(length)
        mapped.release()
        assert told == [2 * mmap.PAGESIZE]
