"""The executor: reads at once, writes grouped, replies on the loop's thread, nothing unbounded."""

import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import pytest

from pastryd.errors import LocalProtocolError
from pastryd.ids import Name
from pastryd.priority import NICE_MAX, NICER
from pastryd.protocol.outbox import (
    DeleteItem,
    ReadDone,
    ReadItem,
    StoreReply,
    WriteDone,
    WriteItem,
    WriteStatus,
)
from pastryd.store import executor as executor_module
from pastryd.store.executor import StoreExecutor
from pastryd.store.memory import MemoryStore

OK = WriteStatus.OK
WAIT_S = 30


def name_of(number: int) -> Name:
    return Name(number.to_bytes(32, "big"))


class GatedStore(MemoryStore):
    """A disk whose syncs end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[WriteItem | DeleteItem]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.error: Exception | None = None

    def apply(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus]:
        self.batches.append(list(requests))
        self.entered.release()
        assert self.gate.acquire(timeout=WAIT_S)
        if self.error is not None:
            raise self.error
        return super().apply(requests)


class Loop:
    """The part of an event loop that the executor knows: callbacks from any thread, run by one."""

    def __init__(self) -> None:
        self.callbacks: SimpleQueue[tuple[Callable[..., None], tuple[object, ...]]] = SimpleQueue()
        self.replies: list[tuple[int, object]] = []
        self.gone = False

    def call_soon(self, callback: Callable[..., None], *arguments: object) -> None:
        if self.gone:
            raise RuntimeError("the loop is closed")
        self.callbacks.put((callback, arguments))

    def run_one(self) -> None:
        callback, arguments = self.callbacks.get(timeout=WAIT_S)
        callback(*arguments)

    def completed(self, reply: StoreReply) -> None:
        if isinstance(reply, WriteDone):
            self.replies.append((reply.ticket, reply.status))
        else:
            assert isinstance(reply, ReadDone)
            data = None if reply.data is None else bytes(reply.data)
            self.replies.append((reply.ticket, (data, reply.size)))


def write(number: int, value: bytes | bytearray = b"abc") -> WriteItem:
    return WriteItem(number, name_of(number), value)


def test_a_read_is_answered_before_submit_returns() -> None:
    loop, store = Loop(), MemoryStore()
    store.apply([write(1, b"0123")])
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    executor.submit(ReadItem(7, name_of(1), 1, 2))
    executor.submit(ReadItem(8, name_of(2), 0, -1))
    assert loop.replies == [(7, (b"12", 4)), (8, (None, 0))]
    executor.close()


def test_a_reply_may_lead_to_further_requests_at_once() -> None:
    store = MemoryStore()
    store.apply([write(1), write(2)])
    tickets: list[int] = []

    def completed(reply: StoreReply) -> None:
        if reply.ticket < 5:
            executor.submit(ReadItem(reply.ticket + 1, name_of(2), 0, -1))
        tickets.append(reply.ticket)

    executor = StoreExecutor(store, completed, Loop().call_soon)
    executor.submit(ReadItem(1, name_of(1), 0, -1))
    assert tickets == [5, 4, 3, 2, 1]
    executor.close()


def test_writes_that_wait_for_a_sync_share_the_next_one_and_one_callback() -> None:
    loop, store = Loop(), GatedStore()
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    executor.submit(write(1))
    assert store.entered.acquire(timeout=WAIT_S)
    for number in range(2, 50):
        executor.submit(write(number))
    executor.submit(DeleteItem(50, name_of(1)))
    assert (executor.pending_writes, executor.pending_bytes) == (50, 49 * 3)
    assert loop.replies == []
    store.gate.release(2)
    loop.run_one()
    assert loop.replies == [(1, OK)]
    assert executor.pending_writes == 49
    loop.run_one()
    assert loop.replies == [(number, OK) for number in range(1, 51)]
    assert [len(batch) for batch in store.batches] == [1, 49]
    assert (executor.pending_writes, executor.pending_bytes) == (0, 0)
    assert loop.callbacks.empty()
    executor.close()


def test_a_batch_is_bounded_in_bytes_and_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "BATCH_BYTES_MAX", 100)
    monkeypatch.setattr(executor_module, "BATCH_WRITES_MAX", 4)
    loop, store = Loop(), GatedStore()
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    executor.submit(write(0))
    assert store.entered.acquire(timeout=WAIT_S)
    for number in range(1, 4):
        executor.submit(write(number, bytes(60)))
    for number in range(4, 10):
        executor.submit(write(number, b""))
    store.gate.release(100)
    executor.close()
    assert [len(batch) for batch in store.batches] == [1, 2, 4, 3]


def test_more_than_may_wait_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "PENDING_BYTES_MAX", 100)
    monkeypatch.setattr(executor_module, "PENDING_WRITES_MAX", 3)
    loop, store = Loop(), GatedStore()
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    executor.submit(write(1, bytes(60)))
    executor.submit(write(2, bytes(60)))
    executor.submit(write(3, b""))
    executor.submit(write(4, b""))
    executor.submit(write(5, b""))
    assert loop.replies == [(2, WriteStatus.BUSY), (5, WriteStatus.BUSY)]
    assert (executor.pending_writes, executor.refused_writes) == (3, 2)
    store.gate.release(100)
    executor.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_everybody_goes_before_a_bulk_write() -> None:
    class NotingStore(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.nice: list[int] = []

        def apply(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus]:
            self.nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().apply(requests)

    loop, store = Loop(), NotingStore()
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    for number, size in enumerate((1, executor_module.BULK_BYTES, 1)):
        executor.submit(write(number, bytes(size)))
        loop.run_one()
    executor.close()
    assert store.nice == [ours, min(ours + NICER, NICE_MAX), ours]
    assert loop.replies == [(0, OK), (1, OK), (2, OK)]


def test_a_bug_in_a_bulk_write_comes_out_as_any_other() -> None:
    loop, store = Loop(), GatedStore()
    store.error = ZeroDivisionError("bulk")
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    executor.submit(write(1, bytes(executor_module.BULK_BYTES)))
    store.gate.release()
    with pytest.raises(ZeroDivisionError, match="bulk"):
        loop.run_one()
    loop.run_one()
    assert loop.replies == [(1, WriteStatus.FAILED)]
    executor.close()


UNTIL_IT_HANGS = """
import sys, threading
from pastryd.ids import Name
from pastryd.protocol.outbox import WriteItem
from pastryd.store.executor import StoreExecutor
from pastryd.store.memory import MemoryStore

