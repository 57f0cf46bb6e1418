"""What a daemon takes at rest: not what only starting it took, nor what nobody asked libraries for.

Twenty nodes on a machine are twenty interpreters. None of this changes what a node does; where the
C library has no such call, it is left out. One heap for all threads (`M_ARENA_MAX`) would take
0.7 MiB less, but made puts a fifth dearer.
"""

import ctypes
import gc
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def give_back() -> None:
    """Give the kernel what is free, and the code that only starting needed; takes some 10 ms."""
    gc.collect()
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if trim := getattr(library, "malloc_trim", None):
        trim(0)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for address, length in _library_code():
        library.madvise(address, length, mmap.MADV_DONTNEED)


def _library_code() -> Iterator[tuple[int, int]]:
    """Yield where code of libraries is mapped; what is run of it again comes from the page cache.

    Code alone: what a library may have written to at its start would be as it is in the file again.
    """
    for line in Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1] == "r-xp" and ".so" in fields[5]:
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield start, end - start
