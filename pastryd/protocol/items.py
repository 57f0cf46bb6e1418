"""What the store keeps and how it verifies itself: objects, index entries, manifests (DESIGN 6).

An object's name is the SHA-256 of its bytes. An index entry is a small record that says which
manifest a large blob's key stands for; its name begins with the key's position, so that it lives
where the key does, and ends with half of its own digest, so that it verifies itself. A manifest is
an object that lists chunks, or manifests one level below. Digests are checked here alone.

Everything here is a pure function of bytes; decoding is total: anything malformed, and sizes that
do not add up, raise `RemoteProtocolError`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import msgpack

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.errors import LocalProtocolError, RemoteProtocolError
from pastryd.ids import ID_BYTES, NAME_BYTES, Name

CHUNK_BYTES = OBJECT_BYTES_MAX
"""Every chunk of a large blob but the last has this size: equal blobs share all of them."""

FANOUT = 30_000
"""Ids in a manifest: 960,000 bytes of them, under `OBJECT_BYTES_MAX` with what is around them."""
LEVEL_MAX = 2
"""30,000^3 chunks; a hostile manifest cannot make anybody descend further."""
BLOB_BYTES_MAX = 1 << 60

ENTRIES_PER_KEY = 16
"""Index entries that a holder keeps for one key. Liars can fill them; who asks tries them all."""

_INDEX_MAGIC = b"pastry-index-1"
_INDEX = struct.Struct(">14s32s32sQ")
INDEX_ENTRY_BYTES = _INDEX.size
_MANIFEST_MAGIC = "pastry-manifest-1"

Value = bytes | bytearray | memoryview


def name_of(value: Value) -> Name:
    """Return the name of an object."""
    return Name(sha256(value).digest())


def verify(name: Name, value: Value) -> bool:
    """Tell whether `value` is the item called `name`."""
    digest = sha256(value).digest()
    if digest == name:
        return True
    if len(value) != INDEX_ENTRY_BYTES or name[ID_BYTES:] != digest[:ID_BYTES]:
        return False
    magic, key, _, _ = _INDEX.unpack(value)
    return bool(magic == _INDEX_MAGIC and key[:ID_BYTES] == name[:ID_BYTES])


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Says that blob `key` of `size` bytes is what `manifest` lists. It may lie: hash the blob."""

    key: Name
    manifest: Name
    size: int

    def encode(self) -> bytes:
        """Return the record."""
        return _INDEX.pack(_INDEX_MAGIC, self.key, self.manifest, self.size)

    @property
    def name(self) -> Name:
        """What it is stored under: next to its key."""
        return Name(self.key[:ID_BYTES] + sha256(self.encode()).digest()[:ID_BYTES])

    @classmethod
    def decode(cls, record: Value) -> "IndexEntry":
        """Parse a record; raises `RemoteProtocolError`."""
        if len(record) != INDEX_ENTRY_BYTES:
            raise RemoteProtocolError("not an index entry")
        magic, key, manifest, size = _INDEX.unpack(record)
        if magic != _INDEX_MAGIC or not CHUNK_BYTES < size <= BLOB_BYTES_MAX:
            raise RemoteProtocolError("not an index entry")
        return cls(Name(key), Name(manifest), size)


def is_record_of(key: Name, record: Value) -> bool:
    """Tell whether a record is a well-formed index entry of `key`."""
    try:
        return IndexEntry.decode(record).key == key
    except RemoteProtocolError:
        return False


