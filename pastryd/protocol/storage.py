"""The node's own store as a peer: tickets go out through the outbox, replies come back later.

Owns which items are durably here (the inventory), what is being written, and the bytes of objects
in transit for clients (a bounded cache). Refuses to know who should hold what. Values are verified
by whoever hands them in; what is read back is verified by whoever relies on it, and a bad copy is
forgotten (`forget`), so that repair brings a good one.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial

from pastryd.ids import Name, Position, position_of
from pastryd.protocol.context import Context
from pastryd.protocol.items import ENTRIES_PER_KEY, INDEX_ENTRY_BYTES, Value
from pastryd.protocol.outbox import (
    DeleteItem,
    ReadDone,
    ReadItem,
    StoreReply,
    WriteItem,
    WriteStatus,
)
from pastryd.state.inventory import Inventory

ThenRead = Callable[[bytes | memoryview | None, int, float], None]
"""Takes the bytes on loan (None: no such item), the size of the whole item, and now."""
ThenWritten = Callable[[WriteStatus, float], None]

READS_MAX = 8192
WRITES_MAX = 8192
JOINED_MAX = 256
TURNED_AWAY_MAX = 4096


class Storage:
    """Items on disk and objects in transit."""

    __slots__ = (
        "_cache",
        "_cache_bytes",
        "_context",
        "_deletes",
        "_entries",
        "_pins",
        "_reads",
        "_spoiled",
        "_ticket",
        "_tickets",
        "_turned_away",
        "_unread",
        "_writes",
        "inventory",
        "on_forgotten",
        "on_stored",
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        self.inventory = Inventory()
        """What is durably here. Whoever starts the node fills it from a scan of the store."""
        self.on_forgotten: Callable[[float], None] | None = None
        """Told that an item of ours was lost, so that repair looks at once."""
        self.on_stored: Callable[[Name], None] | None = None
        """Told of each item that became durable here, before anybody else is."""
        self._ticket = 0
        self._reads: dict[int, tuple[Name, ThenRead]] = {}
        self._tickets: dict[int, tuple[Name, int]] = {}
        self._writes: dict[Name, list[ThenWritten]] = {}
        self._entries: Counter[Position] = Counter()
        """Index entries that are being written, by position."""
        self._turned_away: dict[Name, None] = {}
        """Items that were one index entry too many: a name alone does not say what it is of."""
        self._deletes: dict[int, ThenWritten] = {}
        self._spoiled: set[Name] = set()
        """Of which a bad copy is on disk, as long as it could not be deleted."""
        self._unread: set[Name] = set()
        """Of which the disk did not even tell the size when they were dropped: it still counts."""
        self._cache: OrderedDict[Name, Value] = OrderedDict()
        self._cache_bytes = 0
        self._pins: dict[Name, int] = {}

    # -- what is here --

    def holds(self, name: Name) -> bool:
        """Tell whether an item is durably here."""
        return name in self.inventory

    def records_at(self, key: Name) -> list[Name]:
        """Return the names of the index entries that we hold at a key's position."""
        return [n for n in self.inventory.with_position(position_of(key)) if n != key]

    def has_room_for(self, name: Name) -> bool:
        """Tell whether an item may be kept, as far as its position is concerned.

        An object may always be: entries, which anybody can put there, must not keep it away.
        """
        return name not in self._turned_away or self._has_room_at(name)

    def _has_room_at(self, name: Name) -> bool:
        """Tell whether one more index entry may be kept at this position."""
        position = position_of(name)
        kept = len(self.inventory.with_position(position)) + self._entries[position]
        return kept < ENTRIES_PER_KEY

    # -- reading --

    def read(self, name: Name, offset: int, length: int, then: ThenRead, now: float) -> None:
        """Read a part (`length` < 0: to the end) of an item on disk or in transit."""
        cached = self._cache.get(name)
        if cached is not None:
            end = len(cached) if length < 0 else offset + length
            then(memoryview(cached)[offset:end], len(cached), now)
            return
        if name not in self.inventory:
            then(None, 0, now)
            return
        if len(self._reads) >= READS_MAX:
            self._context.stats.count("reads_refused")
            then(None, 0, now)
            return
        self._ticket = ticket = self._ticket + 1
        self._reads[ticket] = (name, then)
        self._context.outbox.store.append(ReadItem(ticket, name, offset, length))

    # -- writing --

    def write(self, name: Name, value: Value, then: ThenWritten, now: float) -> None:
        """Make a verified value durable, which must not change; equal writes at a time are one."""
        if name in self.inventory:
            then(WriteStatus.OK, now)
            return
        waiting = self._writes.get(name)
        if waiting is not None:
            if len(waiting) >= JOINED_MAX:
                self._context.stats.count("writes_refused")
                then(WriteStatus.BUSY, now)
                return
            waiting.append(then)
            return
        is_entry = len(value) == INDEX_ENTRY_BYTES
        if is_entry and not self._has_room_at(name):
            self._context.stats.count("index_entries_refused")
            self._turn_away(name)
            then(WriteStatus.TOO_MANY, now)
            return
        if len(self._writes) >= WRITES_MAX:
            self._context.stats.count("writes_refused")
            then(WriteStatus.BUSY, now)
            return
        self._ticket = ticket = self._ticket + 1
        self._writes[name] = [then]
        self._tickets[ticket] = (name, len(value))
        if is_entry:
            self._entries[position_of(name)] += 1
        if name in self._spoiled:
            # A store leaves what it has as it is.
            self._ticket += 1
            self._deletes[self._ticket] = partial(self._note_deleted, name)
            self._context.outbox.store.append(DeleteItem(self._ticket, name))
        self._context.outbox.store.append(WriteItem(ticket, name, value))

    def _turn_away(self, name: Name) -> None:
        """Remember, for a while, that there was no room for an index entry."""
        self._turned_away[name] = None
        if len(self._turned_away) > TURNED_AWAY_MAX:
            del self._turned_away[next(iter(self._turned_away))]

    def delete(self, name: Name, then: ThenWritten, now: float) -> None:
        """Drop an item; from this moment on we do not claim to hold it."""
        if name not in self.inventory:
            then(WriteStatus.OK, now)
            return
        # The inventory keeps the sum of sizes, not each one: ask the store how large it was.
        self._ticket = ticket = self._ticket + 1
        self.inventory.discard(name)

        def delete_it(data: bytes | memoryview | None, size: int, now: float) -> None:
            self.inventory.bytes_held -= size
            if data is None:
                self._unread.add(name)
            if name in self._writes or name in self.inventory:
                then(WriteStatus.OK, now)  # wanted again meanwhile: the copy on disk may stay
                return
            self._ticket = ticket = self._ticket + 1
            self._deletes[ticket] = then
            self._context.outbox.store.append(DeleteItem(ticket, name))

        self._reads[ticket] = (name, delete_it)
        self._context.outbox.store.append(ReadItem(ticket, name, 0, 0))

    def forget(self, name: Name, now: float) -> None:
        """A copy on disk turned out to be bad: drop it, so that repair brings a good one."""
        if name in self.inventory:
            self._context.stats.count("bad_copies_dropped")
            self._context.log("bad_copy_dropped", name=name.hex())
            self.drop_cached(name)
            self._spoiled.add(name)

            def deleted(status: WriteStatus, now: float) -> None:
                if name not in self._writes:  # which deletes first, too
                    self._note_deleted(name, status, now)

            self.delete(name, deleted, now)
            if self.on_forgotten is not None:
                self.on_forgotten(now)

    def _note_deleted(self, name: Name, status: WriteStatus, now: float) -> None:
        if status is WriteStatus.OK:
            self._spoiled.discard(name)

    def store_completed(self, reply: StoreReply, now: float) -> None:
        """Take a reply of the store."""
        if isinstance(reply, ReadDone):
            read = self._reads.pop(reply.ticket, None)
            if read is not None:
                name, then = read
                if reply.data is None and name in self.inventory:
                    self.forget(name, now)  # the disk does not give it back
                then(reply.data, reply.size, now)
            return
        deleted = self._deletes.pop(reply.ticket, None)
        if deleted is not None:
            deleted(reply.status, now)
            return
        written = self._tickets.pop(reply.ticket, None)
        if written is None:
            return
        name, size = written
        if size == INDEX_ENTRY_BYTES:
            self._entries -= Counter((position_of(name),))
        status = reply.status
        if status is WriteStatus.OK and name in self._spoiled:
            status = WriteStatus.FAILED  # it has left the bad copy as it was
        if status is WriteStatus.OK:
            self.inventory.add(name, 0 if name in self._unread else size)
            self._unread.discard(name)
            if self.on_stored is not None:
                self.on_stored(name)
        else:
            self._context.stats.count(f"writes_{status.name.lower()}")
        for waiting in self._writes.pop(name, ()):
            waiting(status, now)

    # -- objects in transit --

    def cached(self, name: Name) -> Value | None:
        """Return an object in transit."""
        value = self._cache.get(name)
        if value is not None:
            self._cache.move_to_end(name)
        return value

    def keep(self, name: Name, value: Value) -> None:
        """Keep a verified object for a while; the least recently used make room."""
        if name not in self._cache:
            self._cache[name] = value
            self._cache_bytes += len(value)
            self._evict()
        else:
            self._cache.move_to_end(name)

    def pin(self, name: Name, value: Value) -> None:
        """Keep an object until it is unpinned as often as it was pinned."""
        self._pins[name] = self._pins.get(name, 0) + 1
        self.keep(name, value)

    def unpin(self, name: Name) -> None:
        """Let a pinned object be evicted again."""
        pins = self._pins.get(name, 0)
        if pins > 1:
            self._pins[name] = pins - 1
        elif pins:
            del self._pins[name]
            self._evict()

    def drop_cached(self, name: Name) -> None:
        """Evict an object at once."""
        value = self._cache.pop(name, None)
        if value is not None:
            self._cache_bytes -= len(value)

    @property
    def cache_bytes(self) -> int:
        """How much is kept in transit. More than `config.cache_bytes` only while it is pinned."""
        return self._cache_bytes

    def _evict(self) -> None:
        limit = self._context.config.cache_bytes
        if self._cache_bytes <= limit:
            return
        for name in list(self._cache):
            if self._cache_bytes <= limit:
                return
            if name not in self._pins:
                self.drop_cached(name)
