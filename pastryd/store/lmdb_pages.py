"""Reads an LMDB file where LMDB cannot be trusted with it: pages may be lost or damaged.

LMDB checks a page that it searches and not one that it steps to, where damage ends in an assertion:
SIGABRT. The lmdb package knows no other way through a tree, so pages are looked at here, in the
format of LMDB 0.9 (`lmdb.h`, `mdb.c`: MDB_meta, MDB_page, MDB_node). Reads the file only, never the
map: touching a page of that which is missing, or which the disk does not give back, is a SIGBUS.

A file may be whole although it ends before its last page. A transaction may number pages at the end
and give them up again before it commits; LMDB lists those as free and never writes them (one commit
in 300 of random writes and deletes). Only the list of free pages tells whether anything is missing.
"""

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

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
_BIG_DATA = 0x01
_SUBTREE = 0x02
_NO_PAGE = (1 << (8 * _NUMBER.size)) - 1
_DEPTH_MAX = 32
_PAGE_BYTES_MAX = 1 << 16

_RUN_PAGES = 16
"""Read in one go: in a store of small items most pages of the file are leaves."""


class Tree(NamedTuple):
    """What LMDB notes of a tree."""

    padding: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int

    @classmethod
    def parse(cls, record: bytes) -> "Tree":
        """Read the record that stands for a named tree."""
        return cls(*_TREE.unpack(record))


class _Meta(NamedTuple):
    transaction: int
    free: Tree
    main: Tree
    last_page: int

    @property
    def page_bytes(self) -> int:
        return self.free.padding


class _LostError(Exception):
    """A page that should be there is not, or is not what it should be."""


_BROKEN = (_LostError, struct.error, OverflowError)
"""A number that cannot be is as good as a page that is not there."""


