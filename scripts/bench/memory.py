"""A machine whose memory is in use, as that of one which has served for a while.

A virtual machine may have given its free pages back to its host, and gets each anew when it is
written to: 5 ms a MiB there, 0.3 in use (docs/decisions/0025-bulk-steps-aside.md). A page cache
that is full is made of pages that the machine has.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

PIECE_BYTES = 4 << 20


@contextmanager
def memory_in_use(directory: Path) -> Iterator[None]:
    """Fill the page cache with a file of nothing but holes; the system takes from it as it needs.

    Not on a file system in memory, which does not read holes into the page cache.
    """
    piece = bytearray(PIECE_BYTES)
    with TemporaryFile(dir=directory, buffering=0) as holes:
        holes.truncate(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        while holes.readinto(piece):
            pass
        yield
