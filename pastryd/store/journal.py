"""The journal in front of the tree: small batches become durable with one sync instead of two.

A file of fixed size, written with zeros in advance so that an append changes no metadata and a
full disk cannot stop it. Each record carries the generation it belongs to, a random token; the tree
stores a new one in the very transaction that takes the journal's items over, and with it all older
records are void. What a torn record holds was never acknowledged. Knows nothing of LMDB.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pastryd.ids import NAME_BYTES, Name
from pastryd.protocol.outbox import WriteItem
from pastryd.store.data_directory import is_deleted

JOURNAL_BYTES = 1 << 20
"""How much waits outside the tree at most: taking over this much stalls writes for some 15 ms."""

ZEROS_BYTES = 4096
"""Written at a time in advance: Linux caches a file in pieces as large as its writes were, and each
later write and sync walks over all blocks of its piece."""

GENERATION_BYTES = 16
"""Random, so that no value can be made to look like a record wherever it comes to lie."""

_HEADER = struct.Struct(f"<II{GENERATION_BYTES}s")
"""CRC-32 of all that follows in the record, length of the body, generation."""

_ITEM = struct.Struct(f"<{NAME_BYTES}sI")
_NUMBER_BYTES = 4


class Journal:
    """An append-only file that starts over with each generation."""

    __slots__ = ("_end", "_fd", "generation")

    def __init__(self, path: Path, generation: bytes) -> None:
        """Open or create. Raises OSError; a new one that finds no room is gone again then."""
        self.generation = generation
        self._end = 0
        assert len(generation) == GENERATION_BYTES
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        try:
            # Zeros and not posix_fallocate: the first write to unwritten extents is metadata.
            for start in range(size, JOURNAL_BYTES, ZEROS_BYTES):
                _write_whole(self._fd, bytes(min(ZEROS_BYTES, JOURNAL_BYTES - start)), start)
            if size < JOURNAL_BYTES:
                os.fsync(self._fd)
        except OSError:
            os.close(self._fd)
            if not size:
                os.unlink(path)
            raise

    def replay(self) -> dict[Name, bytes]:
        """Return the items of this generation, and append behind them from now on.

        What is returned is durable: who died between a write and its sync left it in memory only.
        Raises OSError, if a part cannot be read above all.
        """
        content = self._read_all()
        items: dict[Name, bytes] = {}
        start = self._end = 0
        while start >= 0:
            end = self._record_end(content, start)
            if end:
                _take_items(content, start + _HEADER.size, end, items)
                start = self._end = end
            else:
                # Behind one that the disk has spoiled others may be whole.
                start = content.find(self.generation, start + 2 * _NUMBER_BYTES + 1)
                start -= 2 * _NUMBER_BYTES if start >= 0 else 0
        if items:
            # Written again, for what failed to be synced once may pass for clean.
            _write_whole(self._fd, content[: self._end], 0)
            os.fdatasync(self._fd)
        return items

    def _read_all(self) -> bytes:
        """Return the whole file; after a read that a bad sector cut short the next one raises."""
        content = b""
        while piece := os.pread(self._fd, JOURNAL_BYTES - len(content), len(content)):
            content += piece
        return content

    def _record_end(self, content: bytes, start: int) -> int:
        """Return where a record of this generation ends; 0: no whole one begins here."""
        if start + _HEADER.size > len(content):
            return 0
        checksum, length, generation = _HEADER.unpack_from(content, start)
        end = start + _HEADER.size + length
        if generation != self.generation or length == 0 or end > len(content):
            return 0
        is_whole = zlib.crc32(content[start + _NUMBER_BYTES : end]) == checksum
        return end if is_whole else 0

    def append(self, requests: Sequence[WriteItem]) -> bool:
        """Make a batch durable; False if there is no room. Raises OSError: not appended."""
        parts: list[bytes | bytearray | memoryview] = []
        for request in requests:
            parts.append(_ITEM.pack(request.name, memoryview(request.value).nbytes))
            parts.append(request.value)
        body = b"".join(parts)
        if self._end + _HEADER.size + len(body) > JOURNAL_BYTES:
            return False
        checked = _HEADER.pack(0, len(body), self.generation)[_NUMBER_BYTES:] + body
        record = zlib.crc32(checked).to_bytes(_NUMBER_BYTES, "little") + checked
        try:
            _write_whole(self._fd, record, self._end)
            os.fdatasync(self._fd)
        except OSError:
            # It may be there all the same, and must not come back after it was deleted.
            with suppress(OSError):
                _write_whole(self._fd, bytes(_HEADER.size), self._end)
                os.fdatasync(self._fd)
            raise
        self._end += len(record)
        return True

    def start_over(self, generation: bytes) -> None:
        """Forget all records: the tree has them, and knows this generation."""
        self.generation = generation
        self._end = 0

    @property
    def is_deleted(self) -> bool:
        """Whether the file is gone from its directory: no later run would find it."""
        return is_deleted(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _take_items(content: bytes, start: int, end: int, items: dict[Name, bytes]) -> None:
    """Add the items of a record's body."""
    at = start
    while at < end:
        name, size = _ITEM.unpack_from(content, at)
        at += _ITEM.size
        items[Name(name)] = content[at : at + size]
        at += size


def _write_whole(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
