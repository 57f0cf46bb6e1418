"""The faults that the fault-injecting store can show; its good side is in `test_item_store.py`."""

import pytest

from pastryd.errors import StoreError
from pastryd.ids import Name
from pastryd.protocol.outbox import DeleteItem, WriteItem, WriteStatus
from pastryd.store.memory import MemoryStore
from tests.conformance.faulty_store import FaultyStore

NAME = Name(bytes(32))


def test_a_refused_write_leaves_no_trace() -> None:
    store = FaultyStore(MemoryStore())
    store.next_statuses.extend([WriteStatus.FULL, WriteStatus.FAILED])
    request = WriteItem(1, NAME, b"abc")
    assert store.apply([request, request]) == [WriteStatus.FULL, WriteStatus.FAILED]
    assert store.item_count == 0
    assert store.apply([request]) == [WriteStatus.OK]


def test_a_flipped_bit_is_seen_by_each_read_until_the_item_is_replaced() -> None:
    store = FaultyStore(MemoryStore())
    store.apply([WriteItem(1, NAME, b"abc")])
    store.flipped_bits[NAME] = 8
    seen: list[bytes] = []

    def receive(data: memoryview | None, size: int) -> None:
        seen.append(bytes(data or b""))

    store.read(NAME, 0, -1, receive)
    store.read(NAME, 1, 1, receive)
    store.read(NAME, 2, -1, receive)
    store.apply([DeleteItem(1, NAME), WriteItem(2, NAME, b"abc")])
    store.read(NAME, 0, -1, receive)
    assert seen == [b"acc", b"c", b"c", b"abc"]


def test_meta_can_be_refused() -> None:
    store = FaultyStore(MemoryStore())
    store.meta_refused = True
    with pytest.raises(StoreError):
        store.put_meta("identity", b"key")
