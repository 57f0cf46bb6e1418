"""What a step of the core wants done: datagrams, store requests, events.

The core only appends; the driver (or the simulator) drains after each step, in order. Storage is a
peer: a request leaves with a ticket and its reply comes back through `PastryNode.store_completed`.
"""

from dataclasses import dataclass
from enum import IntEnum

from pastryd.ids import Name
from pastryd.state.handle import Endpoint, Handle


@dataclass(frozen=True, slots=True)
class ReadItem:
    """Read `length` bytes from `offset` (length < 0: to the end). Answered by `ReadDone`."""

    ticket: int
    name: Name
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class WriteItem:
    """Store an item whose value was verified. Answered by `WriteDone` once it is durable."""

    ticket: int
    name: Name
    value: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class DeleteItem:
    """Forget an item. Answered by `WriteDone`; deleting what is not there succeeds."""

    ticket: int
    name: Name


class WriteStatus(IntEnum):
    """How a write or a delete ended."""

    OK = 0
    FULL = 1
    FAILED = 2
    TOO_MANY = 3
    """A key has as many index entries as one node keeps; no store says so."""
    BUSY = 4
    """Too many others wait to be written; it may fit, and go well, later."""


@dataclass(frozen=True, slots=True)
class ReadDone:
    """`data` is None when there is no such item; valid only during `store_completed`."""

    ticket: int
    data: memoryview | None
    size: int
    """Size of the whole item, whatever part of it was read."""


@dataclass(frozen=True, slots=True)
class WriteDone:
    """A `WriteItem` or `DeleteItem` is on disk, or was refused."""

    ticket: int
    status: WriteStatus


StoreRequest = ReadItem | WriteItem | DeleteItem
StoreReply = ReadDone | WriteDone


@dataclass(frozen=True, slots=True)
class Logged:
    """A state transition that an operator would want to read about; never on the hot path."""

    event: str
    fields: dict[str, object]


class Completion:
    """A local command has its result; `result` is one of the value types of that command."""

    __slots__ = ("request_id", "result")

    def __init__(self, request_id: int, result: object) -> None:
        self.request_id = request_id
        self.result = result


class Superseded:
    """A later life of us runs elsewhere, and has proved it: stop, nobody hears us any more."""

    __slots__ = ("by",)

    def __init__(self, by: Handle) -> None:
        self.by = by


Event = Logged | Completion | Superseded
Destination = Handle | Endpoint
"""A handle: sealed for that node. A bare endpoint: sealed under the network key alone (HELLO)."""


class Outbox:
    """Effects in the order in which the core asked for them."""

    __slots__ = ("datagrams", "events", "store")

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Destination]] = []
        self.store: list[StoreRequest] = []
        self.events: list[Event] = []
