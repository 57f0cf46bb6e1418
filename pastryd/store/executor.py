"""Carries store requests from the loop to the store and the replies back.

Reads are answered at once, on the thread that asks: they are memory-mapped and cost microseconds.
Writes go to one writer thread that takes all that wait into one `apply`: while one sync runs the
next batch gathers, which is group commit without a timer. Large batches, copied into the page cache
for milliseconds, are applied on a second one that everybody goes before (decision 0025). Knows no
event loop, only `call_soon`.
"""

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from pastryd.errors import LocalProtocolError
from pastryd.priority import step_aside
from pastryd.protocol.outbox import (
    DeleteItem,
    ReadDone,
    ReadItem,
    StoreReply,
    StoreRequest,
    WriteDone,
    WriteItem,
    WriteStatus,
)
from pastryd.store.base import ItemStore

BATCH_BYTES_MAX = 16 << 20
"""Of values in one transaction: its pages are in memory twice until the commit."""

BATCH_WRITES_MAX = 4096

BULK_BYTES = 256 << 10
"""A batch of so many bytes of values is bulk."""

PENDING_BYTES_MAX = 256 << 20
PENDING_WRITES_MAX = 65_536
"""What waits for the disk at most. More is answered BUSY at once: the disk does not keep up."""

_Write = WriteItem | DeleteItem


class StoreExecutor:
    """The writer threads in front of a store. All methods belong to the loop's thread."""

    __slots__ = (
        "_bulk",
        "_bulk_applied",
        "_call_soon",
        "_closed",
        "_completed",
        "_queue",
        "_store",
        "_threads",
        "_ticket",
        "pending_bytes",
        "pending_writes",
        "refused_writes",
    )

    def __init__(
        self,
        store: ItemStore,
        completed: Callable[[StoreReply], None],
        call_soon: Callable[..., object],
    ) -> None:
        """Start the writers: later there may be no room for a thread.

        `completed` is called on the loop's thread only: for reads from within `submit`, for writes
        through `call_soon(callback, *arguments)`, which must be callable from any thread.
        """
        self._store = store
        self._completed = completed
        self._call_soon = call_soon
        self._ticket = 0
        self._closed = False
        self.pending_bytes = 0
        self.pending_writes = 0
        self.refused_writes = 0
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._bulk: SimpleQueue[list[_Write] | None] = SimpleQueue()
        self._bulk_applied: SimpleQueue[None] = SimpleQueue()
        # Daemons: a disk that hangs must not keep the process from its end.
        self._threads = [
            threading.Thread(target=self._run, name="store-writer", daemon=True),
            threading.Thread(target=self._run_bulk, name="store-bulk", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, request: StoreRequest) -> None:
        """Take a request. Values must not be changed before their reply.

        A read may be answered, and the answer lead to further `submit`s, before this returns. A
        read does not see writes that were not answered yet.
        """
        if type(request) is ReadItem:
            self._ticket = request.ticket
            self._store.read(request.name, request.offset, request.length, self._read_done)
            return
        assert isinstance(request, WriteItem | DeleteItem)
        if self._closed:
            raise LocalProtocolError("the store is closed")
        size = _size(request)
        if (
            self.pending_writes >= PENDING_WRITES_MAX
            or self.pending_bytes + size > PENDING_BYTES_MAX
        ):
            self.refused_writes += 1
            self._completed(WriteDone(request.ticket, WriteStatus.BUSY))
            return
        self.pending_bytes += size
        self.pending_writes += 1
        self._queue.put(request)

    def close(self) -> None:
        """Finish what was accepted, then stop. The replies are with `call_soon` then."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _read_done(self, data: memoryview | None, size: int) -> None:
        # The ticket is taken before anyone is told, who may submit another read.
        self._completed(ReadDone(self._ticket, data, size))

    def _writes_done(self, batch: Sequence[_Write], statuses: Sequence[WriteStatus]) -> None:
        self.pending_writes -= len(batch)
        self.pending_bytes -= sum(map(_size, batch))
        completed = self._completed
        for request, status in zip(batch, statuses, strict=True):
            completed(WriteDone(request.ticket, status))

    def _raise(self, error: BaseException) -> None:
        raise error

    def _run(self) -> None:
        """Be the writer thread: apply batch after batch until told to stop."""
        going_on = True
        while going_on:
            batch, batch_bytes, going_on = self._next_batch()
            if not batch:
                continue
            if batch_bytes < BULK_BYTES:
                self._apply(batch)
            else:
                self._bulk.put(batch)
                self._bulk_applied.get()  # writes keep their order
            del batch
        self._bulk.put(None)

    def _run_bulk(self) -> None:
        """Be the thread that applies bulk."""
        step_aside()
        while (batch := self._bulk.get()) is not None:
            self._apply(batch)
            del batch  # up to 16 MiB, which would stay until there is bulk again
            self._bulk_applied.put(None)

    def _apply(self, batch: Sequence[_Write]) -> None:
        try:
            statuses = self._store.apply(batch)
        except Exception as error:
            # Our bug, or a store that is lost: it belongs to the driver, which stops the node.
            # A dead writer that lets everybody wait would hide it.
            self._tell(self._raise, error)
            statuses = [WriteStatus.FAILED] * len(batch)
        self._tell(self._writes_done, batch, statuses)

    def _next_batch(self) -> tuple[list[_Write], int, bool]:
        """Wait for a request and take all that are behind it, within bounds, and their bytes.

        False: these are the last.
        """
        batch: list[_Write] = []
        batch_bytes = 0
        request = self._queue.get()
        while request is not None:
            batch.append(request)
            batch_bytes += _size(request)
            if batch_bytes >= BATCH_BYTES_MAX or len(batch) >= BATCH_WRITES_MAX:
                return batch, batch_bytes, True
            try:
                request = self._queue.get_nowait()
            except Empty:
                return batch, batch_bytes, True
        return batch, batch_bytes, False

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._call_soon(callback, *arguments)
        except RuntimeError:
            # The loop is gone, nobody waits for replies; what was accepted is still finished.
            return


def _size(request: _Write) -> int:
    return memoryview(request.value).nbytes if type(request) is WriteItem else 0
