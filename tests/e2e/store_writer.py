"""Writes items until it is killed and prints the number of each that was acknowledged.

Usage: store_writer.py DATA_DIR FIRST_NUMBER. Beside `test_store_crash.py`, which kills it.
"""

import os
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue

from pastryd.ids import Name
from pastryd.protocol.outbox import DeleteItem, ReadDone, StoreReply, WriteItem, WriteStatus
from pastryd.store.executor import StoreExecutor
from pastryd.store.lmdb_store import LmdbStore

SMALL_SIZES = (0, 100, 1000, 5000)
ALL_SIZES = (0, 100, 1000, 5000, 70_000, 1 << 20)
IN_FLIGHT = 20
BLOCK = 64
"""So many small writes in a row, which the journal takes, then as many of all kinds and deletes."""


def value_of(number: int) -> bytes:
    """Return the value with this number: another one for each, of very different sizes."""
    sizes = ALL_SIZES if number // BLOCK % 2 else SMALL_SIZES
    size = sizes[number % len(sizes)]
    stamp = b"%016d" % number
    return (stamp * (size // 16 + 1))[:size] + stamp


def name_of(number: int) -> Name:
    """Return the name of the value with this number."""
    return Name(sha256(value_of(number)).digest())


def main(data_dir: Path, first: int) -> None:
    """Keep `IN_FLIGHT` writes under way for ever; delete some once they are there."""
    store = LmdbStore(data_dir, 4 << 30)
    following = first

    def submit_next() -> None:
        nonlocal following
        executor.submit(WriteItem(following, name_of(following), value_of(following)))
        following += 1

    def completed(reply: StoreReply) -> None:
        assert not isinstance(reply, ReadDone)
        assert reply.status is WriteStatus.OK
        number = reply.ticket
        if number < 0:
            os.write(1, b"-%d\n" % -number)
            submit_next()
        elif number // BLOCK % 2 and number % 7 == 3:
            os.write(1, b"?%d\n" % number)
            executor.submit(DeleteItem(-number, name_of(number)))
        else:
            os.write(1, b"+%d\n" % number)
            submit_next()

    callbacks: SimpleQueue[tuple[Callable[..., None], tuple[object, ...]]] = SimpleQueue()
    executor = StoreExecutor(
        store, completed, lambda callback, *arguments: callbacks.put((callback, arguments))
    )
    os.write(1, b"ready\n")
    for _ in range(IN_FLIGHT):
        submit_next()
    while True:
        callback, arguments = callbacks.get()
        callback(*arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
