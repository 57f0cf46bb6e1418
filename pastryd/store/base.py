"""The contract of an item store: every implementation passes `tests/conformance/`.

A store keeps items (bytes under a 32-byte name) and a handful of small meta values. It is
synchronous and knows nothing of loops, hashes or peers: values were verified before they came here.
One thread calls `apply`; any thread may read, and call `put_meta`. Guarantees: DESIGN sec. 8; a
write is acknowledged only after it is on disk.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from pastryd.ids import NAME_BYTES, Name
from pastryd.protocol.outbox import DeleteItem, WriteItem, WriteStatus

FIRST_NAME = Name(bytes(NAME_BYTES))
"""Where an ordered scan of everything begins."""

Receive = Callable[[memoryview | None, int], None]
"""Takes the part that was read (None: no such item) and the size of the whole item."""

OnDamage = Callable[[], None]
"""Told, in the place where they would have come, that names cannot be read."""


class ItemStore(Protocol):
    """Items by name, in order of their names, durable once `apply` has returned."""

    @property
    def item_count(self) -> int:
        """How many items are stored."""

    @property
    def used_bytes(self) -> int:
        """What the items take up, overhead included; comparable with `capacity_bytes`."""

    @property
    def capacity_bytes(self) -> int:
        """The bound above which writes are answered FULL."""

    def names(self, start: bytes = FIRST_NAME, on_damage: OnDamage | None = None) -> Iterator[Name]:
        """Yield the names >= `start` in order.

        Not a snapshot: names written or deleted meanwhile may or may not be seen; all others are.
        Names that cannot be read are left out if `on_damage` is there to be told; else, or when the
        store is of no use any more, raises StoreError.
        May be left at any point and does not keep old versions alive between two names.
        """

    def read(self, name: Name, offset: int, length: int, receive: Receive) -> None:
        """Call `receive(data, size)` once, before returning.

        `length` < 0 reads to the end; a range that reaches beyond the end is cut. The view is valid
        only during the call: copy what is to be kept. A callback and not a context manager because
        this is the hot path and a callback costs 0.3 µs less. What the disk does not give back is
        answered as if it were not there. Raises StoreError when the store is of no use any more.
        """

    def apply(self, requests: Sequence[WriteItem | DeleteItem]) -> list[WriteStatus]:
        """Do all of `requests` in order, durably, with one sync; return a status for each.

        A name that exists already is left as it is (content-addressed) and answered OK. What does
        not fit is answered FULL, has left no trace, and the rest is stored. FAILED is any other I/O
        error; what became of it is not known. Raises StoreLostError when the store is of no use
        any more, and for nothing else that a disk does.
        """

    def get_meta(self, key: str) -> bytes | None:
        """Return a meta value: identity, incarnation, remembered peers and the like.

        Raises StoreError when the disk does not give it back.
        """

    def put_meta(self, key: str, value: bytes) -> None:
        """Set a meta value durably. Raises StoreError when the disk refuses."""

    def close(self) -> None:
        """Let go of everything. No other call may follow or be under way; closing twice is fine."""
