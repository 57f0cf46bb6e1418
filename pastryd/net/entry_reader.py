"""Gets a large blob by its index entries, of which any may be a lie (DESIGN sec. 6).

Knows what entries, manifests and chunks are, not how an item is fetched. What is yielded is void
when the entry that it came from turns out to be a lie: only the hash of the whole tells.
"""

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable

import msgpack

from pastryd.errors import (
    CorruptError,
    NotFoundError,
    PastryError,
    RemoteProtocolError,
    UnreachableError,
)
from pastryd.ids import Name
from pastryd.net.put_window import IN_FLIGHT, Progress
from pastryd.protocol.client_call import Reply
from pastryd.protocol.items import ENTRIES_PER_KEY, IndexEntry, Manifest, Value, is_record_of
from pastryd.wire.messages import RECORDS_MAX
from pastryd.wire.verbs import AnswerStatus

BYTES_PAST_UNREACHABLE = 4 << 30
"""What larger entries may cost at least, in all, once one could not be reached (decision 0005)."""

ANSWERS_MAX = 8
"""How often a key is asked for that has more index entries than an answer tells."""

GetItem = Callable[[Name, bool], Awaitable[Reply]]
"""Fetches an item; False: whoever asked verifies it."""


class EntryReader:
    """The large blobs that one client gets."""

    def __init__(self, get: GetItem) -> None:
        self._get = get
        self._was_deceived = False
        """A blob whose chunks were not verified one by one was not what it should be."""

    async def stream(
        self,
        key: Name,
        entries: Value,
        restart: Callable[[], None] | None,
        progress: Progress | None,
        begin: Callable[[int], None] | None = None,
    ) -> AsyncIterator[Value]:
        """Yield what the first entry that is true says.

        `begin` hears of each attempt, and how large it is; who gives it shows nothing before the
        end. Then the whole's hash is all that has to be right, and a second one of each chunk is
        worth its time only when somebody has lied.

        What could not be reached may be the truth: larger entries after it may be lies without end,
        and are bounded.
        """
        failure: PastryError = CorruptError(
            f"{key.hex()}: no usable index entry; put the blob again"
        )
        started = False
        known = await self._ask_for_more(key, _entries(key, entries))
        attempts = deque((entry, begin is None) for entry in known)
        bytes_left: int | None = None
        asks_again = True
        while True:
            if not attempts and asks_again:
                # Who holds the truth may have been silent for longer than it was waited for.
                asks_again = False
                later = [entry for entry in await self._ask(key) if entry not in known]
                attempts.extend((entry, begin is None) for entry in later)
            if not attempts:
                break
            entry, checked = attempts.popleft()
            checked = checked or self._was_deceived
            if bytes_left is not None:
                bytes_left -= entry.size
                if bytes_left < 0:
                    break
            if begin is not None:
                begin(entry.size)
            elif started:
                if restart is None:
                    raise failure
                restart()
            try:
                async for piece in self._stream_entry(entry, progress, checked):
                    started = True
                    yield piece
                return
            except (NotFoundError, UnreachableError, CorruptError) as error:
                if isinstance(error, CorruptError) and not checked:
                    self._was_deceived = True
                    attempts.appendleft((entry, True))
                # What cannot be reached may come back: that says more than what lies.
                elif not isinstance(failure, UnreachableError):
                    failure = error
                    if isinstance(error, UnreachableError):
                        bytes_left = max(BYTES_PAST_UNREACHABLE, ENTRIES_PER_KEY * entry.size)
        raise failure

    async def _ask_for_more(self, key: Name, told: list[IndexEntry]) -> list[IndexEntry]:
        """Return the entries to try, the smallest first: no lie costs more than the truth.

        Of many a holder tells a sample. What comes again and again is held, by others too; what
        never does may have been made up for the answer.
        """
        times = Counter(told)
        answers = 1
        while len(told) >= RECORDS_MAX and answers < ANSWERS_MAX:
            answers += 1
            told = await self._ask(key)
            times.update(told)
        chosen = [entry for entry, _ in times.most_common(ENTRIES_PER_KEY)]
        return sorted(chosen, key=lambda entry: entry.size)

    async def _ask(self, key: Name) -> list[IndexEntry]:
        """Return the entries that a key has now; none, where nobody can tell."""
        try:
            reply = await self._get(key, True)
        except PastryError:
            return []
        return _entries(key, reply.data) if reply.status is AnswerStatus.INDEX else []

    async def _stream_entry(
        self, entry: IndexEntry, progress: Progress | None, checked: bool
    ) -> AsyncIterator[Value]:
        whole = hashlib.sha256()
        done = 0
        parts = self._parts(entry.manifest, entry.size, None)
        fetches: deque[asyncio.Task[Value]] = deque()
        try:
            more = True
            while more or fetches:
                while more and len(fetches) < IN_FLIGHT:
                    part = await anext(parts, None)
                    if part is None:
                        more = False
                    else:
                        fetches.append(asyncio.create_task(self._fetch(*part, checked)))
                if not fetches:
                    break
                chunk = await fetches.popleft()
                await asyncio.to_thread(whole.update, chunk)
                done += len(chunk)
                if done == entry.size and whole.digest() != entry.key:
                    raise CorruptError(
                        f"{entry.key.hex()}: an index entry is a lie, its manifest "
                        f"{entry.manifest.hex()} lists other bytes"
                    )
                if progress:
                    progress(done, entry.size)
                yield chunk
        finally:
            for fetch in fetches:
                fetch.cancel()
            await asyncio.gather(*fetches, return_exceptions=True)

    async def _parts(
        self, name: Name, size: int, level: int | None
    ) -> AsyncIterator[tuple[Name, int]]:
        """Yield the chunks that a manifest and those below it list, in order."""
        reply = await self._get(name, True)
        try:
            if reply.status is not AnswerStatus.OK:
                raise RemoteProtocolError("not an object")
            manifest = Manifest.decode(reply.data, size, level)
        except RemoteProtocolError:
            raise CorruptError(f"{name.hex()} is not a manifest of {size} bytes") from None
        for part, part_size in manifest.parts():
            if not manifest.level:
                yield part, part_size
                continue
            async for below in self._parts(part, part_size, manifest.level - 1):
                yield below

    async def _fetch(self, name: Name, size: int, checked: bool) -> Value:
        reply = await self._get(name, checked)
        if reply.status is not AnswerStatus.OK or len(reply.data) != size:
            raise CorruptError(f"{name.hex()} is not a chunk of {size} bytes")
        return reply.data


def _entries(key: Name, data: Value) -> list[IndexEntry]:
    """Return the well-formed entries of a key among the records of an answer, each once."""
    try:
        records = msgpack.unpackb(data)
        usable = [r for r in records if isinstance(r, bytes) and is_record_of(key, r)]
    except (ValueError, TypeError, msgpack.UnpackException):
        return []
    return [IndexEntry.decode(record) for record in dict.fromkeys(usable)]