def has_lost_pages(path: Path) -> bool:
    """Tell whether a page that is in use lies beyond the end of the file.

    Also when the file is no LMDB file of the version that is known here. Raises OSError.
    """
    with path.open("rb") as file:
        try:
            meta = _newest_meta(file)
            beyond = range(file.seek(0, 2) // meta.page_bytes, meta.last_page + 1)
            free = {page for page in _free_pages(file, meta) if page in beyond} if beyond else ()
            return len(free) < len(beyond)
        except _BROKEN:
            return True


def has_damaged_pages(path: Path) -> bool:
    """Tell whether a page of a tree is none; nobody may be writing.

    Looks at the headers and the pointers of all pages but those of large items. Raises OSError.
    """
    with path.open("rb") as file:
        try:
            meta = _newest_meta(file)
            if any(not 1 < number <= meta.last_page for number in _free_pages(file, meta)):
                return True
            for leaf in _check_tree(file, meta.page_bytes, meta.main):
                page = _read_page(file, meta.page_bytes, leaf)
                for at in _nodes(page, _LEAF):
                    _, _, flags, key_bytes = _NODE.unpack_from(page, at)
                    if flags & _SUBTREE:
                        tree = Tree(*_TREE.unpack_from(page, at + _NODE.size + key_bytes))
                        _check_tree(file, meta.page_bytes, tree)
        except _BROKEN:
            return True
    return False


def leaves(
    file: BinaryIO, page_bytes: int, tree: Tree, start: bytes
) -> Iterator[list[bytes] | None]:
    """Yield the keys of a tree from the leaf on where `start` belongs; None for a lost page.

    A transaction must keep the tree as it is.
    """
    if tree.root != _NO_PAGE:
        yield from _leaves_below(file, page_bytes, tree.root, tree.depth, start)


def _leaves_below(
    file: BinaryIO, page_bytes: int, number: int, depth: int, start: bytes
) -> Iterator[list[bytes] | None]:
    try:
        page = _read_page(file, page_bytes, number)
        nodes = _nodes(page, _BRANCH if depth > 1 else _LEAF)
    except (*_BROKEN, OSError):
        yield None
        return
    keys = [_key(page, at) for at in nodes]
    if depth == 1:
        yield keys
        return
    # The first key of a branch is empty, and stands for all that are less than the second.
    for at in nodes[bisect_right(keys, start, 1) - 1 :]:
        yield from _leaves_below(file, page_bytes, _child(page, at), depth - 1, start)


def _newest_meta(file: BinaryIO) -> _Meta:
    newest: _Meta | None = None
    page_bytes = 0
    for place in range(2):
        file.seek(place * page_bytes)
        page = file.read(_PAGE.size + _META.size + 2 * _TREE.size + _META_END.size)
        magic, version, _, _ = _META.unpack_from(page, _PAGE.size)
        if magic != _MAGIC or version != _VERSION:
            raise _LostError
        free, main = (
            Tree(*_TREE.unpack_from(page, _PAGE.size + _META.size + i * _TREE.size))
            for i in range(2)
        )
        page_bytes = free.padding
        if not _PAGE.size < page_bytes <= _PAGE_BYTES_MAX:
            raise _LostError
        last_page, transaction = _META_END.unpack_from(page, len(page) - _META_END.size)
        if newest is None or transaction > newest.transaction:
            newest = _Meta(transaction, free, main, last_page)
    assert newest is not None
    return newest


def _read_page(file: BinaryIO, page_bytes: int, number: int, count: int = 1) -> bytes:
    page = os.pread(file.fileno(), count * page_bytes, number * page_bytes)
    if len(page) < count * page_bytes or _PAGE.unpack_from(page)[0] != number:
        raise _LostError
    return page


def _nodes(page: bytes | bytearray, kind: int) -> tuple[int, ...]:
    """Return where in a page its nodes are, if it is a page of this kind."""
    _, _, flags, end, first = _PAGE.unpack_from(page)
    if flags != kind or not _PAGE.size < end <= first <= len(page):
        raise _LostError
    nodes = struct.unpack_from(f"@{(end - _PAGE.size) // 2}H", page, _PAGE.size)
    if min(nodes) < first or max(nodes) > len(page) - _NODE.size:
        raise _LostError
    return nodes


def _key(page: bytes, at: int) -> bytes:
    start = at + _NODE.size
    return page[start : start + _NODE.unpack_from(page, at)[3]]


def _child(page: bytes | bytearray, at: int) -> int:
    low, high, highest, _ = _NODE.unpack_from(page, at)
    return int(low | high << 16 | highest << 32)


def _check_tree(file: BinaryIO, page_bytes: int, tree: Tree) -> list[int]:
    """Look at all pages of a tree, level by level; return its leaves."""
    if tree.root == _NO_PAGE:
        return []
    if not 1 <= tree.depth <= _DEPTH_MAX:
        raise _LostError
    level = [tree.root]
    branches = 0
    for _ in range(tree.depth - 1):
        branches += len(level)
        below: list[int] = []
        _check_level(file, page_bytes, level, below)
        level = below
        if len(level) > tree.branches + tree.leaves:
            raise _LostError
    if (branches, len(level)) != (tree.branches, tree.leaves):
        raise _LostError
    _check_level(file, page_bytes, level, None)
    return level


def _check_level(
    file: BinaryIO, page_bytes: int, level: list[int], below: list[int] | None
) -> None:
    """Look at pages in the order in which they lie in the file; None below: they are leaves.

    Of leaves at the headers only, many at once: a million small items have half a million. Where a
    sector of one is spoilt behind its header, names have other lengths.
    """
    kind = _LEAF if below is None else _BRANCH
    headers = struct.Struct(f"{_PAGE.format}{page_bytes - _PAGE.size}x")
    run = bytearray(_RUN_PAGES * page_bytes)
    level.sort()
    i = 0
    while i < len(level):
        first = level[i]
        following = bisect_left(level, first + _RUN_PAGES, i)
        size = (level[following - 1] + 1 - first) * page_bytes
        view = memoryview(run)[:size]
        if os.preadv(file.fileno(), [view], first * page_bytes) < size:
            raise _LostError
        found = list(headers.iter_unpack(view))
        for number in level[i:following]:
            at, _, flags, end, start = found[number - first]
            if at != number or flags != kind or not _PAGE.size < end <= start <= page_bytes:
                raise _LostError
            if below is not None:
                page = run[(number - first) * page_bytes :][:page_bytes]
                parts = [_NODE.unpack_from(page, node) for node in _nodes(page, kind)]
                below += [low | high << 16 | top << 32 for low, high, top, _ in parts]
        i = following


def _free_pages(file: BinaryIO, meta: _Meta) -> Iterator[int]:
    """Yield all pages that are listed as free: by transaction, a count and so many."""
    for leaf in _check_tree(file, meta.page_bytes, meta.free):
        page = _read_page(file, meta.page_bytes, leaf)
        for at in _nodes(page, _LEAF):
            yield from _listed(file, meta, page, at)


def _listed(file: BinaryIO, meta: _Meta, page: bytes, at: int) -> tuple[int, ...]:
    """Return the pages that one node names."""
    low, high, flags, key_bytes = _NODE.unpack_from(page, at)
    start = at + _NODE.size + key_bytes
    if flags & _BIG_DATA:
        (first,) = _NUMBER.unpack_from(page, start)
        pages = -(-((low | high << 16) + _PAGE.size) // meta.page_bytes)
        if first + pages > meta.last_page + 1:
            raise _LostError
        page, start = _read_page(file, meta.page_bytes, first, pages), _PAGE.size
    (count,) = _NUMBER.unpack_from(page, start)
    return struct.unpack_from(f"@{count}N", page, start + _NUMBER.size)
