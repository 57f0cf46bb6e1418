"""The client library against an access node on a real socket: seals, transfer, blob rules."""

import asyncio
import hashlib
import io
import os
import socket
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import BinaryIO

import pytest

from pastryd.client import Client, PutUnderReplicatedError
from pastryd.errors import (
    ConfigError,
    CorruptError,
    LocalProtocolError,
    NotFoundError,
    UnreachableError,
)
from pastryd.net import access_link
from pastryd.protocol.items import CHUNK_BYTES, IndexEntry, name_of
from pastryd.wire.verbs import AnswerStatus, Verb
from tests.support.running_node import Running

pytestmark = pytest.mark.e2e


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 1000, 1100, 5000, CHUNK_BYTES])
async def test_a_small_blob_is_one_object_under_its_sha256(running: Running, size: int) -> None:
    data = os.urandom(size)
    async with Client(running.address) as client:
        result = await client.put(data)
        assert (result.key, result.size, result.copies) == (_sha(data), size, 3)
        assert list(running.node.items) == [bytes.fromhex(result.key)]
        assert await client.get(result.key) == data


async def test_a_large_blob_is_chunks_a_manifest_and_last_an_index_entry(running: Running) -> None:
    data = os.urandom(12 * CHUNK_BYTES + 7)
    seen: list[tuple[int, int | None]] = []
    async with Client(running.address) as client:
        result = await client.put(io.BytesIO(data), lambda done, of: seen.append((done, of)))
        assert result.key == _sha(data)
        assert seen[-1][0] == len(data)
        assert len(running.node.items) == 13 + 2
        entry = IndexEntry.decode(list(running.node.items.values())[-1])
        assert entry.key.hex() == result.key
        assert await client.get(result.key) == data


