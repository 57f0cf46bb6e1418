"""What a daemon takes at rest: not what only starting it took, nor what nobody asked libraries for.

Twenty nodes on a machine are twenty interpreters. None of this changes what a node does; where the
C library has no such calls, it is left out.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_ARENA_MAX = -8
"""Of glibc's `mallopt`."""


def share_one_arena() -> None:
    """Have all threads allocate from one heap; each of their own would keep a MiB.

    They take turns at running Python anyway. To be called before there are any.
    """
    _call("mallopt", _M_ARENA_MAX, 1)


@contextmanager
def without(package: str) -> Iterator[None]:
    """Import something without a package that it could do without, unless that is there already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # what the import system looks for
    try:
        yield
    finally:
        del sys.modules[package]


def give_back_heap() -> None:
    """Give the kernel what is free; takes some 10 ms."""
    gc.collect()
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    if sys.platform == "linux" and (function := getattr(ctypes.CDLL(None), name, None)):
        function(*arguments)
