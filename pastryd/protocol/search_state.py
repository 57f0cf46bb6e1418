"""What a search for an item ends with, and what it knows on its way there.

Infrastructure of the blob machines; what is asked of whom is `blobs_find.py`'s business.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import chain
from random import Random

from pastryd.ids import Name, NodeId, Position, position_of
from pastryd.protocol.items import ENTRIES_PER_KEY, Value, is_record_of, verify
from pastryd.protocol.storage import Storage
from pastryd.state.deadlines import Timer
from pastryd.state.peers import Peer
from pastryd.wire.messages import RECORDS_MAX

RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class Object:
    """The verified bytes of an object."""

    value: Value


@dataclass(frozen=True, slots=True)
class Entries:
    """The index entries of a large blob's key, `ENTRIES_PER_KEY` at most; any of them may lie."""

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
        "given",
        "hedge",
        "name",
        "next",
        "position",
        "pulling",
        "replicas",
        "retry_s",
        "root_asked",
        "unsure",
        "version",
        "waiters",
        "wanted",
    )

    def __init__(self, name: Name, then: ThenFound, deadline: float) -> None:
        self.name = name
        self.position: Position = position_of(name)
        self.waiters: list[ThenFound] = [then]
        self.deadline = deadline
        self.candidates: list[Peer] = []
        self.next = 0
        self.replicas = 0
        """How many of the first candidates are of the replica set; 0: it is not known."""
        self.wanted = 0
        """How many nodes that set has, perhaps us among them."""
        self.given: dict[NodeId, tuple[bytes, ...]] = {}
        """The index entries that nodes hold, we among them."""
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

    @property
    def agreed(self) -> bool:
        """Whether more than half of the replica set hold index entries: it is a large blob's key.

        One that lies, about an object or an entry that the others hold, is not enough.
        """
        return 2 * len(self.given) > self.wanted > 0

    @property
    def settled(self) -> bool:
        """Whether more than half of the replica set hold one and the same index entry.

        Then whatever the others say, the truth is among what was given, unless most of them lie.
        """
        return any(2 * held > self.wanted > 0 for held in self._votes().values())

    def _votes(self) -> Counter[bytes]:
        """Return each entry that was given, and how many hold it."""
        return Counter(chain.from_iterable([dict.fromkeys(given) for given in self.given.values()]))

    def entries(self, rng: Random) -> Entries:
        """Return the entries that were given, those of most holders first, the others by chance."""
        votes = self._votes()
        records = list(votes)
        if len(records) > RECORDS_MAX:
            rng.shuffle(records)  # of too many none stays unseen
        records.sort(key=lambda record: -votes[record])
        return Entries(tuple(records[:ENTRIES_PER_KEY]))


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
