"""Cuts whatever a client puts into chunks of exactly 1 MiB, hashing as it goes.

Reads and hashes run in threads: a slow disk or 1 MiB of SHA-256 must not hold up the datagrams of
the chunks before. Knows nothing of keys' meaning or of the network.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import BinaryIO

from pastryd.errors import ConfigError, LocalProtocolError
from pastryd.ids import Name
from pastryd.protocol.items import CHUNK_BYTES

Source = bytes | bytearray | memoryview | BinaryIO | AsyncIterable[bytes]
"""Bytes, a binary file (read in a thread; for pipes prefer an iterator), or an async iterator."""

SOURCES = "give bytes, a file opened in binary mode, or an asynchronous iterator of bytes"

HASHED_HERE_BYTES = 64 << 10
"""About 0.1 ms of hashing, what a thread takes to wake and answer."""

Chunk = tuple[Name, bytes | memoryview]


class Chunker:
    """The chunks of one source, and the digest of all of it once they are used up."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._whole = hashlib.sha256()

    @property
    def digest(self) -> Name:
        """SHA-256 of everything that was yielded."""
        return Name(self._whole.digest())

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield chunks of 1 MiB, the last one shorter; none for an empty source."""
        source = self._source
        if isinstance(source, bytes | bytearray | memoryview):
            view = _bytes_of(source)
            # What is hashed is what is sent, whatever is written to the source meanwhile.
            constant = isinstance(view.obj, bytes)
            for start in range(0, len(view), CHUNK_BYTES):
                piece = view[start : start + CHUNK_BYTES]
                yield await self._hashed(piece if constant else bytes(piece))
        elif isinstance(source, AsyncIterable):
            async for chunk in _regroup(source):
                yield await self._hashed(chunk)
        elif not hasattr(source, "read"):
            raise LocalProtocolError(f"{_show(source)} cannot be put; {SOURCES}")
        else:
            while True:
                read = await asyncio.to_thread(self._read, source)
                if read is None:
                    return
                yield read

    async def _hashed(self, data: bytes | memoryview) -> Chunk:
        """Hash where it is cheaper: a thread costs more than a few KiB do."""
        if len(data) <= HASHED_HERE_BYTES:
            return self._hash(data)
        return await asyncio.to_thread(self._hash, data)

    def _hash(self, data: bytes | memoryview) -> Chunk:
        self._whole.update(data)
        return Name(hashlib.sha256(data).digest()), data

    def _read(self, file: BinaryIO) -> Chunk | None:
        pieces: list[bytes] = []
        missing = CHUNK_BYTES
        while missing and (piece := _read_blocking(file, missing)):
            pieces.append(piece)
            missing -= len(piece)
        if not pieces:
            return None
        return self._hash(pieces[0] if len(pieces) == 1 else b"".join(pieces))


def _bytes_of(piece: bytes | bytearray | memoryview) -> memoryview:
    """Return a view of bytes; raise what says that it is none."""
    try:
        return memoryview(piece).cast("B")
    except TypeError:  # no buffer at all, or one with gaps
        raise LocalProtocolError(f"{_show(piece)} is not bytes in one piece; {SOURCES}") from None


def _show(value: object) -> str:
    return f"an object of type {type(value).__name__}"


def _read_blocking(file: BinaryIO, size: int) -> bytes:
    """Read up to `size` bytes; none at the end only."""
    piece: bytes | None = file.read(size)
    if piece is None:
        raise ConfigError(
            "the source has nothing to read yet, and does not block; give one that blocks, or an "
            "asynchronous iterator"
        )
    return piece if isinstance(piece, bytes) else bytes(_bytes_of(piece))


async def _regroup(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Turn pieces of any size into chunks."""
    held = bytearray()
    async for piece in pieces:
        view = _bytes_of(piece)
        if not held and len(view) == CHUNK_BYTES:
            yield bytes(piece)
            continue
        while len(held) + len(view) >= CHUNK_BYTES:
            cut = CHUNK_BYTES - len(held)
            held += view[:cut]
            view = view[cut:]
            yield bytes(held)
            held = bytearray()
        held += view
    if held:
        yield bytes(held)
