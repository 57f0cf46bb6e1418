"""The client library: put, get, stream and stat blobs of the network of an access node (DESIGN 6).

    async with Client("host:4160") as client:
        result = await client.put(b"...")
        data = await client.get(result.key)

Owns what a blob is made of: one object up to 1 MiB; above that chunks, manifests and, written last,
an index entry. Works in constant memory at any size and verifies everything it returns. How bytes
travel is `ClientSession`'s and the driver's business. Errors are those of `pastryd.errors`.
"""

import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pastryd.config import Config
from pastryd.errors import (
    ConfigError,
    CorruptError,
    NotFoundError,
    UnderReplicatedError,
    UnreachableError,
)
from pastryd.ids import ID_BYTES, NAME_BYTES, Name
from pastryd.net.access_link import AccessLink, RefusedError, fail
from pastryd.net.chunks import Chunk, Chunker, Source
from pastryd.net.driver import clock
from pastryd.net.entry_reader import EntryReader
from pastryd.net.keys import PUBLIC_NETWORK_KEY
from pastryd.net.put_window import Progress, PutWindow
from pastryd.net.ring_walk import Ring, RingNode, walk_ring
from pastryd.protocol.client_call import Question, Reply
from pastryd.protocol.items import (
    INDEX_ENTRY_BYTES,
    IndexEntry,
    ManifestBuilder,
    Value,
    name_of,
)
from pastryd.state.handle import show_endpoint
from pastryd.wire.verbs import AnswerStatus, Verb

RESERVED_BYTES_MAX = 64 << 20
"""How much memory an index entry may claim before its bytes have come: it may be a lie."""

