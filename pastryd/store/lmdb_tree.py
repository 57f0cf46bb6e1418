"""Items and meta values in LMDB: ordered, memory-mapped, crash-safe.

One environment with two trees. Every `apply` is one write transaction and one commit; LMDB syncs
new pages before the meta page that makes them visible, so that a crash at any moment leaves the
last commit whole. Reads hand out views of the map. Owns nothing outside its directory and knows no
journal, except that meta values may have to be stored together with a batch.
"""

import errno
import mmap
import os
import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import lmdb

from pastryd.errors import StoreError, StoreLostError
from pastryd.ids import NAME_BYTES, Name
from pastryd.protocol.outbox import DeleteItem, WriteItem, WriteStatus
from pastryd.store.base import FIRST_NAME, OnDamage, Receive
from pastryd.store.data_directory import is_deleted, sync_directory
from pastryd.store.lmdb_pages import Tree, has_damaged_pages, has_lost_pages, leaves
from pastryd.store.resident import MappedFile

DATA_FILE = "data.mdb"
_ITEMS = b"items"

NAMES_PER_TRANSACTION_MAX = 4096
"""A scan opens a new transaction this often, so that a slow one never pins old pages."""

NAMES_AT_FIRST = 64
"""Fewer, as many scans want only the first few names."""

MAP_SLACK_BYTES = 1 << 30
"""The map is larger than the capacity: free pages are not always where a large item needs them."""

DISK_FULL_BYTES = 1 << 20
"""With less than this free, a write that ends half way is taken for a full disk."""

DAMAGE_ADVICE = (
    "move the data directory away and start with an empty one, the other replicas fill it again"
)
_DAMAGED = "it is damaged: " + DAMAGE_ADVICE

_CONCERNS_SOME = (
    lmdb.TxnFullError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.BadTxnError,
)
"""Errors that a part of a batch may not have: it is too large, or meets a damaged page."""

_PAGE_HEADER_BYTES = 16

_INLINE_BYTES_MAX = 1900
"""Roughly: larger values go to pages of their own (LMDB wants two nodes to fit into a page)."""


