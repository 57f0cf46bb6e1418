"""Gives back the resident pages of a file that is mapped by a library.

Owns the one thing that LMDB's package has no call for: telling the kernel that this process will
not look at the mapped file soon. The pages stay in the page cache; touching one again costs a
minor fault. Without it a walk over a million small items leaves all of their values resident.
"""

import ctypes
import mmap
import os
import threading
from pathlib import Path

_DONTNEED = getattr(mmap, "MADV_DONTNEED", None)
_MAPS = Path("/proc/self/maps")


class MappedFile:
    """Where a file is mapped in this process; nowhere, on systems that do not tell."""

    __slots__ = ("_address", "_file", "_length", "_lock", "_madvise")

    def __init__(self, file: Path) -> None:
        """Find the mapping of `file`, which must be mapped already."""
        self._file = file
        self._address, self._length = _mapping_of(file)
        self._lock = threading.Lock()
        # Declared with its types: an address does not fit into the int of C that is the default.
        self._madvise = ctypes.CDLL(None).madvise
        self._madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def release(self) -> None:
        """Let go of all pages. Any thread may call this while others read."""
        with self._lock:
            if self._address and _DONTNEED is not None:
                try:
                    size = os.stat(self._file).st_size
                except OSError:
                    return  # a failing disk: nobody depends on the memory
                pages = -(-size // mmap.PAGESIZE)
                # The file may be longer than its map; what lies behind that is somebody else's.
                length = min(pages * mmap.PAGESIZE, self._length)
                self._madvise(self._address, length, _DONTNEED)

    def forget(self) -> None:
        """Never touch these addresses again: something else may come to lie there."""
        with self._lock:
            self._address = 0


def _mapping_of(file: Path) -> tuple[int, int]:
    """Return the address at which a file is mapped, or 0, and how many bytes are."""
    inode = os.stat(file).st_ino
    try:
        lines = _MAPS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return 0, 0
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and int(fields[4]) == inode and fields[5].endswith(file.name):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            return start, end - start
    return 0, 0
