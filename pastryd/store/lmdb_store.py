"""The item store on disk: a tree (LMDB) with a small journal in front of it.

A small batch is appended to the journal: one sync of one page or two, where a commit of the tree
takes two syncs and rewrites a path of pages. Its items wait in memory until the journal is full, a
large batch comes or something is deleted; then the tree takes all of them over in one transaction,
together with the generation that voids the journal. Why: docs/decisions/0001-lmdb.md.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import lmdb

from pastryd.errors import StoreError
from pastryd.ids import NAME_BYTES, Name
from pastryd.protocol.outbox import DeleteItem, WriteItem, WriteStatus
from pastryd.store.base import FIRST_NAME, OnDamage, Receive
from pastryd.store.data_directory import LOCK, DataDirectory, make_directory, sync_directory
from pastryd.store.journal import GENERATION_BYTES, Journal
from pastryd.store.lmdb_tree import DATA_FILE, LmdbTree, cut_short

STORE_DIRECTORY = "store"
JOURNAL_FILE = "journal"
GENERATION_KEY = "journal.generation"

DELETED_ADVICE = "stop this node, which hands over what it can still read, and start it again"

JOURNALED_BYTES_MAX = 64 << 10
"""Larger batches go to the tree at once: written twice they would cost more than a sync."""


class LmdbStore:
    """Items in `data_dir/store`, held exclusively by this process."""

    __slots__ = (
        "_closed",
        "_counts_names",
        "_directory",
        "_journal",
        "_journal_usable",
        "_tree",
        "_waiting",
        "_waiting_cost",
    )

    def __init__(self, data_dir: Path, capacity_bytes: int | None) -> None:
        """Open or create. `capacity_bytes` None: as much as the file system holds.

        Raises StoreError, one line that says what to do.
        """
        self._closed = False
        self._directory = DataDirectory(data_dir)
        path = data_dir / STORE_DIRECTORY
        try:
            self._tree = _open_tree(path, capacity_bytes)
        except OSError as error:
            self._directory.close()
            raise StoreError(
                f"cannot open the store in {path}: {error.strerror}; "
                "free some space or check the disk and the permissions"
            ) from error
        except BaseException:
            self._directory.close()
            raise
        self._waiting: dict[Name, bytes] = {}
        """Durable in the journal, not yet in the tree."""
        self._waiting_cost = 0
        self._journal: Journal | None = None
        self._journal_usable = False
        self._counts_names = True
        """Whether the file system tells a deleted file: some say of all that they have no name."""
        try:
            self._open_journal(path)
            self._counts_names = self.deleted_file() is None
        except BaseException:
            self.close()
            raise

    def _open_journal(self, path: Path) -> None:
        generation = self._tree.get_meta(GENERATION_KEY)
        if generation is None:
            generation = os.urandom(GENERATION_BYTES)
            self._tree.put_meta(GENERATION_KEY, generation)
        try:
            self._journal = Journal(path / JOURNAL_FILE, generation)
            sync_directory(path)
            self._waiting = self._journal.replay()
        except OSError as error:
            is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            if is_full and not (path / JOURNAL_FILE).exists():
                # There was none before, so nothing waits in it; the tree does without.
                return
            raise StoreError(
                f"cannot read {path / JOURNAL_FILE}: {error.strerror}; check the disk and the "
                "permissions"
            ) from error
        self._journal_usable = True
        self._waiting_cost = sum(self._tree.cost(len(value)) for value in self._waiting.values())

    @property
    def item_count(self) -> int:
        """How many items are stored."""
        return self._tree.item_count + len(self._waiting)

    @property
    def used_bytes(self) -> int:
        """Bytes of all pages in use, and the most that the waiting items will need."""
        return self._tree.used_bytes + self._waiting_cost

    @property
    def capacity_bytes(self) -> int:
        """The bound above which writes are answered FULL."""
        return self._tree.capacity_bytes

    def names(self, start: bytes = FIRST_NAME, on_damage: OnDamage | None = None) -> Iterator[Name]:
        """Yield the names >= `start` in order; see `ItemStore.names`."""
        # The waiting ones are taken first: they move towards the tree, never away from it.
        waiting = sorted(name for name in list(self._waiting) if name >= start)
        if not waiting:
            yield from self._tree.names(start, on_damage)
            return
        waiting.reverse()
        for name in self._tree.names(start, on_damage):
            while waiting and waiting[-1] < name:
                yield waiting.pop()
            if waiting and waiting[-1] == name:
                waiting.pop()
            yield name
        yield from reversed(waiting)

    def read(self, name: Name, offset: int, length: int, receive: Receive) -> None:
        """Call `receive(data, size)` once, without a copy; see `ItemStore.read`."""
        # First here, then the tree: an item leaves here only after the tree has it.
        value = self._waiting.get(name)
        if value is None:
            self._tree.read(name, offset, length, receive)
            return
        end = len(value) if length < 0 else offset + length
        receive(memoryview(value)[offset:end], len(value))

    def deleted_file(self) -> Path | None:
        """Return which file was deleted under us, if one was.

        The system takes writes to it and syncs them; a restart would find nothing of them.
        """
        if not self._counts_names:
            return None
        directory = self._directory.path
        if self._tree.is_deleted:
            return directory / STORE_DIRECTORY / DATA_FILE
        if self._journal is not None and self._journal.is_deleted:
            return directory / STORE_DIRECTORY / JOURNAL_FILE
        return None if self._directory.is_locked else directory / LOCK

    def refusal(self) -> str:
        """Return why the last write that was not done was not."""
        deleted = self.deleted_file()
        return f"{deleted} was deleted; {DELETED_ADVICE}" if deleted else self._tree.refusal

    def apply(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus]:
        """Do all of `requests` with one commit or one append; see `ItemStore.apply`."""
        if self.deleted_file() is not None:
            return [WriteStatus.FAILED] * len(requests)
        if self._append(requests):
            return [WriteStatus.OK] * len(requests)
        return self._apply_to_tree(requests)

    def _append(self, requests: Sequence[WriteItem | DeleteItem]) -> bool:
        """Put a batch into the journal if it is one for it, and there is room everywhere."""
        if self._journal is None or not self._journal_usable:
            return False
        new: dict[Name, WriteItem] = {}
        size = cost = 0
        for request in requests:
            assert len(request.name) == NAME_BYTES, "a name is 32 bytes"
            if isinstance(request, DeleteItem):
                return False
            name = request.name
            value_size = memoryview(request.value).nbytes
            size += value_size
            if size > JOURNALED_BYTES_MAX:
                return False
            if name in new or name in self._waiting:
                continue
            new[name] = request
            cost += self._tree.cost(value_size)
        if self.used_bytes + cost > self.capacity_bytes:
            return False
        try:
            missing = [request for name, request in new.items() if not self._tree.contains(name)]
        except lmdb.Error:
            return False
        try:
            if missing and not self._journal.append(missing):
                return False
        except OSError:
            # The record may be on disk or not. The tree answers for the batch, and a new generation
            # makes sure that nothing of it comes back after it was deleted.
            self._journal_usable = False
            return False
        for request in missing:
            self._waiting[request.name] = bytes(request.value)
            self._waiting_cost += self._tree.cost(len(self._waiting[request.name]))
        return True

    def _apply_to_tree(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus]:
        """Let the tree take over what waits, and `requests` with it."""
        if not self._waiting and (self._journal_usable or self._journal is None):
            return self._tree.apply(requests)
        statuses = self._take_over(requests)
        if statuses is not None:
            return statuses
        if self._take_over(()) is not None:
            return self._tree.apply(requests)
        # The disk is full: what waits stays in the journal, and is acknowledged, so it cannot be
        # deleted either. Other deletes still make room for it.
        possible = [request for request in requests if request.name not in self._waiting]
        done = iter(self._tree.apply(possible))
        return [
            next(done)
            if request.name not in self._waiting
            else (WriteStatus.OK if isinstance(request, WriteItem) else WriteStatus.FAILED)
            for request in requests
        ]

    def _take_over(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus] | None:
        """Commit what waits and `requests`, all in one transaction; None if that cannot be."""
        waiting = [WriteItem(0, name, value) for name, value in self._waiting.items()]
        generation = os.urandom(GENERATION_BYTES)
        try:
            statuses = self._tree.commit(
                [*waiting, *requests], {GENERATION_KEY: generation}, len(waiting)
            )
        except (lmdb.Error, OSError) as error:
            self._tree.refusal = str(error)
            return None
        if self._journal is not None:
            self._journal.start_over(generation)
            self._journal_usable = True
        # A new dict: a reader may be looking into the old one.
        self._waiting = {}
        self._waiting_cost = 0
        return statuses[len(waiting) :]

    def get_meta(self, key: str) -> bytes | None:
        """Return a meta value, or None."""
        return self._tree.get_meta(key)

    def put_meta(self, key: str, value: bytes) -> None:
        """Set a meta value durably; waits for a running `apply`."""
        if self.deleted_file() is not None:
            raise StoreError(self.refusal())
        self._tree.put_meta(key, value)

    def release_memory(self) -> None:
        """Let go of the pages that were looked at; any thread may call this, and go on reading."""
        self._tree.release_memory()

    def close(self) -> None:
        """Close everything and let another daemon have the directory. The journal may stay."""
        if self._closed:
            return
        self._closed = True
        self._tree.close()
        if self._journal is not None:
            self._journal.close()
        self._directory.close()


def _open_tree(path: Path, capacity_bytes: int | None) -> LmdbTree:
    """Open or create the tree in a directory that may be new. Raises OSError or StoreError."""
    make_directory(path)
    if (path / JOURNAL_FILE).exists() and not _has_content(path / DATA_FILE):
        raise cut_short(path)  # the journal is made when the tree is there
    return LmdbTree(path, _disk_bytes(path) if capacity_bytes is None else capacity_bytes)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _disk_bytes(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_frsize * disk.f_blocks
