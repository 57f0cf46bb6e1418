"""What a put ends with, and what it knows on its way there.

Infrastructure of the blob machines; what is asked of whom is `blobs_put.py`'s business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pastryd.ids import Name, NodeId, Position, position_of
from pastryd.protocol.items import Value
from pastryd.state.deadlines import Timer
from pastryd.state.peers import Peer
from pastryd.wire.verbs import AnswerStatus


@dataclass(frozen=True, slots=True)
class PutResult:
    """How a put ended, and how many nodes have the item durably."""

    status: AnswerStatus
    copies: int


ThenPut = Callable[[PutResult, float], None]


class Put:
    """One put, and who waits for its end."""

    __slots__ = (
        "asking",
        "busy",
        "candidates",
        "deadline",
        "durable",
        "ended",
        "failed",
        "fetching",
        "full",
        "given_up",
        "local",
        "name",
        "nonces",
        "patience_s",
        "pinned",
        "position",
        "queried",
        "refused",
        "resolving",
        "retry",
        "size",
        "source",
        "value",
        "waiters",
    )

    def __init__(self, name: Name, size: int, source: Peer | None, then: ThenPut) -> None:
        self.name = name
        self.position: Position = position_of(name)
        self.size = size
        self.source = source
        self.value: Value | None = None
        self.local = False
        """Replicas can pull it from us."""
        self.pinned = False
        self.fetching = False
        self.resolving = False
        self.waiters: list[ThenPut] = [then]
        self.candidates: Sequence[Peer | None] = ()
        self.asking: dict[NodeId, None] = {}
        """Who owes an answer, or will be asked again: nobody takes their place yet."""
        self.busy: dict[NodeId, int] = {}
        """How often each said that it has no time."""
        self.durable: dict[NodeId, None] = {}
        self.failed: dict[NodeId, None] = {}
        self.refused: dict[NodeId, tuple[float, float]] = {}
        """Who said that it cannot: for how long it is not asked, and until when."""
        self.full: dict[NodeId, None] = {}
        self.given_up: dict[NodeId, None] = {}
        """Failed or were suspected at any time: asked again, but who took their place counts."""
        self.queried: dict[NodeId, None] = {}
        """Said that they lack it, or were silent: a `Store` comes next."""
        self.patience_s: dict[NodeId, float] = {}
        self.nonces: dict[NodeId, int] = {}
        """Of its `Store` to each, however often that is sent: an answer to any copy counts."""
        self.deadline: Timer
        self.retry: Timer | None = None
        self.ended = False
