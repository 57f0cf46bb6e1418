"""Large pages for a process with a large heap, where the system has them (Linux 6.1 and later).

A ring of 100,000 nodes is gigabytes of small objects, and each message touches some far apart: with
pages of 4 KiB the processor looks up addresses for a good part of the time. Python's allocator does
not ask for larger ones, so what it has mapped is collapsed into them now and then. Changes nothing
that a run does; where it cannot be done it is left.
"""

import ctypes
from pathlib import Path

_COLLAPSE = 25
"""`MADV_COLLAPSE` of Linux, which Python's `mmap` does not name."""


def use_large_pages() -> None:
    """Have the heap of this process lie in large pages, as far as it has grown."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in maps.read_text("ascii", "replace").splitlines():
        addresses, access, _, _, _, *names = line.split()
        if access.startswith("rw") and names in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in addresses.split("-"))
            madvise(start, end - start, _COLLAPSE)
