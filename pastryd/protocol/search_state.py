"""What a search for an item ends with, and what it knows on its way there.

Infrastructure of the blob machines; what is asked of whom is `blobs_find.py`'s business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from pastryd.ids import Name, NodeId, Position, position_of
from pastryd.protocol.items import Value, is_record_of, verify
from pastryd.protocol.storage import Storage
from pastryd.state.deadlines import Timer
from pastryd.state.peers import Peer

RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class Object:
    """The verified bytes of an object."""

    value: Value


@dataclass(frozen=True, slots=True)
class Entries:
    """The index entries of a large blob's key; any of them may lie about what is in the blob."""

    records: tuple[bytes, ...]


class Failure(Enum):
    """Why there is neither."""

    NOT_FOUND = "not found"
    UNREACHABLE = "unreachable"
    CORRUPT = "corrupt"
    BUSY = "busy"


FindResult = Object | Entries | Failure
ThenFound = Callable[[FindResult, float], None]


class Search:
    """One search, and who waits for its end."""

    __slots__ = (
        "asking",
        "bad",
        "candidates",
        "deadline",
        "denied",
        "ended",
        "hedge",
        "name",
        "next",
        "position",
        "pulling",
        "retry_s",
        "root_asked",
        "unsure",
        "version",
        "waiters",
    )

    def __init__(self, name: Name, then: ThenFound, deadline: float) -> None:
        self.name = name
        self.position: Position = position_of(name)
        self.waiters: list[ThenFound] = [then]
        self.deadline = deadline
        self.candidates: list[Peer] = []
        self.next = 0
        self.asking: dict[NodeId, int] = {}
        self.denied: dict[NodeId, None] = {}
        self.bad: dict[NodeId, Peer] = {}
        self.pulling = False
        self.unsure = False
        """Somebody who ought to know did not answer: no "not found" in this round."""
        self.root_asked = False
        self.version = 0
        self.retry_s = RETRY_S
        self.hedge: Timer | None = None
        self.ended = False


def read_records(
    storage: Storage,
    key: Name,
    names: Sequence[Name],
    then: Callable[[tuple[bytes, ...], float], None],
    now: float,
) -> None:
    """Read the index entries called `names`; those that are entries of `key` are handed on.

    A bad one may look like one of the key: only the name that it is kept under tells.
    """
    records: list[bytes] = []
    left = len(names)

    def read(name: Name, data: bytes | memoryview | None, size: int, now: float) -> None:
        nonlocal left
        left -= 1
        if data is not None and not verify(name, data):
            storage.forget(name, now)
        elif data is not None and is_record_of(key, data):
            records.append(bytes(data))
        if not left:
            then(tuple(records), now)

    for name in names:
        storage.read(name, 0, -1, partial(read, name), now)
