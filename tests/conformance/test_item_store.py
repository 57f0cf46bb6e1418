"""The suite that every item store passes: `pastryd/store/base.py` put as claims.

A store is drawn through `open_store(capacity_bytes)`; what only one of them can do (durability,
data directories, full file systems) is in its own unit test.
"""

import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pastryd.ids import Name
from pastryd.protocol.outbox import DeleteItem, WriteItem, WriteStatus
from pastryd.store.base import ItemStore
from pastryd.store.lmdb_store import LmdbStore
from pastryd.store.memory import MemoryStore
from tests.conformance.faulty_store import FaultyStore

MIB = 1 << 20
OK = WriteStatus.OK
FULL = WriteStatus.FULL
OpenStore = Callable[[int], ItemStore]


def value_of(number: int, size: int = 100) -> bytes:
    return (b"%016d" % number) * (-(-size // 16)) if size else b""


def name_of(number: int) -> Name:
    return Name(sha256(b"%d" % number).digest())


def write(number: int, size: int = 100) -> WriteItem:
    return WriteItem(number, name_of(number), value_of(number, size)[:size])


def delete(number: int) -> DeleteItem:
    return DeleteItem(number, name_of(number))


def read(
    store: ItemStore, name: Name, offset: int = 0, length: int = -1
) -> tuple[bytes | None, int]:
    seen: list[tuple[bytes | None, int]] = []
    store.read(
        name,
        offset,
        length,
        lambda data, size: seen.append((None if data is None else bytes(data), size)),
    )
    [(data, size)] = seen
    return data, size


@pytest.fixture(params=["memory", "faulty", "lmdb"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    opened: list[ItemStore] = []

    def open_one(capacity_bytes: int) -> ItemStore:
        store: ItemStore
        if request.param == "lmdb":
            store = LmdbStore(tmp_path / str(len(opened)), capacity_bytes)
        else:
            store = MemoryStore(capacity_bytes)
            if request.param == "faulty":
                store = FaultyStore(store)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> ItemStore:
    return open_store(64 * MIB)


def test_a_new_store_is_empty(store: ItemStore) -> None:
    assert list(store.names()) == []
    assert store.item_count == 0
    assert store.capacity_bytes == 64 * MIB
    assert read(store, name_of(1)) == (None, 0)


@pytest.mark.parametrize("size", [0, 1, 100, 1900, 2000, 2048, 4096, 65_537, MIB])
def test_what_was_written_is_read_back_whole(store: ItemStore, size: int) -> None:
    assert store.apply([write(1, size)]) == [OK]
    assert read(store, name_of(1)) == (value_of(1, size)[:size], size)


def test_an_empty_item_is_not_an_absent_one(store: ItemStore) -> None:
    store.apply([write(1, 0)])
    assert read(store, name_of(1)) == (b"", 0)
    assert read(store, name_of(2)) == (None, 0)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_values_may_be_any_kind_of_bytes(store: ItemStore, kind: type) -> None:
    assert store.apply([WriteItem(1, name_of(1), kind(b"abc"))]) == [OK]
    assert read(store, name_of(1)) == (b"abc", 3)


def test_a_written_value_does_not_change_with_the_buffer_it_came_from(store: ItemStore) -> None:
    buffer = bytearray(b"abc")
    store.apply([WriteItem(1, name_of(1), memoryview(buffer))])
    buffer[0] = 0
    assert read(store, name_of(1)) == (b"abc", 3)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, -1, b"0123456789"),
        (3, -1, b"3456789"),
        (3, 4, b"3456"),
        (8, 100, b"89"),
        (10, -1, b""),
        (50, 5, b""),
        (0, 0, b""),
    ],
)
def test_a_range_is_cut_at_the_end_and_tells_the_whole_size(
    store: ItemStore, offset: int, length: int, expected: bytes
) -> None:
    store.apply([WriteItem(1, name_of(1), b"0123456789")])
    assert read(store, name_of(1), offset, length) == (expected, 10)


def test_a_read_may_be_nested_in_a_read(store: ItemStore) -> None:
    store.apply([write(1), write(2)])
    seen: list[bytes] = []

    def outer(data: memoryview | None, size: int) -> None:
        assert data is not None
        store.read(name_of(2), 0, -1, lambda inner, _: seen.append(bytes(inner or b"")))
        seen.append(bytes(data))

    store.read(name_of(1), 0, -1, outer)
    assert seen == [value_of(2)[:100], value_of(1)[:100]]


def test_an_exception_of_the_receiver_comes_out_and_harms_nothing(store: ItemStore) -> None:
    store.apply([write(1)])

    def refuse(data: memoryview | None, size: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.read(name_of(1), 0, -1, refuse)
    assert store.apply([write(2)]) == [OK]
    assert read(store, name_of(1))[1] == 100


def test_a_view_stays_as_it_is_while_others_write(store: ItemStore) -> None:
    store.apply([write(1, 5000)])

    def receive(data: memoryview | None, size: int) -> None:
        assert data is not None
        for number in range(2, 30):
            store.apply([delete(1), delete(number - 1), write(number, 5000)])
        assert bytes(data) == value_of(1, 5000)[:5000]

    store.read(name_of(1), 0, -1, receive)
    assert read(store, name_of(1)) == (None, 0)


def test_names_come_in_order_from_any_start(store: ItemStore) -> None:
    store.apply([write(number, 10) for number in range(500)])
    names = sorted(name_of(number) for number in range(500))
    assert list(store.names()) == names
    assert list(store.names(names[300])) == names[300:]
    assert list(store.names(names[300] + b"\0")) == names[301:]
    assert list(store.names(bytes([255]) * 32)) == []
    assert all(type(name) is bytes for name in store.names())


def test_a_scan_survives_writes_and_deletes_between_its_names(store: ItemStore) -> None:
    store.apply([write(number, 10) for number in range(500)])
    names = sorted(name_of(number) for number in range(500))
    scan = store.names()
    seen = list(islice(scan, 100))
    store.apply([delete(number) for number in range(500) if name_of(number) in names[50:60]])
    store.apply([write(number, 10) for number in range(500, 600)])
    seen += scan
    assert set(names) <= set(seen)
    assert seen == sorted(set(seen))


def test_an_existing_name_is_left_as_it_is(store: ItemStore) -> None:
    store.apply([write(1)])
    used = store.used_bytes
    assert store.apply([WriteItem(2, name_of(1), b"another value")]) == [OK]
    assert read(store, name_of(1))[0] == value_of(1)[:100]
    assert (store.item_count, store.used_bytes) == (1, used)


def test_the_same_name_twice_in_one_batch_is_one_item(store: ItemStore) -> None:
    assert store.apply([write(1), write(1)]) == [OK, OK]
    assert store.item_count == 1


def test_a_batch_happens_in_order(store: ItemStore) -> None:
    store.apply([write(1)])
    again = WriteItem(1, name_of(1), b"repaired")
    assert store.apply([delete(1), again, write(2), delete(2)]) == [OK] * 4
    assert read(store, name_of(1)) == (b"repaired", 8)
    assert list(store.names()) == [name_of(1)]


def test_deleting_what_is_not_there_succeeds(store: ItemStore) -> None:
    assert store.apply([delete(1)]) == [OK]
    assert store.apply([]) == []


def test_deleting_gives_the_space_back(store: ItemStore) -> None:
    before = store.used_bytes
    store.apply([write(number, 10_000) for number in range(20)])
    assert store.used_bytes >= before + 200_000
    assert store.item_count == 20
    store.apply([delete(number) for number in range(20)])
    assert store.item_count == 0
    assert store.used_bytes <= before + 20_000


@pytest.mark.parametrize("size", [1000, 10_000, 300_000])
def test_a_full_store_refuses_what_does_not_fit_and_only_that(
    open_store: OpenStore, size: int
) -> None:
    store = open_store(MIB)
    count = 2 * MIB // size
    statuses = store.apply([write(number, size) for number in range(count)])
    stored = [number for number in range(count) if statuses[number] is OK]
    assert set(statuses) == {OK, FULL}
    assert store.used_bytes <= MIB
    # Two of 1,000 bytes to a page of 4,096: the worst that a tree of pages does.
    assert len(stored) * size >= MIB * 2 // 5, "the capacity can be used"
    assert list(store.names()) == sorted(name_of(number) for number in stored)
    assert all(read(store, name_of(n))[0] == value_of(n, size)[:size] for n in stored)
    assert store.apply([write(stored[0], size)]) == [OK], "what is there costs nothing"


def test_a_full_store_takes_small_items_after_a_large_one_was_refused(
    open_store: OpenStore,
) -> None:
    store = open_store(MIB)
    assert store.apply([write(1, 2 * MIB), write(2)]) == [FULL, OK]


def test_a_full_store_takes_items_again_after_a_delete(open_store: OpenStore) -> None:
    store = open_store(MIB)
    number = 0
    while store.apply([write(number, 50_000)]) == [OK]:
        number += 1
    assert store.apply([delete(0), write(number, 50_000)]) == [OK, OK]
    assert store.apply([write(number + 1, 50_000)]) == [FULL]
    for more in range(number + 1, number + 50):
        assert store.apply([delete(more - number)]) == [OK]
        assert store.apply([write(more, 50_000)]) == [OK]


def test_meta_values_are_kept_apart_from_items(store: ItemStore) -> None:
    assert store.get_meta("identity") is None
    store.put_meta("identity", b"key")
    store.put_meta("identity", b"another key")
    store.put_meta("peers", b"")
    assert store.get_meta("identity") == b"another key"
    assert store.get_meta("peers") == b""
    assert list(store.names()) == []
    assert store.item_count == 0


def test_a_second_thread_may_write_while_this_one_reads(store: ItemStore) -> None:
    count = 200
    failures: list[WriteStatus] = []

    def run() -> None:
        for number in range(count):
            [status] = store.apply([write(number, 3000)])
            if status is not OK:
                failures.append(status)

    writer = threading.Thread(target=run)
    writer.start()
    rounds = 0
    while writer.is_alive():
        store.put_meta("round", b"%d" % rounds)
        for name in store.names():
            data, size = read(store, name)
            assert data is not None
            assert size == 3000
            assert data[:16] * 187 + data[:8] == data
        rounds += 1
    writer.join()
    assert failures == []
    assert store.item_count == count


def test_close_may_be_called_twice(open_store: OpenStore) -> None:
    store = open_store(MIB)
    store.close()
    store.close()


OPERATIONS = st.lists(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 12), st.sampled_from([0, 5, 2100, 9000])),
        max_size=6,
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(batches=OPERATIONS)
def test_lmdb_and_memory_agree_on_any_history(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[bool, int, int]]],
) -> None:
    model = MemoryStore()
    store = LmdbStore(tmp_path_factory.mktemp("history"), 64 * MIB)
    try:
        for batch in batches:
            requests = [write(n, size) if is_write else delete(n) for is_write, n, size in batch]
            assert store.apply(requests) == model.apply(requests)
            assert list(store.names()) == list(model.names())
            assert store.item_count == model.item_count
            for name in model.names():
                assert read(store, name) == read(model, name)
    finally:
        store.close()
