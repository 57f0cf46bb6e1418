"""A store that fails on demand, wrapped around another one.

Faults are values: a status for the next writes, a bit to flip in what is read. Without any it is
the store inside, which the conformance suite proves.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from pastryd.errors import StoreError
from pastryd.ids import Name
from pastryd.protocol.outbox import DeleteItem, WriteItem, WriteStatus
from pastryd.store.base import FIRST_NAME, ItemStore, OnDamage, Receive


class FaultyStore:
    """Passes everything on, except for the faults that were put in."""

    def __init__(self, inner: ItemStore) -> None:
        self._inner = inner
        self.next_statuses: deque[WriteStatus] = deque()
        """One for each of the next requests; OK lets it through."""
        self.flipped_bits: dict[Name, int] = {}
        """Which bit of a value the disk has spoiled."""
        self.lost_names: set[Name] = set()
        """Whose pages the disk has spoiled, each on its own."""
        self.meta_refused = False

    @property
    def item_count(self) -> int:
        return self._inner.item_count

    @property
    def used_bytes(self) -> int:
        return self._inner.used_bytes

    @property
    def capacity_bytes(self) -> int:
        return self._inner.capacity_bytes

    def names(self, start: bytes = FIRST_NAME, on_damage: OnDamage | None = None) -> Iterator[Name]:
        for name in self._inner.names(start, on_damage):
            if name not in self.lost_names:
                yield name
            elif on_damage is None:
                raise StoreError("the store is of no use any more: a page is damaged; start empty")
            else:
                on_damage()

    def read(self, name: Name, offset: int, length: int, receive: Receive) -> None:
        bit = self.flipped_bits.get(name)
        if bit is None:
            self._inner.read(name, offset, length, receive)
            return

        def spoil(data: memoryview | None, size: int) -> None:
            if data is None:
                receive(None, size)
                return
            spoilt = bytearray(data)
            at = bit // 8 - offset
            if 0 <= at < len(spoilt):
                spoilt[at] ^= 1 << bit % 8
            receive(memoryview(spoilt), size)

        self._inner.read(name, offset, length, spoil)

    def apply(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus]:
        statuses = []
        for request in requests:
            status = self.next_statuses.popleft() if self.next_statuses else WriteStatus.OK
            if status is WriteStatus.OK:
                [status] = self._inner.apply([request])
                if isinstance(request, DeleteItem):
                    self.flipped_bits.pop(request.name, None)
            statuses.append(status)
        return statuses

    def get_meta(self, key: str) -> bytes | None:
        return self._inner.get_meta(key)

    def put_meta(self, key: str, value: bytes) -> None:
        if self.meta_refused:
            raise StoreError("cannot write to the store: no space left; free some")
        self._inner.put_meta(key, value)

    def close(self) -> None:
        self._inner.close()
