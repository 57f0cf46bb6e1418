"""An item store in memory, for tests and the simulator.

Same contract and same suite as the real one; "durable" here means as long as the object lives. It
knows no faults: those are wrapped around it.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from pastryd.ids import NAME_BYTES, Name
from pastryd.protocol.outbox import DeleteItem, WriteItem, WriteStatus
from pastryd.store.base import FIRST_NAME, OnDamage, Receive

ITEM_OVERHEAD_BYTES = NAME_BYTES
UNLIMITED_BYTES = 1 << 62


class MemoryStore:
    """Items in a dict; the order is made when somebody asks for it."""

    __slots__ = ("_items", "_meta", "_ordered", "_used_bytes", "capacity_bytes")

    def __init__(self, capacity_bytes: int = UNLIMITED_BYTES) -> None:
        self.capacity_bytes = capacity_bytes
        self._items: dict[Name, bytes] = {}
        self._meta: dict[str, bytes] = {}
        self._ordered: list[Name] | None = []
        self._used_bytes = 0

    @property
    def item_count(self) -> int:
        """How many items are stored."""
        return len(self._items)

    @property
    def used_bytes(self) -> int:
        """Bytes of all names and values."""
        return self._used_bytes

    def names(self, start: bytes = FIRST_NAME, on_damage: OnDamage | None = None) -> Iterator[Name]:
        """Yield the names >= `start` in order, as they were when the scan began."""
        ordered = self._ordered
        if ordered is None:
            ordered = self._ordered = sorted(self._items.copy())
        for i in range(bisect_left(ordered, start), len(ordered)):
            yield ordered[i]

    def read(self, name: Name, offset: int, length: int, receive: Receive) -> None:
        """Call `receive(data, size)` once; see `ItemStore.read`."""
        value = self._items.get(name)
        if value is None:
            receive(None, 0)
            return
        end = len(value) if length < 0 else offset + length
        receive(memoryview(value)[offset:end], len(value))

    def apply(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus]:
        """Do all of `requests` in order; see `ItemStore.apply`."""
        return [self._apply_one(request) for request in requests]

    def _apply_one(self, request: WriteItem | DeleteItem) -> WriteStatus:
        name = request.name
        assert len(name) == NAME_BYTES, "a name is 32 bytes"
        if isinstance(request, DeleteItem):
            value = self._items.pop(name, None)
            if value is not None:
                self._used_bytes -= len(value) + ITEM_OVERHEAD_BYTES
                self._ordered = None
            return WriteStatus.OK
        if name in self._items:
            return WriteStatus.OK
        size = memoryview(request.value).nbytes + ITEM_OVERHEAD_BYTES
        if self._used_bytes + size > self.capacity_bytes:
            return WriteStatus.FULL
        self._items[name] = bytes(request.value)
        self._used_bytes += size
        self._ordered = None
        return WriteStatus.OK

    def get_meta(self, key: str) -> bytes | None:
        """Return a meta value, or None."""
        return self._meta.get(key)

    def put_meta(self, key: str, value: bytes) -> None:
        """Set a meta value."""
        self._meta[key] = bytes(value)

    def close(self) -> None:
        """Do nothing: a simulated node that restarts finds its items again."""