ANSWER_GRACE_S = 5.0
"""How much longer than the access node's own deadline we wait for its verdict."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """A blob is stored durably: under which key, and on how many nodes at least."""

    key: str
    size: int
    copies: int


class PutUnderReplicatedError(UnderReplicatedError):
    """Stored durably, but on fewer nodes than wanted; `result` says under which key."""

    def __init__(self, result: PutResult) -> None:
        super().__init__(
            f"{result.key} is stored on {result.copies} node(s) only, fewer than wanted; "
            "it will be replicated when more can be reached, or put it again"
        )
        self.result = result


@dataclass(frozen=True, slots=True)
class AccessNode:
    """Who answers us."""

    id: str
    address: str
    active: bool
    rtt_s: float


class Client:
    """A client of one network. Use it in `async with`; its methods may run concurrently."""

    def __init__(
        self,
        nodes: str | Sequence[str] = "localhost",
        network_key: bytes = PUBLIC_NETWORK_KEY,
        config: Config | None = None,
    ) -> None:
        """`nodes`: where access nodes are, `host[:port]`; the first to answer is used."""
        self._config = config or Config.lan()
        self._link = AccessLink([nodes] if isinstance(nodes, str) else nodes, network_key)
        self._entries = EntryReader(self._get)

    async def __aenter__(self) -> "Client":
        """Open a socket; nobody is contacted yet."""
        self._link.open(self._config)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the socket; what is still under way fails."""
        self._link.close()

    # -- blobs --

    async def put(self, source: Source, progress: Progress | None = None) -> PutResult:
        """Store a blob; return once it is durable on all nodes that should have it.

        Raises `PutUnderReplicatedError` when it is durable on fewer. Interrupted, it leaves nothing
        visible: the index entry goes last.
        """
        chunker = Chunker(source)
        chunks = aiter(chunker)
        first = await anext(chunks, None)
        second = await anext(chunks, None)
        if first is None or second is None:
            value: Value = first[1] if first else b""
            copies, wanted = await self._put_object(chunker.digest, value)
            size = len(value)
            if progress:
                progress(size, size)
        else:
            size, copies, wanted = await self._put_chunks(first, second, chunks, chunker, progress)
        result = PutResult(chunker.digest.hex(), size, copies)
        if not wanted:
            raise PutUnderReplicatedError(result)
        return result

    async def _put_chunks(
        self,
        first: Chunk,
        second: Chunk,
        chunks: AsyncIterator[Chunk],
        chunker: Chunker,
        progress: Progress | None,
    ) -> tuple[int, int, bool]:
        builder = ManifestBuilder()
        window = PutWindow(self._put_object, progress)
        try:
            for name, value in (first, second):
                await window.add_all(builder.add(name, len(value)))
                await window.add(name, value, len(value))
            async for name, value in chunks:
                await window.add_all(builder.add(name, len(value)))
                await window.add(name, value, len(value))
            manifests = builder.finish()
            await window.add_all(manifests)
            await window.finish()
            entry = IndexEntry(chunker.digest, manifests[-1][0], builder.size)
            await window.add(entry.name, entry.encode(), 0)
            await window.finish()
        finally:
            window.cancel()
        return builder.size, window.copies, window.complete

    async def _put_object(self, name: Name, value: Value) -> tuple[int, bool]:
        """Store one item; return how many copies are durable, and whether that is all."""
        timeout_s = self._config.put_timeout_s + ANSWER_GRACE_S
        reply = await self._link.ask(Question(Verb.PUT, name, len(value), value, timeout_s))
        if reply.status is AnswerStatus.OK:
            return reply.number, True
        if reply.status is AnswerStatus.UNDER_REPLICATED and reply.number:
            return reply.number, False
        if reply.status is AnswerStatus.UNREACHABLE:
            raise UnreachableError(
                f"{name.hex()}: no node has stored it in time; they are silent, or their disks "
                "refuse it: look into their logs, and put it again"
            )
        fail(reply, name.hex())

    async def get(self, key: str, progress: Progress | None = None) -> bytes:
        """Return a blob whole, verified. For large ones prefer `stream`."""
        reply = await self._get(parse_key(key))
        if reply.status is AnswerStatus.OK:
            return bytes(_whole(reply, progress))
        whole = io.BytesIO()

        def begin(size: int) -> None:
            # Room for all of it: to grow piece by piece would move what is there again and again.
            whole.seek(0)
            whole.truncate()
            whole.seek(min(size, RESERVED_BYTES_MAX) - 1)
            whole.write(b"\0")
            whole.seek(0)

        async for piece in self._entries.stream(parse_key(key), reply.data, None, progress, begin):
            whole.write(piece)
        return whole.getvalue()  # what it wrote to, not a copy

    async def stream(
        self,
        key: str,
        restart: Callable[[], None] | None = None,
        progress: Progress | None = None,
    ) -> AsyncIterator[Value]:
        """Yield a blob in order; each piece is verified, and the whole before the last one ends.

        A key may have several index entries, a liar's among them. `restart` is called when all that
        was yielded is void and the next entry is tried; without it that raises `CorruptError`.
        """
        reply = await self._get(parse_key(key))
        if reply.status is AnswerStatus.OK:
            if whole := _whole(reply, progress):
                yield whole
            return
        async for piece in self._entries.stream(parse_key(key), reply.data, restart, progress):
            yield piece

    async def _get(self, name: Name, checked: bool = True) -> Reply:
        """Return an object (OK) or index entries (INDEX)."""
        timeout_s = self._config.get_timeout_s + ANSWER_GRACE_S
        reply = await self._link.ask(Question(Verb.GET, name, 0, None, timeout_s, checked))
        if reply.status not in (AnswerStatus.OK, AnswerStatus.INDEX):
            fail(reply, name.hex())
        is_object = reply.status is AnswerStatus.OK
        if is_object and len(reply.data) == INDEX_ENTRY_BYTES and name_of(reply.data) != name:
            raise NotFoundError(f"{name.hex()}: not found; it names an index entry, not a blob")
        return reply

    # -- questions --

    async def ping(self) -> AccessNode:
        """Ask the access node whether it is there; `active`: ready to serve."""
        access = await self._link.connect()
        began = clock()
        document = await self._document(Verb.PING, b"")
        rtt_s = clock() - began
        handle = access.access
        active = document.get("active") is True
        return AccessNode(f"{handle.id:032x}", show_endpoint(handle.endpoint), active, rtt_s)

    async def stat(self, key: str) -> dict[str, Any]:
        """Return size, chunks and where the copies of a blob lie."""
        return await self._document(Verb.STAT, parse_key(key))

    async def trace(self, key: str) -> dict[str, Any]:
        """Return the hops of a route to the root of a key."""
        return await self._document(Verb.TRACE, parse_key(key))

    async def status(self, node_id: str | None = None) -> dict[str, Any]:
        """Return a node's state: the access node's own, or that of the node with this id."""
        return await self._document(Verb.STATUS, b"" if node_id is None else parse_id(node_id))

    async def _document(self, verb: Verb, name: bytes) -> dict[str, Any]:
        timeout_s = self._config.get_timeout_s + ANSWER_GRACE_S
        reply = await self._link.ask(Question(verb, name, 0, None, timeout_s))
        if reply.status is not AnswerStatus.OK:
            fail(reply, name.hex() or verb.name.lower())
        try:
            document = json.loads(bytes(reply.data))
        except (ValueError, RecursionError):  # the latter for a million opening brackets
            document = None
        if not isinstance(document, dict):
            raise CorruptError(
                "the access node's answer is no JSON document; is it the same version?"
            )
        return document

    async def ring(self) -> Ring:
        """Ask all nodes whom they know, starting at the access node, until nobody is new."""
        access = await self._link.connect()
        return await walk_ring(self.status, show_endpoint(access.access.endpoint))


def _whole(reply: Reply, progress: Progress | None) -> Value:
    """Return a blob that is one object."""
    if progress:
        progress(len(reply.data), len(reply.data))
    return reply.data


def parse_key(key: str) -> Name:
    """Return the name that 64 hex digits stand for."""
    return Name(_from_hex(key, NAME_BYTES, "a key", "as sha256sum prints them"))


def parse_id(node_id: str) -> bytes:
    """Return the 16 bytes of a node id."""
    return _from_hex(node_id, ID_BYTES, "a node id", "as pastry ring prints them")


def _from_hex(text: str, length: int, what: str, where: str) -> bytes:
    if not isinstance(text, str):
        raise ConfigError(f"{what} is a str of {2 * length} hex digits, not {type(text).__name__}")
    if len(text) == 2 * length and text.isascii() and text.isalnum():
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    raise ConfigError(f"{text[:80]!r} is not {what}: write its {2 * length} hex digits, {where}")


__all__ = [
    "AccessNode",
    "Client",
    "PutResult",
    "PutUnderReplicatedError",
    "RefusedError",
    "Ring",
    "RingNode",
    "parse_id",
    "parse_key",
]
