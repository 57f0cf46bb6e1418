"""What the client library makes of index entries and chunks that are lies."""

import hashlib
import os

import pytest

from pastryd.client import Client
from pastryd.errors import CorruptError
from pastryd.ids import Name
from pastryd.protocol.items import CHUNK_BYTES, IndexEntry, ManifestBuilder, Value, name_of
from tests.support.running_node import Running

pytestmark = pytest.mark.e2e


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _lie(running: Running, key: Name, data: bytes) -> None:
    """Store an index entry at `key` whose manifest lists other bytes."""
    builder = ManifestBuilder()
    for at in range(0, len(data), CHUNK_BYTES):
        chunk = data[at : at + CHUNK_BYTES]
        running.node.items[name_of(chunk)] = chunk
        builder.add(name_of(chunk), len(chunk))
    for name, value in builder.finish():
        running.node.items[name] = value
    entry = IndexEntry(key, name, len(data))
    running.node.items[entry.name] = entry.encode()


async def test_a_lying_index_entry_is_passed_over_when_the_output_can_begin_again(
    running: Running,
) -> None:
    data = os.urandom(CHUNK_BYTES + 10)
    key = Name(bytes.fromhex(_sha(data)))
    _lie(running, key, os.urandom(CHUNK_BYTES + 9))
    async with Client(running.address) as client:
        with pytest.raises(CorruptError):
            await client.get(key.hex())
        await client.put(data)
        assert await client.get(key.hex()) == data
        with pytest.raises(CorruptError):
            async for _ in client.stream(key.hex()):
                pass


async def test_an_entry_that_lies_of_its_size_alone_leaves_nothing_in_a_get(
    running: Running,
) -> None:
    data = os.urandom(CHUNK_BYTES + 10)
    key = Name(bytes.fromhex(_sha(data)))
    for size in (CHUNK_BYTES + 11, 10 * CHUNK_BYTES):
        entry = IndexEntry(key, Name(bytes(32)), size)
        running.node.items[entry.name] = entry.encode()
    async with Client(running.address) as client:
        await client.put(data)
        assert await client.get(key.hex()) == data


async def test_an_entry_that_claims_more_than_the_true_one_is_not_even_tried(
    running: Running,
) -> None:
    data = os.urandom(CHUNK_BYTES + 10)
    _lie(running, Name(bytes.fromhex(_sha(data))), bytes(3 * CHUNK_BYTES))
    async with Client(running.address) as client:
        key = (await client.put(data)).key
        pieces = [bytes(piece) async for piece in client.stream(key)]  # would raise at a lie
        assert b"".join(pieces) == data


class _LiesUntilAskedAgain(dict[Name, Value]):
    """Items of which one is told wrongly until its manifest is asked for once more."""

    def __init__(self, items: dict[Name, Value], name: Name) -> None:
        super().__init__(items)
        self.name = name
        self.manifest = IndexEntry.decode(list(items.values())[-1]).manifest
        self.asked = 0

    def get(self, name: Name, default: Value | None = None) -> Value | None:
        self.asked += name == self.manifest
        value = super().get(name, default)
        lies = name == self.name and self.asked < 2
        return bytes(CHUNK_BYTES) if lies else value


async def test_wrong_bytes_of_a_large_blob_are_got_again_and_each_chunk_verified_from_then_on(
    running: Running,
) -> None:
    data = os.urandom(3 * CHUNK_BYTES)
    middle = name_of(data[CHUNK_BYTES : 2 * CHUNK_BYTES])
    async with Client(running.address) as client:
        counters = client._link._session.stats.counters
        key = (await client.put(data)).key
        for is_first in (True, False):
            items = _LiesUntilAskedAgain(running.node.items, middle)
            running.node.items = items
            if is_first:
                assert await client.get(key) == data
                assert items.asked == 2 and "pulls_corrupt" not in counters
            else:
                with pytest.raises(CorruptError):  # the access node has the last word
                    await client.get(key)
                assert items.asked == 1 and counters["pulls_corrupt"] == 1


async def test_a_node_that_always_lies_is_told_apart_from_a_blob(running: Running) -> None:
    data = os.urandom(3 * CHUNK_BYTES)
    async with Client(running.address) as client:
        key = (await client.put(data)).key
        running.node.items[name_of(data[:CHUNK_BYTES])] = bytes(CHUNK_BYTES)
        for _ in range(2):
            with pytest.raises(CorruptError):
                await client.get(key)