class HangingStore(MemoryStore):
    entered = threading.Event()

    def apply(self, requests):
        self.entered.set()
        threading.Event().wait()

store = HangingStore()
executor = StoreExecutor(store, print, print)
executor.submit(WriteItem(1, Name(bytes(32)), bytes(int(sys.argv[1]))))
store.entered.wait()
"""


@pytest.mark.parametrize("size", [1, executor_module.BULK_BYTES])
def test_a_write_that_hangs_does_not_keep_the_process_from_its_end(size: int) -> None:
    command = [sys.executable, "-c", UNTIL_IT_HANGS, str(size)]
    assert subprocess.run(command, timeout=WAIT_S, check=False).returncode == 0


def test_all_threads_are_there_from_the_start_and_gone_at_the_end() -> None:
    loop = Loop()
    before = threading.active_count()
    executor = StoreExecutor(MemoryStore(), loop.completed, loop.call_soon)
    begun = threading.active_count()
    executor.submit(write(1, bytes(executor_module.BULK_BYTES)))
    loop.run_one()
    assert threading.active_count() == begun
    executor.close()
    assert threading.active_count() == before


def test_what_is_written_is_not_kept_in_memory() -> None:
    class Tracked(bytearray):
        """Can be referred to weakly."""

    class ForgetfulStore(MemoryStore):
        def apply(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus]:
            return [OK] * len(requests)

    loop = Loop()
    executor = StoreExecutor(ForgetfulStore(), loop.completed, loop.call_soon)
    value = Tracked(executor_module.BULK_BYTES)
    still_there = weakref.ref(value)
    executor.submit(write(1, value))
    del value
    loop.run_one()
    executor.submit(write(2))
    loop.run_one()
    assert still_there() is None
    executor.close()


def test_close_finishes_what_was_accepted_and_takes_no_more() -> None:
    loop, store = Loop(), GatedStore()
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    for number in range(10):
        executor.submit(write(number))
    store.gate.release(100)
    executor.close()
    executor.close()
    assert store.item_count == 10
    with pytest.raises(LocalProtocolError):
        executor.submit(write(11))
    while not loop.callbacks.empty():
        loop.run_one()
    assert loop.replies == [(number, OK) for number in range(10)]


def test_a_loop_that_is_gone_does_not_stop_the_writer() -> None:
    loop, store = Loop(), GatedStore()
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    loop.gone = True
    executor.submit(write(1))
    assert store.entered.acquire(timeout=WAIT_S)
    executor.submit(write(2))
    store.gate.release(100)
    executor.close()
    assert store.item_count == 2


def test_a_bug_in_the_store_comes_out_on_the_loop_and_leaves_nobody_waiting() -> None:
    loop, store = Loop(), GatedStore()
    store.error = ZeroDivisionError("our bug")
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    executor.submit(write(1))
    store.gate.release(100)
    with pytest.raises(ZeroDivisionError, match="our bug"):
        loop.run_one()
    loop.run_one()
    assert loop.replies == [(1, WriteStatus.FAILED)]
    executor.close()


def test_sizes_are_counted_in_bytes_whatever_the_buffer() -> None:
    loop, store = Loop(), GatedStore()
    executor = StoreExecutor(store, loop.completed, loop.call_soon)
    executor.submit(WriteItem(1, name_of(1), memoryview(bytes(80)).cast("Q")))
    executor.submit(WriteItem(2, name_of(2), bytearray(5)))
    assert executor.pending_bytes == 85
    store.gate.release(100)
    executor.close()