class LmdbTree:
    """Items and meta values in the files of one directory."""

    __slots__ = (
        "_begin",
        "_environment",
        "_file",
        "_item_count",
        "_items",
        "_mapped",
        "_meta",
        "_page_bytes",
        "_path",
        "_used_bytes",
        "capacity_bytes",
        "refusal",
    )

    def __init__(self, path: Path, capacity_bytes: int) -> None:
        """Open or create in a directory that is there. Raises OSError, StoreError with advice."""
        self._path = path
        self.capacity_bytes = capacity_bytes
        self.refusal = ""
        """Why the last write that was not done was not."""
        self._environment = _open_environment(path, capacity_bytes)
        self._begin = self._environment.begin
        self._open_trees(path)

    def _open_trees(self, path: Path) -> None:
        environment = self._environment
        try:
            info = environment.info()
            self._page_bytes = int(environment.stat()["psize"])
            whole_bytes = (int(info["last_pgno"]) + 1) * self._page_bytes
            is_short = os.stat(path / DATA_FILE).st_size < whole_bytes
            if is_short and int(info["last_txnid"]) > 0 and has_lost_pages(path / DATA_FILE):
                # Touching the missing part of the map would be a SIGBUS, not an exception.
                raise cut_short(path)
            if has_damaged_pages(path / DATA_FILE):
                raise StoreError(f"cannot use {path / DATA_FILE}: {_DAMAGED}")
            self._items = environment.open_db(_ITEMS)
            self._meta = environment.open_db(b"meta")
            sync_directory(path)
            with self._begin(write=False) as transaction:
                self._used_bytes, self._item_count = self._measure(transaction)
            self._mapped = MappedFile(path / DATA_FILE)
            self._file = os.open(path / DATA_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except lmdb.Error as error:
            environment.close()
            raise _open_error(path, error) from error
        except BaseException:
            environment.close()
            raise

    @property
    def is_deleted(self) -> bool:
        """Whether the file is gone from its directory: no later run would find it."""
        return is_deleted(self._file)

    @property
    def item_count(self) -> int:
        """How many items are stored, as of the last commit."""
        return self._item_count

    @property
    def used_bytes(self) -> int:
        """Bytes of all pages in use, as of the last commit; free pages in the file do not count."""
        return self._used_bytes

    def names(self, start: bytes = FIRST_NAME, on_damage: OnDamage | None = None) -> Iterator[Name]:
        """Yield the names >= `start` in order; see `ItemStore.names`."""
        if on_damage is not None:
            yield from self._names_around_damage(start, on_damage)
            return
        count = NAMES_AT_FIRST
        while True:
            chunk = self._names_from(start, count)
            yield from map(Name, chunk)
            if len(chunk) < count:
                return
            count = min(count * 4, NAMES_PER_TRANSACTION_MAX)
            start = chunk[-1] + b"\0"

    def _names_around_damage(self, start: bytes, on_damage: OnDamage) -> Iterator[Name]:
        """Read the pages here and not in LMDB, which a damaged one may abort; it takes longer."""
        going_on: bytes | None = start
        while going_on is not None:
            found, going_on = self._leaves_from(going_on)
            for keys in found:
                if keys is None:
                    on_damage()
                else:
                    yield from map(Name, keys)

    def _leaves_from(self, start: bytes) -> tuple[list[list[bytes] | None], bytes | None]:
        """Return the names of some leaves, None for lost ones; and where to go on, if there."""
        found: list[list[bytes] | None] = []
        count = 0
        try:
            # Not by its name: the file may be deleted, or no descriptor free for another one.
            file = open(self._file, "rb", buffering=0, closefd=False)  # noqa: SIM115
            with self._begin() as transaction:
                tree = Tree.parse(transaction.get(_ITEMS, b""))
                for keys in leaves(file, self._page_bytes, tree, start):
                    if keys is None or not _are_names(keys):
                        found.append(None)
                        continue
                    names = keys[bisect_left(keys, start) :]
                    found.append(names)
                    count += len(names)
                    if count >= NAMES_AT_FIRST:
                        return found, names[-1] + b"\0"
        except (lmdb.Error, struct.error) as error:
            raise self._given_up(error) from error
        return found, None

    def _names_from(self, start: bytes, count: int) -> list[bytes]:
        try:
            with self._begin(self._items) as transaction:
                cursor = transaction.cursor()
                if not cursor.set_range(start):
                    return []
                names = list(islice(cursor.iternext(keys=True, values=False), count))
        except lmdb.Error as error:
            raise self._given_up(error) from error
        if not set(map(len, names)) <= {NAME_BYTES}:
            raise self._given_up(lmdb.CorruptedError("a name has another length"))
        return names

    def _given_up(self, error: Exception) -> StoreError:
        """Return what to say when nothing is given back."""
        said = f"the store in {self._path} is of no use any more: {error}; "
        if isinstance(error, lmdb.PanicError):
            # After a failed write of its meta page it refuses everything until it is opened again.
            return StoreLostError(
                said + "check the disk and start the node again; what was acknowledged is there"
            )
        return StoreError(said + _DAMAGED)

    def _refuse_lost(self) -> None:
        """Raise StoreLostError if the write that failed was the last one that LMDB tried."""
        try:
            self._begin(self._items).abort()
        except lmdb.PanicError as error:
            raise self._given_up(error) from error
        except (lmdb.Error, OSError):
            return

    def read(self, name: Name, offset: int, length: int, receive: Receive) -> None:
        """Call `receive(data, size)` once, with a view of the map; see `ItemStore.read`."""
        # Positional and without `with`: 0.3 µs of 1.7. The transaction behind it is not made anew:
        # lmdb keeps one spare and renews it.
        try:
            transaction = self._begin(self._items, None, False, True)
        except lmdb.Error as error:
            raise self._given_up(error) from error
        try:
            try:
                value = transaction.get(name)
            except lmdb.Error:  # a page of the tree is damaged
                value = None
            if value is None:
                receive(None, 0)
            elif length < 0:
                receive(value[offset:] if offset else value, len(value))
            else:
                receive(value[offset : offset + length], len(value))
        finally:
            transaction.abort()

    def apply(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus]:
        """Do all of `requests` in one transaction; see `ItemStore.apply`."""
        try:
            return self.commit(requests, {})
        except lmdb.PanicError as error:
            raise self._given_up(error) from error
        except (lmdb.Error, OSError) as error:
            self._refuse_lost()
            self.refusal = str(error)
            full = self._means_full(error)
            if len(requests) > 1 and (full or isinstance(error, _CONCERNS_SOME)):
                # Halves, so that what can be is found with few commits, each of them a sync.
                middle = len(requests) // 2
                return self.apply(requests[:middle]) + self.apply(requests[middle:])
            return [WriteStatus.FULL if full else WriteStatus.FAILED] * len(requests)

    def _means_full(self, error: Exception) -> bool:
        """Tell whether a transaction failed for want of space."""
        if isinstance(error, lmdb.MapFullError | lmdb.DiskError):
            return True
        if os.strerror(errno.EDQUOT) in str(error):
            return True
        # LMDB calls it an I/O error when the disk took a part of what it was given. The file has
        # grown over the last free blocks then.
        if os.strerror(errno.EIO) not in str(error):
            return False
        try:
            disk = os.statvfs(self._path)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < DISK_FULL_BYTES

    def contains(self, name: Name) -> bool:
        """Tell whether an item is there."""
        with self._begin(self._items, buffers=True) as transaction:
            return transaction.get(name) is not None

    def commit(
        self,
        requests: Sequence[WriteItem | DeleteItem],
        meta: Mapping[str, bytes],
        promised: int = 0,
    ) -> list[WriteStatus]:
        """Do all of `requests` and set all of `meta`, or nothing: then raises LMDB's error.

        What is beyond the capacity is answered FULL and does not stop the rest, except for the
        first `promised` requests: those were acknowledged, perhaps under a larger capacity.
        """
        statuses: list[WriteStatus] = []
        add = statuses.append
        with self._begin(self._items, write=True) as transaction:
            estimate = self._used_bytes
            for request in requests:
                name = request.name
                assert len(name) == NAME_BYTES, "a name is 32 bytes"
                if isinstance(request, DeleteItem):
                    transaction.delete(name)
                    add(WriteStatus.OK)
                    continue
                cost = self.cost(memoryview(request.value).nbytes)
                if estimate + cost > self.capacity_bytes and len(statuses) >= promised:
                    # The estimate adds up the worst cases; near the end the truth is asked for.
                    estimate, _ = self._measure(transaction)
                    if estimate + cost > self.capacity_bytes:
                        present = transaction.get(name) is not None
                        add(WriteStatus.OK if present else WriteStatus.FULL)
                        self.refusal = f"the capacity of {self.capacity_bytes} bytes is used up"
                        continue
                if transaction.put(name, request.value, overwrite=False):
                    estimate += cost
                add(WriteStatus.OK)
            for key, value in meta.items():
                transaction.put(key.encode(), value, db=self._meta)
            measured = self._measure(transaction)
        self._used_bytes, self._item_count = measured
        return statuses

    def cost(self, size: int) -> int:
        """Return the most that a new item adds to the pages in use, a split branch aside."""
        # A split adds a page; whatever does not fit twice into a page gets pages of its own.
        own = -(-(size + _PAGE_HEADER_BYTES) // self._page_bytes) if size > _INLINE_BYTES_MAX else 0
        return (1 + own) * self._page_bytes

    def _measure(self, transaction: lmdb.Transaction) -> tuple[int, int]:
        stat = transaction.stat(self._items)
        pages = stat["leaf_pages"] + stat["branch_pages"] + stat["overflow_pages"]
        return pages * self._page_bytes, stat["entries"]

    def get_meta(self, key: str) -> bytes | None:
        """Return a meta value, or None; see `ItemStore.get_meta`."""
        try:
            with self._begin(self._meta) as transaction:
                value = transaction.get(key.encode())
        except lmdb.Error as error:
            raise self._given_up(error) from error
        return None if value is None else bytes(value)

    def put_meta(self, key: str, value: bytes) -> None:
        """Set a meta value durably; waits for a running `apply`."""
        try:
            with self._begin(self._meta, write=True) as transaction:
                transaction.put(key.encode(), value)
        except (lmdb.Error, OSError) as error:
            self._refuse_lost()
            raise StoreError(
                f"cannot write to the store in {self._path}: {error}; "
                "free some space or check the disk"
            ) from error

    def release_memory(self) -> None:
        """Let go of the pages of the map that were looked at; the page cache keeps them."""
        self._mapped.release()

    def close(self) -> None:
        """Close the map."""
        self._mapped.forget()
        os.close(self._file)
        self._environment.close()


def _are_names(keys: list[bytes]) -> bool:
    """Tell whether the keys of a leaf are names in order."""
    return all(len(key) == NAME_BYTES for key in keys) and keys == sorted(keys)


def cut_short(path: Path) -> StoreError:
    """Return what to say of a directory whose file has lost pages."""
    return StoreError(f"{path / DATA_FILE} was cut short; {DAMAGE_ADVICE}")


def _open_environment(path: Path, capacity_bytes: int) -> lmdb.Environment:
    # Under a smaller capacity than before, too, there has to be room to delete.
    held_bytes = os.stat(path / DATA_FILE).st_size if (path / DATA_FILE).exists() else 0
    map_bytes = max(capacity_bytes, held_bytes)
    map_bytes += map_bytes // 4 + MAP_SLACK_BYTES
    map_bytes -= map_bytes % mmap.PAGESIZE
    try:
        return lmdb.open(
            os.fsencode(path),  # a name that is not UTF-8 is a name, too
            map_size=map_bytes,
            subdir=True,
            create=True,
            max_dbs=2,
            max_spare_txns=4,
            mode=0o600,
            sync=True,
            metasync=True,
        )
    except lmdb.Error as error:
        raise _open_error(path, error) from error


def _open_error(path: Path, error: lmdb.Error) -> StoreError:
    if isinstance(error, lmdb.DiskError | lmdb.MapFullError):
        advice = "the disk is full: free some space"
    elif isinstance(error, lmdb.MemoryError) or os.strerror(errno.ENOMEM) in str(error):
        advice = "lower --capacity or raise the limit of address space (ulimit -v)"
    elif isinstance(error, lmdb.InvalidError | lmdb.CorruptedError | lmdb.VersionMismatchError):
        advice = _DAMAGED
    else:
        advice = "check the disk and the permissions"
    return StoreError(f"cannot open the store in {path}: {error}; {advice}")
