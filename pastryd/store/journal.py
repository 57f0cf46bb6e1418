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
from pathlib import Path

from pastryd.ids import NAME_BYTES, Name
from pastryd.protocol.outbox import WriteItem

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
_CRC_BYTES = 4


class Journal:
    """An append-only file that starts over with each generation."""

    __slots__ = ("_end", "_fd", "generation")

    def __init__(self, path: Path, generation: bytes) -> None:
        """Open or create. Raises OSError, ENOSPC among them if a new one finds no room."""
        self.generation = generation
        self._end = 0
        assert len(generation) == GENERATION_BYTES
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._fd).st_size >= JOURNAL_BYTES:
            return
        try:
            # Zeros and not posix_fallocate: the first write to unwritten extents is metadata.
            for start in range(0, JOURNAL_BYTES, ZEROS_BYTES):
                _write_whole(self._fd, bytes(ZEROS_BYTES), start)
            os.fsync(self._fd)
        except OSError:
            # It was never used while it was too short.
            os.close(self._fd)
            os.unlink(path)
            raise

    def replay(self) -> dict[Name, bytes]:
        """Return the items of this generation, and append behind them from now on."""
        content = os.pread(self._fd, JOURNAL_BYTES, 0)
        items: dict[Name, bytes] = {}
        at = 0
        while at + _HEADER.size <= len(content):
            checksum, length, generation = _HEADER.unpack_from(content, at)
            end = at + _HEADER.size + length
            if generation != self.generation or length == 0 or end > len(content):
                break
            if zlib.crc32(content[at + _CRC_BYTES : end]) != checksum:
                break
            at += _HEADER.size
            while at < end:
                name, size = _ITEM.unpack_from(content, at)
                at += _ITEM.size
                items[Name(name)] = content[at : at + size]
                at += size
        self._end = at
        return items

    def append(self, requests: Sequence[WriteItem]) -> bool:
        """Make a batch durable; False if there is no room. Raises OSError: not appended."""
        parts: list[bytes | bytearray | memoryview] = []
        for request in requests:
            parts.append(_ITEM.pack(request.name, memoryview(request.value).nbytes))
            parts.append(request.value)
        body = b"".join(parts)
        if self._end + _HEADER.size + len(body) > JOURNAL_BYTES:
            return False
        checked = _HEADER.pack(0, len(body), self.generation)[_CRC_BYTES:] + body
        record = zlib.crc32(checked).to_bytes(_CRC_BYTES, "little") + checked
        _write_whole(self._fd, record, self._end)
        os.fdatasync(self._fd)
        # Only now: a record that failed is written over by the next one.
        self._end += len(record)
        return True

    def start_over(self, generation: bytes) -> None:
        """Forget all records: the tree has them, and knows this generation."""
        self.generation = generation
        self._end = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _write_whole(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