async def test_a_source_may_come_in_pieces_of_any_size(running: Running) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 12345)

    async def pieces() -> AsyncIterator[bytes]:
        sizes = Random(3)
        at = 0
        while at < len(data):
            size = sizes.choice([1, 1000, CHUNK_BYTES // 2, CHUNK_BYTES, 3 * CHUNK_BYTES])
            yield data[at : at + size]
            at += size

    async with Client(running.address) as client:
        by_pieces = await client.put(pieces())
        whole = await client.put(data)
        assert by_pieces == whole
        assert len(running.node.items) == 3 + 2


async def test_a_source_that_has_nothing_yet_is_not_taken_for_its_end(running: Running) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b"some bytes")
    async with Client(running.address) as client:
        with open(reading, "rb", buffering=0) as source, pytest.raises(ConfigError, match="block"):
            await client.put(source)
    os.close(writing)
    assert not running.node.items


async def words() -> AsyncIterator[str]:
    yield "words"


@pytest.mark.parametrize(
    "source",
    ["text", None, [b"a"], iter([b"a"]), io.StringIO("text"), memoryview(b"abcdef")[::2], words()],
    ids=lambda source: type(source).__name__,
)
async def test_what_cannot_be_put_is_told_in_a_line(running: Running, source: BinaryIO) -> None:
    async with Client(running.address) as client:
        with pytest.raises(LocalProtocolError, match="give bytes"):
            await client.put(source)
    assert not running.node.items


async def test_a_buffer_that_changes_while_it_is_put_is_stored_as_it_was_read(
    running: Running,
) -> None:
    source = bytearray(os.urandom(6 * CHUNK_BYTES))
    async with Client(running.address) as client:
        putting = asyncio.create_task(client.put(memoryview(source).toreadonly()))
        while not putting.done():
            source[:: CHUNK_BYTES // 16] = os.urandom(96)
            await asyncio.sleep(0)
        result = await putting
        assert _sha(await client.get(result.key)) == result.key


async def test_what_nobody_has_is_not_found(running: Running) -> None:
    async with Client(running.address) as client:
        with pytest.raises(NotFoundError):
            await client.get("0" * 64)
        for bad in ("not a key", bytes(32), None):
            with pytest.raises(ConfigError, match="key"):
                await client.get(bad)


async def test_fewer_copies_than_wanted_are_told_with_the_key(running: Running) -> None:
    running.node.put_status, running.node.copies = AnswerStatus.UNDER_REPLICATED, 2
    async with Client(running.address) as client:
        with pytest.raises(PutUnderReplicatedError) as caught:
            await client.put(b"data")
        assert caught.value.result.copies == 2
        assert caught.value.result.key == _sha(b"data")


async def test_pending_keeps_the_client_waiting_and_asking(running: Running) -> None:
    running.node.items[name_of(b"data")] = b"data"
    running.node.pending_answers = 2
    async with Client(running.address) as client:
        assert await client.get(_sha(b"data")) == b"data"
    assert running.node.requests == [Verb.GET] * 3


async def test_a_busy_node_is_asked_again(running: Running) -> None:
    running.node.items[name_of(b"data")] = b"data"
    running.node.refusals = [AnswerStatus.BUSY] * 2
    async with Client(running.address) as client:
        assert await client.get(_sha(b"data")) == b"data"


async def test_a_node_that_doubts_itself_in_the_middle_is_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_link, "NOT_READY_TIMEOUT_S", 0.0)
    async with Client(running.address) as client:
        await client.put(b"data")
        running.node.refusals = [AnswerStatus.NOT_READY] * 3
        assert await client.get(_sha(b"data")) == b"data"
        assert not running.node.refusals


async def test_a_node_that_never_joined_is_not_waited_for_long(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_link, "NOT_READY_TIMEOUT_S", 0.0)
    running.node.active = False
    running.node.refusals = [AnswerStatus.NOT_READY] * 3
    async with Client(running.address) as client:
        with pytest.raises(access_link.RefusedError, match="has not joined its ring yet"):
            await client.put(b"data")
        assert len(running.node.refusals) == 2


async def test_the_name_of_an_index_entry_is_no_key(running: Running) -> None:
    async with Client(running.address) as client:
        await client.put(os.urandom(CHUNK_BYTES + 1))
        name, record = list(running.node.items.items())[-1]
        assert name == IndexEntry.decode(record).name
        with pytest.raises(NotFoundError):
            await client.get(name.hex())
        with pytest.raises(NotFoundError):
            await anext(client.stream(name.hex()))
        key = (await client.put(bytes(record))).key  # as a blob of its own it is one
        assert await client.get(key) == record


async def test_a_lost_chunk_is_not_found_and_not_half_a_blob(running: Running) -> None:
    data = os.urandom(3 * CHUNK_BYTES)
    async with Client(running.address) as client:
        key = (await client.put(data)).key
        del running.node.items[name_of(data[CHUNK_BYTES : 2 * CHUNK_BYTES])]
        with pytest.raises(NotFoundError):
            await client.get(key)


async def test_many_requests_may_be_under_way_at_once(running: Running) -> None:
    values = [os.urandom(1 + i * 100) for i in range(100)]
    async with Client(running.address) as client:
        results = await asyncio.gather(*map(client.put, values))
        assert [r.key for r in results] == list(map(_sha, values))
        assert await asyncio.gather(*(client.get(r.key) for r in results)) == values


async def test_status_is_a_document_of_any_size_and_ping_names_the_node(running: Running) -> None:
    async with Client(running.address) as client:
        own_id = f"{running.node.identity.id:032x}"
        assert (await client.status())["id"] == own_id
        answer = await client.ping()
        assert (answer.id, answer.active, answer.address) == (own_id, True, running.address)


@pytest.mark.parametrize("document", [b"[" * 500_000, b"{", b"\xff\xfe{}", b"[]" + b" " * 3000])
async def test_an_answer_that_is_no_document_is_an_error_of_that_node(
    running: Running, document: bytes
) -> None:
    running.node.document = document
    async with Client(running.address) as client:
        with pytest.raises(CorruptError):
            await client.status()


async def test_another_network_key_gets_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_link, "CONNECT_TIMEOUT_S", 0.3)
    running = Running(network_key=b"k" * 32)
    async with Client(running.address) as client:
        with pytest.raises(UnreachableError, match="network key"):
            await client.ping()
    assert running.node.context.stats.counters["datagrams_bad_seal"] > 0
    running.driver.stop()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where nobody answers, which is known soon."""
    monkeypatch.setattr(access_link, "CONNECT_TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{made.getsockname()[1]}"


async def test_calls_that_come_while_one_is_connecting_share_its_search(silent: str) -> None:
    async with Client(silent) as client:
        calls = (client.ping(), client.get("0" * 64), client.status(), client.put(b"data"))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [UnreachableError] * 4
        assert client._link._session._request_id == 1


async def test_who_is_cancelled_while_it_connects_leaves_the_search_to_the_others(
    silent: str,
) -> None:
    async with Client(silent) as client:
        calls = [asyncio.create_task(client.ping()) for _ in range(3)]
        while not client._link._session._request_id:
            await asyncio.sleep(0)
        calls[0].cancel()
        errors = await asyncio.gather(*calls, client.ping(), return_exceptions=True)
        assert isinstance(errors[0], asyncio.CancelledError)
        assert [type(error) for error in errors[1:]] == [UnreachableError] * 3


async def test_another_node_is_asked_when_the_first_one_falls_silent() -> None:
    first, second = Running(), Running()
    async with Client([first.address, second.address]) as client:
        used = await client.ping()
        dead, alive = (first, second) if used.address == first.address else (second, first)
        alive.node.items[name_of(b"data")] = b"data"
        dead.driver.stop()
        assert await client.get(_sha(b"data")) == b"data"
    alive.driver.stop()


async def test_a_node_listening_on_both_families_sees_ipv4_as_ipv4() -> None:
    running = Running(listen="::")
    async with Client(running.address) as client:
        await client.ping()
    hosts = {peer.endpoint[0] for peer in running.node.context.peers}
    assert hosts == {"127.0.0.1"}
    running.driver.stop()


async def test_a_closed_client_says_that_it_is_closed(running: Running) -> None:
    client = Client(running.address)
    with pytest.raises(LocalProtocolError, match="async with"):
        await client.ping()
    async with client:
        await client.ping()
        running.node.pending_answers = 1000
        waiting = asyncio.create_task(client.ping())
        await asyncio.sleep(0)
    with pytest.raises(UnreachableError, match="client"):
        await waiting
    for call in (client.ping, client.status):
        with pytest.raises(LocalProtocolError, match="the client is closed"):
            await call()
    running.node.pending_answers = 0
    async with client:
        await client.status()


async def test_a_client_in_another_event_loop_is_refused_and_goes_on_in_its_own(
    running: Running,
) -> None:
    async with Client(running.address) as client:

        def elsewhere() -> None:
            for call in (client.ping, client.status, lambda: client.put(b"abc")):
                with pytest.raises(LocalProtocolError, match="event loop"):
                    asyncio.run(call())

        await asyncio.to_thread(elsewhere)
        await client.ping()
        await asyncio.to_thread(elsewhere)
        assert (await client.put(b"abc")).size == 3


async def test_a_client_is_opened_once_at_a_time(running: Running) -> None:
    async with Client(running.address) as client:
        with pytest.raises(LocalProtocolError, match="already"):
            await client.__aenter__()
        await client.ping()


async def test_a_client_that_was_busy_in_one_event_loop_serves_in_the_next(
    running: Running,
) -> None:
    client = Client(running.address)

    async def busy() -> None:
        async with client:
            await asyncio.gather(*(client.put(b"%d" % i) for i in range(200)))

    for _ in range(2):
        await asyncio.to_thread(asyncio.run, busy())
    assert all(_sha(b"%d" % i) in map(bytes.hex, running.node.items) for i in range(200))


async def test_a_cancelled_request_leaves_nothing_behind(running: Running) -> None:
    running.node.pending_answers = 1000
    async with Client(running.address) as client:
        task = asyncio.create_task(client.put(os.urandom(5000)))
        while not running.node.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        client._link._session.check_invariants()
        assert not client._link._session._requests._calls
