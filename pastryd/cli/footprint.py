"""What a daemon takes at rest: not what only starting it took, nor what nobody asked libraries for.

Twenty nodes on a machine are twenty interpreters. None of this changes what a node does; where the
C library has no such call, it is left out. One heap for all threads (`M_ARENA_MAX`) would take
0.7 MiB less, but made puts a fifth dearer.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
