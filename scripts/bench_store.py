#!/usr/bin/env python3
"""Measures the item store and what it could have been instead; prints JSON.

LMDB as the daemon uses it, against SQLite (WAL, synchronous=FULL) and plain files (temporary file,
fsync, rename, fsync of the directory), in the same run and in turns, as disks have moods. Durable
means the same for all: after the call returned a power failure takes nothing. The other contenders
live in this file only. `docs/decisions/0001-lmdb.md` says what we made of it.
"""

import argparse
import asyncio
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import lmdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pastryd.ids import Name
from pastryd.protocol.outbox import StoreReply, WriteItem, WriteStatus
from pastryd.store.data_directory import sync_directory
from pastryd.store.executor import StoreExecutor
from pastryd.store.lmdb_store import LmdbStore
from pastryd.store.lmdb_tree import LmdbTree

KIB = 1 << 10
MIB = 1 << 20
GROUP_SMALL = 256
GROUP_LARGE = 16
Item = tuple[bytes, bytes]


def new_items(count: int, size: int) -> list[Item]:
    return [(os.urandom(32), os.urandom(size)) for _ in range(count)]


class Ours:
    """The store of the daemon."""

    name = "ours"

    def __init__(self, path: Path) -> None:
        self.store = LmdbStore(path, None)

    def put(self, items: Sequence[Item]) -> None:
        statuses = self.store.apply([WriteItem(0, Name(n), v) for n, v in items])
        assert set(statuses) == {WriteStatus.OK}

    def get(self, name: bytes) -> None:
        self.store.read(Name(name), 0, -1, ignore)

    def close(self) -> None:
        self.store.close()


def ignore(data: memoryview | None, size: int) -> None:
    assert size


class Sqlite:
    """SQLite as durable as we are: a commit is in the log and the log is synced."""

    name = "sqlite_wal"

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.db = sqlite3.connect(path / "items.sqlite", isolation_level=None)
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("pragma synchronous=full")
        self.db.execute("create table items (name blob primary key, value blob)")

    def put(self, items: Sequence[Item]) -> None:
        self.db.execute("begin")
        self.db.executemany("insert or ignore into items values (?, ?)", items)
        self.db.execute("commit")

    def get(self, name: bytes) -> None:
        [value] = self.db.execute("select value from items where name = ?", (name,)).fetchone()
        assert value

    def close(self) -> None:
        self.db.close()


class Files:
    """A file for each item, in 256 directories."""

    name = "files"

    def __init__(self, path: Path) -> None:
        self.path = path
        for number in range(256):
            (path / f"{number:02x}").mkdir(parents=True)

    def file_of(self, name: bytes) -> Path:
        text = name.hex()
        return self.path / text[:2] / text

    def put(self, items: Sequence[Item]) -> None:
        directories = set()
        for name, value in items:
            file = self.file_of(name)
            with open(self.path / "new", "wb", buffering=0) as new:
                new.write(value)
                os.fsync(new.fileno())
            os.replace(self.path / "new", file)
            directories.add(file.parent)
        for directory in directories:
            sync_directory(directory)

    def get(self, name: bytes) -> None:
        assert self.file_of(name).read_bytes()

    def close(self) -> None:
        pass


class Tree(Ours):
    """Our tree alone, as it was before the journal: each put is a commit of LMDB."""

    name = "our_lmdb_without_journal"

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.tree = LmdbTree(path, 1 << 36)

    def put(self, items: Sequence[Item]) -> None:
        self.tree.apply([WriteItem(0, Name(n), v) for n, v in items])

    def close(self) -> None:
        self.tree.close()


class LmdbSetup:
    """LMDB by hand, to compare settings for one small put a commit."""

    def __init__(self, path: Path, name: str, **settings: bool) -> None:
        self.name = name
        path.mkdir()
        self.sync_after = settings.pop("sync_after", False)
        reserve, zero = settings.pop("reserve", False), settings.pop("zero", False)
        self.environment = lmdb.open(str(path), map_size=1 << 30, max_dbs=2, **settings)
        self.items = self.environment.open_db(b"items")
        self.fd = os.open(path / "data.mdb", os.O_RDWR)
        if reserve:
            os.posix_fallocate(self.fd, 0, 256 * MIB)
        if zero:
            for number in range(1, 256):
                os.pwrite(self.fd, bytes(MIB), number * MIB)
        os.fsync(self.fd)

    def put(self, items: Sequence[Item]) -> None:
        with self.environment.begin(self.items, write=True) as transaction:
            for name, value in items:
                transaction.put(name, value, overwrite=False)
        if self.sync_after:
            os.fdatasync(self.fd)

    def close(self) -> None:
        os.close(self.fd)
        self.environment.close()


class BareLog:
    """An append and one fdatasync: the least that any log in front of a tree would cost."""

    name = "bare_log"

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def put(self, items: Sequence[Item]) -> None:
        os.writev(self.fd, [part for item in items for part in item])
        os.fdatasync(self.fd)

    def close(self) -> None:
        os.close(self.fd)


Contender = Ours | Sqlite | Files
Writer = Contender | LmdbSetup | BareLog


def summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_us": round(median(ordered) * 1e6, 1),
        "mean_us": round(sum(ordered) / len(ordered) * 1e6, 1),
        "p99_us": round(ordered[len(ordered) * 99 // 100] * 1e6, 1),
    }


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def small_puts(writers: Sequence[Writer], rounds: int) -> dict[str, object]:
    """Time puts of 1 KB, a sync for each; the writers take turns of 20."""
    times: dict[str, list[float]] = {writer.name: [] for writer in writers}
    cpu = dict.fromkeys(times, 0.0)
    for _ in range(rounds):
        for writer in writers:
            batches = [[item] for item in new_items(20, KIB)]
            start = time.process_time()
            times[writer.name] += [timed(partial(writer.put, batch)) for batch in batches]
            cpu[writer.name] += time.process_time() - start
    return {
        name: {
            **summary(taken),
            "per_s": round(len(taken) / sum(taken)),
            "cpu_us": round(cpu[name] / len(taken) * 1e6, 1),
        }
        for name, taken in times.items()
    }


def throughput(
    contenders: Sequence[Contender], size: int, group: int, count: int
) -> dict[str, float]:
    """Return items/s for `count` items of `size`, `group` to a sync, in 4 turns."""
    taken = {contender.name: 0.0 for contender in contenders}
    turn = max(group, count // 4)
    done = 0
    while done < count:
        items = new_items(turn, size)
        for contender in contenders:
            start = time.perf_counter()
            for first in range(0, turn, group):
                contender.put(items[first : first + group])
            taken[contender.name] += time.perf_counter() - start
        done += turn
    return {name: round(done / seconds, 1) for name, seconds in taken.items()}


def reads(contenders: Sequence[Contender], size: int, count: int, rounds: int) -> dict[str, float]:
    """Return µs for a read of one of `count` items in random order, the page cache being warm."""
    items = new_items(count, size)
    result = {}
    for contender in contenders:
        for first in range(0, count, GROUP_SMALL):
            contender.put(items[first : first + GROUP_SMALL])

        def read_all(get: Callable[[bytes], None] = contender.get) -> None:
            for name, _ in items:
                get(name)

        read_all()
        best = min(timed(read_all) for _ in range(rounds))
        result[contender.name] = round(best / count * 1e6, 2)
    return result


async def hand_off(store: LmdbStore, rounds: int) -> dict[str, dict[str, float]]:
    """Compare a lone durable put of 1 KB through the executor with the same on this thread."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[StoreReply]

    def completed(reply: StoreReply) -> None:
        waiting.set_result(reply)

    executor = StoreExecutor(store, completed, loop.call_soon_threadsafe)
    direct: list[float] = []
    handed: list[float] = []
    for _ in range(rounds):
        for name, value in new_items(20, KIB):
            request = WriteItem(0, Name(name), value)
            direct.append(timed(partial(store.apply, [request])))
        for name, value in new_items(20, KIB):
            waiting = loop.create_future()
            start = time.perf_counter()
            executor.submit(WriteItem(0, Name(name), value))
            await waiting
            handed.append(time.perf_counter() - start)
    executor.close()
    return {"apply": summary(direct), "submit_to_reply": summary(handed)}


def opening(path: Path, count: int) -> dict[str, float]:
    """Fill a store with small items, open it again, and walk over all names."""
    store = LmdbStore(path, None)
    for first in range(0, count, 20_000):
        items = new_items(min(20_000, count - first), 1000)
        store.apply([WriteItem(0, Name(name), value) for name, value in items])
    store.close()
    start = time.perf_counter()
    store = LmdbStore(path, None)
    opened = time.perf_counter() - start
    start = time.perf_counter()
    found = sum(1 for _ in store.names())
    scanned = time.perf_counter() - start
    assert found == count
    used_bytes = store.used_bytes
    store.close()
    return {
        "items": count,
        "open_ms": round(opened * 1e3, 2),
        "scan_ms": round(scanned * 1e3, 1),
        "used_bytes_per_1000_byte_item": round(used_bytes / count),
    }


def measure(path: Path, rounds: int, large_mib: int, items: int) -> dict[str, object]:
    ours, sqlite, files = Ours(path / "lmdb"), Sqlite(path / "sqlite"), Files(path / "files")
    contenders: list[Contender] = [ours, sqlite, files]
    setups: list[Writer] = [
        Tree(path / "tree"),
        LmdbSetup(path / "default", "lmdb_default"),
        LmdbSetup(path / "reserved", "lmdb_space_reserved", reserve=True),
        LmdbSetup(path / "zeroed", "lmdb_space_zeroed", zero=True),
        LmdbSetup(path / "after", "lmdb_fdatasync_for_meta", metasync=False, sync_after=True),
        LmdbSetup(path / "one", "unsafe_lmdb_one_sync", metasync=False),
        LmdbSetup(path / "none", "unsafe_lmdb_no_sync", sync=False),
        BareLog(path / "log"),
    ]
    result: dict[str, object] = {
        "put_1k_one_sync_each": small_puts(contenders + setups, rounds),
        f"put_1k_per_s_groups_of_{GROUP_SMALL}": throughput(
            contenders, KIB, GROUP_SMALL, rounds * GROUP_SMALL
        ),
        f"put_1m_mib_per_s_groups_of_{GROUP_LARGE}": throughput(
            contenders, MIB, GROUP_LARGE, large_mib
        ),
        "put_1m_mib_per_s_one_sync_each": throughput(contenders, MIB, 1, large_mib),
        "read_1k_us": reads(contenders, KIB, 10_000, 5),
        "read_1m_us": reads(contenders, MIB, 64, 5),
        "hand_off": asyncio.run(hand_off(ours.store, rounds)),
    }
    for writer in contenders + setups:
        writer.close()
    result["open"] = opening(path / "open", items)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="on the disk to measure (default: temporary)")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--large-mib", type=int, default=256)
    parser.add_argument("--items", type=int, default=100_000, help="to open a store with")
    arguments = parser.parse_args()
    path = Path(tempfile.mkdtemp(prefix="bench_store.", dir=arguments.dir))
    try:
        result = measure(path, arguments.rounds, arguments.large_mib, arguments.items)
    finally:
        shutil.rmtree(path)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
