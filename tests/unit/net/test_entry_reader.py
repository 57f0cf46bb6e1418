"""What a get makes of a key's index entries when some lie and some cannot be reached."""

from random import Random

import msgpack
import pytest

from pastryd.errors import CorruptError, NotFoundError, UnreachableError
from pastryd.ids import Name
from pastryd.net.entry_reader import ANSWERS_MAX, EntryReader
from pastryd.protocol.client_call import Reply
from pastryd.protocol.items import (
    CHUNK_BYTES,
    FANOUT,
    IndexEntry,
    Manifest,
    ManifestBuilder,
    Value,
    name_of,
)
from pastryd.wire.verbs import AnswerStatus


class Items:
    """Items, of which some cannot be reached for the moment, and how much was fetched of them."""

    def __init__(self) -> None:
        self.values: dict[Name, Value] = {}
        self.unreachable: set[Name] = set()
        self.fetched = 0
        self.fetched_max = 1 << 40

    async def get(self, name: Name, checked: bool) -> Reply:
        """Return an item, as the network would."""
        if name in self.unreachable:
            raise UnreachableError(f"{name.hex()}: the nodes that have it cannot be reached now")
        value = self.values.get(name)
        if value is None:
            raise NotFoundError(f"{name.hex()}: not found")
        self.fetched += len(value)
        assert self.fetched <= self.fetched_max, "a get without end"
        return Reply(AnswerStatus.OK, 0, name, value, 0.0)

    def add(self, value: Value) -> Name:
        """Keep an object."""
        name = name_of(value)
        self.values[name] = value
        return name

    def add_blob(self, data: bytes) -> IndexEntry:
        """Keep the chunks and the manifest of a large blob; return its entry."""
        builder = ManifestBuilder()
        for at in range(0, len(data), CHUNK_BYTES):
            chunk = data[at : at + CHUNK_BYTES]
            builder.add(self.add(chunk), len(chunk))
        for name, value in builder.finish():
            self.values[name] = value
        return IndexEntry(name_of(data), name, len(data))

    def add_lie(self, key: Name, chunks: int) -> IndexEntry:
        """Keep a manifest that lists one chunk again and again; return an entry that names it."""
        chunk = self.add(bytes(CHUNK_BYTES))
        manifest = Manifest(0, chunks * CHUNK_BYTES, chunk * chunks)
        return IndexEntry(key, self.add(manifest.encode()), chunks * CHUNK_BYTES)


async def read(items: Items, key: Name, *entries: IndexEntry) -> bytes:
    records = msgpack.packb([entry.encode() for entry in entries])
    pieces: list[bytes] = []
    async for piece in EntryReader(items.get).stream(key, records, pieces.clear, None):
        pieces.append(bytes(piece))
    return b"".join(pieces)


async def test_lies_that_claim_more_than_what_cannot_be_reached_cost_a_bounded_number_of_bytes():
    items = Items()
    data = Random(1).randbytes(2 * CHUNK_BYTES)
    entry = items.add_blob(data)
    key = entry.key
    lies = [items.add_lie(key, FANOUT - i) for i in range(3)]
    items.unreachable.add(name_of(data[CHUNK_BYTES:]))
    items.fetched_max = 100 * CHUNK_BYTES
    with pytest.raises(UnreachableError):
        await read(items, key, entry, *lies)
    items.unreachable.clear()
    assert await read(items, key, entry, *lies) == data


async def test_what_cannot_be_reached_does_not_hide_a_larger_true_entry():
    items = Items()
    data = Random(2).randbytes(20 * CHUNK_BYTES)
    entry = items.add_blob(data)
    lie = IndexEntry(entry.key, Name(bytes(32)), CHUNK_BYTES + 1)
    items.unreachable.add(lie.manifest)
    assert await read(items, entry.key, lie, entry) == data


async def test_who_was_told_nothing_but_lies_asks_once_more():
    items = Sampled(told=4)
    data = Random(3).randbytes(3 * CHUNK_BYTES)
    entry = items.add_blob(data)
    lies = [items.add_lie(entry.key, chunks) for chunks in (2, 4)]
    items.entries = [entry, *lies]
    assert await read(items, entry.key, *lies) == data
    assert items.asked == 1
    items.entries = [*lies]
    with pytest.raises(CorruptError):
        await read(items, entry.key, *lies)
    assert items.asked == 2


class Sampled(Items):
    """Items with a key whose holders have more index entries than they tell at one time."""

    def __init__(self, told: int) -> None:
        super().__init__()
        self.told = told
        self.entries: list[IndexEntry] = []
        self.asked = 0
        self.choose = Random(5)

    async def get(self, name: Name, checked: bool) -> Reply:
        """Return some of the entries of the key."""
        if self.entries and name == self.entries[0].key:
            self.asked += 1
            return Reply(AnswerStatus.INDEX, 0, b"", self.sample(), 0.0)
        return await super().get(name, checked)

    def sample(self) -> bytes:
        """Return the document of an answer."""
        entries = self.choose.sample(self.entries, min(self.told, len(self.entries)))
        return bytes(msgpack.packb([entry.encode() for entry in entries]))


async def get_sampled(items: Sampled, key: Name) -> bytes:
    return b"".join(
        [bytes(p) async for p in EntryReader(items.get).stream(key, items.sample(), list, None)]
    )


async def test_the_true_entry_is_found_among_more_than_an_answer_tells():
    items = Sampled(8)
    entry = items.add_blob(Random(3).randbytes(2 * CHUNK_BYTES))
    lies = [IndexEntry(entry.key, Name(bytes([i]) * 32), CHUNK_BYTES + i) for i in range(1, 16)]
    items.entries = [entry, *lies]
    for _ in range(30):
        assert name_of(await get_sampled(items, entry.key)) == entry.key
    assert items.asked <= 30 * ANSWERS_MAX


async def test_who_gives_other_entries_each_time_does_not_crowd_out_those_that_others_hold():
    items = Sampled(12)
    entry = items.add_blob(Random(4).randbytes(2 * CHUNK_BYTES))

    def sample() -> bytes:
        made_up = [Name(items.choose.randbytes(32)) for _ in range(11)]
        lies = [IndexEntry(entry.key, name, CHUNK_BYTES + 1) for name in made_up]
        return bytes(msgpack.packb([e.encode() for e in (entry, *lies)]))

    items.entries = [entry]
    items.sample = sample  # type: ignore[method-assign]
    assert name_of(await get_sampled(items, entry.key)) == entry.key
    assert items.asked == ANSWERS_MAX - 1


async def test_a_key_of_one_entry_is_asked_for_once():
    items = Sampled(8)
    entry = items.add_blob(Random(6).randbytes(2 * CHUNK_BYTES))
    items.entries = [entry]
    assert name_of(await get_sampled(items, entry.key)) == entry.key
    assert not items.asked
