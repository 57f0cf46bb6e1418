"""A file that lacks pages, and one that only ends before pages that were never needed."""

import os
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from pastryd.errors import StoreError
from pastryd.ids import Name
from pastryd.protocol.outbox import DeleteItem, WriteItem
from pastryd.store.lmdb_pages import has_damaged_pages, has_lost_pages
from pastryd.store.lmdb_store import LmdbStore
from pastryd.store.lmdb_tree import LmdbTree

CAPACITY = 64 << 20
PAGE_BYTES = 4096


def write(number: int, size: int) -> WriteItem:
    return WriteItem(number, name_of(number), Random(number).randbytes(size))


def delete(number: int) -> DeleteItem:
    return DeleteItem(number, name_of(number))


def name_of(number: int) -> Name:
    return Name(sha256(b"%d" % number).digest())


def short_by(path: Path) -> int:
    """How many pages that were numbered lie beyond the end of the file."""
    tree = LmdbTree(path, CAPACITY)
    info = tree._environment.info()
    tree.close()
    return int(info["last_pgno"]) + 1 - (path / "data.mdb").stat().st_size // PAGE_BYTES


@pytest.mark.parametrize("size", [1_000, 50_000, 1 << 20])
def test_what_came_and_went_in_one_transaction_is_no_damage(tmp_path: Path, size: int) -> None:
    """The tree takes over what waits in the journal, and the delete that made it do so."""
    store = LmdbStore(tmp_path, CAPACITY)
    kept = write(1, 1_000)
    store.apply([kept])
    store.apply([write(2, size)])
    store.apply([write(3, size), delete(3), delete(2)])
    store.close()
    assert size < PAGE_BYTES or short_by(tmp_path / "store") > 0
    store = LmdbStore(tmp_path, CAPACITY)
    assert list(store.names()) == [kept.name]
    store.close()


def test_a_store_opens_again_after_any_batches(tmp_path: Path) -> None:
    random = Random(3)
    short = 0
    for number_of_store in range(10):
        path = tmp_path / str(number_of_store)
        path.mkdir()
        there: set[Name] = set()
        for _ in range(8):
            store = LmdbStore(path, CAPACITY)
            batch: list[WriteItem | DeleteItem] = []
            for _ in range(random.choice([3, 30])):
                number = random.randrange(40)
                if random.random() < 0.4:
                    batch.append(delete(number))
                    there.discard(name_of(number))
                else:
                    batch.append(write(number, random.choice([10, 1_000, 3_000, 50_000])))
                    there.add(name_of(number))
            store.apply(batch)
            assert list(store.names()) == sorted(there)
            store.close()
            assert not has_lost_pages(path / "store" / "data.mdb")
            short += short_by(path / "store") > 0
    assert short, "this seed has none of the files that this is about"


def test_a_long_free_list_is_read_to_its_end(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, CAPACITY)
    store.apply([write(number, 5_000) for number in range(2_000)])
    for at in range(0, 2_000, 3):  # a record for each transaction: a branch
        store.apply([delete(at)])
    store.apply([delete(number) for number in range(2_000)])  # one that fills pages of its own
    store.apply([write(3, 50_000), delete(3)])
    store.close()
    assert not has_lost_pages(tmp_path / "store" / "data.mdb")


def test_every_cut_through_pages_in_use_is_noticed(tmp_path: Path) -> None:
    LmdbTree(tmp_path, CAPACITY).close()
    tree = LmdbTree(tmp_path, CAPACITY)
    assert tree.apply([write(number, 9_000) for number in range(12)])
    tree.close()
    data = tmp_path / "data.mdb"
    assert not has_lost_pages(data)
    # Nothing was ever deleted; but the pages before a commit are free after it.
    for pages in range(data.stat().st_size // PAGE_BYTES - 1, -1, -1):
        os.truncate(data, pages * PAGE_BYTES)
        assert has_lost_pages(data), pages


def test_what_is_no_such_file_is_not_whole(tmp_path: Path) -> None:
    data = tmp_path / "data.mdb"
    for content in (b"", b"\xff" * 3 * PAGE_BYTES, Random(1).randbytes(5 * PAGE_BYTES)):
        data.write_bytes(content)
        assert has_lost_pages(data)
        assert has_damaged_pages(data)


def sample(path: Path) -> tuple[bytes, list[Name]]:
    """Make a store of small and large items and free pages; return its file and its names."""
    store = LmdbStore(path, CAPACITY)
    for number in range(0, 120, 10):
        store.apply([write(n, 9_000 if n % 10 == 0 else 700) for n in range(number, number + 10)])
        store.apply([delete(number + 1)])
    store.put_meta("identity", b"key")
    names = list(store.names())
    store.close()
    return (path / "store" / "data.mdb").read_bytes(), names


@pytest.mark.parametrize("damage", ["zeros", "ones", "random"])
def test_a_store_with_any_page_damaged_opens_with_all_names_or_says_what_to_do(
    tmp_path: Path, damage: str
) -> None:
    whole, names = sample(tmp_path)
    refused = 0
    for at in range(0, len(whole), PAGE_BYTES):
        fill = Random(at).randbytes(PAGE_BYTES)
        fill = {"zeros": bytes(PAGE_BYTES), "ones": b"\xff" * PAGE_BYTES, "random": fill}[damage]
        spoilt = whole[:at] + fill + whole[at + PAGE_BYTES :]
        (tmp_path / "store" / "data.mdb").write_bytes(spoilt)
        try:
            with closing(LmdbStore(tmp_path, CAPACITY)) as store:
                assert list(store.names()) == names
        except StoreError as error:
            assert "move the data directory away" in str(error)
            refused += 1
    assert refused > 30


def test_damage_within_a_page_is_an_answer_and_no_exception(tmp_path: Path) -> None:
    whole, _ = sample(tmp_path)
    data = tmp_path / "store" / "data.mdb"
    assert not has_damaged_pages(data)
    random = Random(4)
    answers = set()
    for _ in range(400):
        at = random.randrange(len(whole) // PAGE_BYTES) * PAGE_BYTES + random.randrange(200)
        fill = random.choice([bytes(8), b"\xff" * 8, random.randbytes(8)])
        with data.open("r+b") as file:
            file.seek(at)
            file.write(fill)
            file.flush()
            answers.add(has_damaged_pages(data))
            has_lost_pages(data)
            file.seek(at)
            file.write(whole[at : at + 8])
    assert answers == {True, False}
