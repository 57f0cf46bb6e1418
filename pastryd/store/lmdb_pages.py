"""Tells an LMDB file that was cut short from one that merely ends before its last page.

A transaction may number pages at the end of the file and give them up again before it commits. LMDB
lists those as free and never writes them, so that the file of a healthy store may end before the
last page that was numbered (one commit in 300 of random writes and deletes). Only the list of
free pages tells whether anything is missing; the lmdb package cannot read it, so it is read here
from the file, in the format of LMDB 0.9 (`lmdb.h`, `mdb.c`: MDB_meta, MDB_page, MDB_node). Reads
the file only, never the map: touching a missing page of that would be a SIGBUS.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PAGE = struct.Struct("@NHHHH")
"""Page number, padding, flags, end of the pointers, start of the nodes."""
_META = struct.Struct("@IIPN")
"""Magic, version, address, size of the map; two trees follow, of which the first lists the free."""
_TREE = struct.Struct("@IHH5N")
"""Of the first tree the page size; flags, depth, pages of three kinds, entries, root."""
_META_END = struct.Struct("@NN")
"""The last page that was numbered, and the transaction that says so."""
_NODE = struct.Struct("@HHHH")
"""Low and high half of the size of the data (in a branch: of a page), flags, size of the key."""
_NUMBER = struct.Struct("@N")

_MAGIC = 0xBEEFC0DE
_VERSION = 1
_BRANCH = 0x01
_LEAF = 0x02
_OVERFLOW = 0x04
_BIG_DATA = 0x01
_NO_PAGE = (1 << (8 * _NUMBER.size)) - 1
_DEPTH_MAX = 32


class _LostError(Exception):
    """A page that should be there is not, or is not what it should be."""


def has_lost_pages(path: Path) -> bool:
    """Tell whether a page that is in use lies beyond the end of the file.

    Also when the file is no LMDB file of the version that is known here. Raises OSError.
    """
    with path.open("rb") as file:
        try:
            page_bytes, root, last_page = _newest_meta(file)
            size = file.seek(0, 2)
            missing = set(range(size // page_bytes, last_page + 1))
            if root != _NO_PAGE:
                missing.difference_update(_free_pages(file, page_bytes, root, _DEPTH_MAX))
        except (_LostError, struct.error):
            return True
    return bool(missing)


def _newest_meta(file: BinaryIO) -> tuple[int, int, int]:
    """Return the page size, the root of the list of free pages, and the last page's number."""
    found: tuple[int, int, int, int] | None = None
    page_bytes = 0
    for place in range(2):
        file.seek(place * page_bytes)
        page = file.read(_PAGE.size + _META.size + 2 * _TREE.size + _META_END.size)
        magic, version, _, _ = _META.unpack_from(page, _PAGE.size)
        if magic != _MAGIC or version != _VERSION:
            raise _LostError
        free = _TREE.unpack_from(page, _PAGE.size + _META.size)
        page_bytes, root = free[0], free[-1]
        last_page, transaction = _META_END.unpack_from(page, len(page) - _META_END.size)
        if found is None or transaction > found[0]:
            found = transaction, page_bytes, root, last_page
    assert found is not None
    return found[1:]


def _read_page(file: BinaryIO, page_bytes: int, number: int, count: int = 1) -> bytes:
    file.seek(number * page_bytes)
    page = file.read(count * page_bytes)
    if len(page) < count * page_bytes or _PAGE.unpack_from(page)[0] != number:
        raise _LostError
    return page


def _free_pages(file: BinaryIO, page_bytes: int, number: int, depth: int) -> Iterator[int]:
    """Yield all pages that the tree below a page lists: by transaction, a count and so many."""
    page = _read_page(file, page_bytes, number)
    _, _, flags, end, _ = _PAGE.unpack_from(page)
    if depth == 0 or not flags & (_BRANCH | _LEAF):
        raise _LostError
    for (at,) in struct.iter_unpack("@H", page[_PAGE.size : end]):
        low, high, node_flags, key_bytes = _NODE.unpack_from(page, at)
        if flags & _BRANCH:
            child = low | high << 16 | node_flags << 32
            yield from _free_pages(file, page_bytes, child, depth - 1)
            continue
        listed, start = page, at + _NODE.size + key_bytes
        if node_flags & _BIG_DATA:
            (first,) = _NUMBER.unpack_from(page, start)
            pages = -(-((low | high << 16) + _PAGE.size) // page_bytes)
            listed, start = _read_page(file, page_bytes, first, pages), _PAGE.size
        (count,) = _NUMBER.unpack_from(listed, start)
        yield from struct.unpack_from(f"@{count}N", listed, start + _NUMBER.size)
