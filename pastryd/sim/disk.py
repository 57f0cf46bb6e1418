"""A node's store in virtual time: what survives a crash, and everything a disk can do wrong.

Performs the same requests as the real store; how long that takes, and whether it works, is up to
its faults, which are plain values that a scenario sets or a seed draws.
"""

from random import Random

from pastryd.ids import Name
from pastryd.protocol.outbox import (
    DeleteItem,
    ReadDone,
    ReadItem,
    StoreReply,
    StoreRequest,
    WriteDone,
    WriteItem,
    WriteStatus,
)


class VirtualDisk:
    """The items of one node. Writes that were not answered before a crash are lost with it."""

    __slots__ = ("_busy_until", "capacity_bytes", "failing", "items", "used_bytes", "write_s")

    def __init__(self, write_s: float = 0.001, capacity_bytes: int | None = None) -> None:
        self.items: dict[Name, bytes] = {}
        self.used_bytes = 0
        self.write_s = write_s
        """How long a durable write takes."""
        self.capacity_bytes = capacity_bytes
        """None: as much as wanted."""
        self.failing = False
        """Every write fails."""
        self._busy_until = 0.0

    @property
    def full(self) -> bool:
        """Nothing more fits."""
        return self.capacity_bytes is not None and self.used_bytes >= self.capacity_bytes

    @full.setter
    def full(self, is_full: bool) -> None:
        self.capacity_bytes = 0 if is_full else None

    def done_at(self, request: StoreRequest, now: float) -> float:
        """Return when to perform a request: reads at once, writes in the order of their coming.

        So does the real store's one writer; a disk that becomes fast again must not let a write
        overtake a delete before it.
        """
        if type(request) is ReadItem:
            return now
        self._busy_until = max(now + self.write_s, self._busy_until)
        return self._busy_until

    def perform(self, request: StoreRequest) -> StoreReply:
        """Do what a store would do."""
        if type(request) is ReadItem:
            value = self.items.get(request.name)
            if value is None:
                return ReadDone(request.ticket, None, 0)
            end = len(value) if request.length < 0 else request.offset + request.length
            return ReadDone(request.ticket, memoryview(value)[request.offset : end], len(value))
        if type(request) is WriteItem:
            return WriteDone(request.ticket, self._write(request.name, bytes(request.value)))
        assert type(request) is DeleteItem
        self.used_bytes -= len(self.items.pop(request.name, b""))
        return WriteDone(request.ticket, WriteStatus.OK)

    def _write(self, name: Name, value: bytes) -> WriteStatus:
        if self.failing:
            return WriteStatus.FAILED
        if name in self.items:
            return WriteStatus.OK
        if self.capacity_bytes is not None and self.used_bytes + len(value) > self.capacity_bytes:
            return WriteStatus.FULL
        self.items[name] = value
        self.used_bytes += len(value)
        return WriteStatus.OK

    def rot(self, rng: Random) -> Name | None:
        """Flip one bit of one item; return which, or None when there is nothing to spoil."""
        candidates = sorted(name for name, value in self.items.items() if value)
        if not candidates:
            return None
        name = candidates[rng.randrange(len(candidates))]
        value = bytearray(self.items[name])
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        self.items[name] = bytes(value)
        return name