def chunks_of(size: int) -> int:
    """Return how many chunks a large blob has."""
    return -(-size // CHUNK_BYTES)


def span_of(level: int) -> int:
    """Return how many bytes one id in a manifest of `level` stands for, the last one excepted."""
    return CHUNK_BYTES * int(FANOUT**level)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A list of equal parts, the last one possibly shorter: chunks at level 0, else manifests."""

    level: int
    size: int
    ids: bytes

    def __len__(self) -> int:
        return len(self.ids) // NAME_BYTES

    def encode(self) -> bytes:
        """Return the object: one form only, so that equal blobs have equal manifests."""
        packed: bytes = msgpack.packb([_MANIFEST_MAGIC, self.level, self.size, self.ids])
        return packed

    def part(self, index: int) -> tuple[Name, int]:
        """Return name and content size of a part."""
        span = span_of(self.level)
        name = Name(self.ids[index * NAME_BYTES : (index + 1) * NAME_BYTES])
        return name, min(span, self.size - index * span)

    def parts(self) -> Iterator[tuple[Name, int]]:
        """Return names and content sizes of all parts in order."""
        return map(self.part, range(len(self)))

    @classmethod
    def decode(cls, value: Value, size: int, level: int | None = None) -> "Manifest":
        """Parse a manifest that must describe `size` bytes (and have `level`, unless it is a root).

        Raises `RemoteProtocolError`. A part's size follows from the size of the whole: parts that
        do not add up cannot be expressed. A child must have the level below its parent's.
        """
        try:
            fields = msgpack.unpackb(value, raw=False, strict_map_key=False)
        except Exception as error:  # msgpack raises many kinds; all of them mean malformed bytes
            raise RemoteProtocolError("not a manifest") from error
        if type(fields) is not list or len(fields) != 4 or fields[0] != _MANIFEST_MAGIC:
            raise RemoteProtocolError("not a manifest")
        _, own_level, own_size, ids = fields
        if type(own_level) is not int or type(own_size) is not int or type(ids) is not bytes:
            raise RemoteProtocolError("not a manifest")
        if not 0 <= own_level <= LEVEL_MAX or (level is not None and own_level != level):
            raise RemoteProtocolError("a manifest of another level")
        if own_size != size or size <= 0:
            raise RemoteProtocolError("a manifest of another size")
        count = -(-size // span_of(own_level))
        if count > FANOUT or len(ids) != count * NAME_BYTES:
            raise RemoteProtocolError("a manifest with another number of parts")
        return cls(own_level, size, ids)


class ManifestBuilder:
    """Builds the manifests of a blob as its chunks become known; keeps ids, never chunks.

    `add` and `finish` return the manifests that became complete, to be stored; the last one that
    `finish` returns is the root.
    """

    __slots__ = ("_ids", "_last_size", "_sizes", "size")

    def __init__(self) -> None:
        self.size = 0
        self._last_size = CHUNK_BYTES
        self._ids: list[bytearray] = [bytearray()]
        self._sizes: list[int] = [0]

    def add(self, chunk: Name, size: int) -> list[tuple[Name, bytes]]:
        """Append a chunk; all but the last must have `CHUNK_BYTES`."""
        if self._last_size != CHUNK_BYTES or not 0 < size <= CHUNK_BYTES:
            raise LocalProtocolError("only the last chunk of a blob may be shorter than the others")
        if self.size + size > BLOB_BYTES_MAX:
            raise LocalProtocolError("the blob is too large")
        self._last_size = size
        self.size += size
        completed: list[tuple[Name, bytes]] = []
        self._append(0, chunk, size, completed)
        return completed

    def _append(
        self, level: int, name: Name, size: int, completed: list[tuple[Name, bytes]]
    ) -> None:
        """Add an id to a level; a level that is full moves up only when one more id arrives.

        Then the root of 30,000 chunks is one manifest, not a manifest of one.
        """
        if level == len(self._ids):
            self._ids.append(bytearray())
            self._sizes.append(0)
        if len(self._ids[level]) == FANOUT * NAME_BYTES:
            self._close(level, completed)
        self._ids[level] += name
        self._sizes[level] += size

    def _close(self, level: int, completed: list[tuple[Name, bytes]]) -> None:
        size = self._sizes[level]
        value = Manifest(level, size, bytes(self._ids[level])).encode()
        name = name_of(value)
        completed.append((name, value))
        self._ids[level] = bytearray()
        self._sizes[level] = 0
        self._append(level + 1, name, size, completed)

    def finish(self) -> list[tuple[Name, bytes]]:
        """Close all levels; the last manifest returned is the root."""
        if not self.size:
            raise LocalProtocolError("an empty blob has no manifest")
        completed: list[tuple[Name, bytes]] = []
        level = 0
        while level < len(self._ids) - 1:
            self._close(level, completed)
            level += 1
        value = Manifest(level, self.size, bytes(self._ids[level])).encode()
        completed.append((name_of(value), value))
        return completed
