"""What a client session knows of one request, and how requests end (DESIGN sec. 6)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pastryd.ids import Name
from pastryd.protocol.items import Value
from pastryd.protocol.pull_queue import PROBED_BYTES
from pastryd.protocol.pull_state import PullResult
from pastryd.state.deadlines import Timer
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.peers import Peer
from pastryd.wire.verbs import AnswerStatus, Verb

PULL_ATTEMPTS = 3
"""An answer's object may have left the access node's cache before it was pulled: ask again."""
DIRECT_SHARE = 2 / 3
"""Of the time left, what a pull from holders may use; the rest is for the access node."""


class Question(NamedTuple):
    """What a client wants: `number` is the size of a `value` that is put."""

    verb: Verb
    name: bytes
    number: int
    value: Value | None
    timeout_s: float
    """Begins when it is its turn."""
    checked: bool = True
    """What is got is verified; else whoever asks does that, and may not get what was asked for."""


@dataclass(frozen=True, slots=True)
class Connected:
    """An access node answered."""

    access: Handle
    active: bool
    seen: Endpoint
    """Where it sees us."""
    rtt_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """How a request ended. `data` of an object (OK) is verified, unless that was not wanted."""

    status: AnswerStatus
    number: int
    name: bytes
    data: Value
    after_s: float


@dataclass(frozen=True, slots=True)
class NoReply:
    """Nobody answered; `silent`: not even with a sign of life."""

    after_s: float
    silent: bool


class Call:
    """One request on its way."""

    __slots__ = (
        "asked",
        "asked_at",
        "checked",
        "copied_at",
        "copies",
        "data",
        "deadline",
        "direct",
        "has_turn",
        "is_bulk",
        "name",
        "number",
        "offered",
        "pulling",
        "pulls_left",
        "repeats",
        "request_id",
        "sent_at",
        "since",
        "then",
        "timer",
        "verb",
        "wait_s",
    )

    def __init__(
        self,
        request_id: int,
        verb: Verb,
        name: bytes,
        number: int,
        data: bytes,
        offered: bool,
        now: float,
        deadline: float,
        checked: bool = True,
        *,
        direct: bool = False,
    ) -> None:
        self.request_id = request_id
        self.verb = verb
        self.name = name
        self.number = number
        self.data = data
        self.offered = offered
        self.since = now
        self.deadline = deadline
        self.checked = checked
        """What is pulled is verified."""
        self.direct = direct
        """Holders are asked, or may be; otherwise the access node."""
        self.is_bulk = offered and number >= PROBED_BYTES
        """Takes a wire for so long that it takes no turn among small ones."""
        self.has_turn = False
        """Counts as one that holders are asked at one time."""
        self.asked: dict[int, Peer] = {}
        """Who has not answered yet, by the nonce of what it was asked."""
        self.copies = 0
        """How many holders have stored it, if they were asked themselves."""
        self.copied_at = now
        """When the last of them said so."""
        self.asked_at = self.sent_at = now
        """Since when those in `asked` owe a word, and when they were asked last."""
        self.repeats = 0
        """How often they were asked again."""
        self.wait_s = 0.0
        self.timer: Timer | None = None
        self.pulling: tuple[Name, Callable[[PullResult, float], None]] | None = None
        self.pulls_left = PULL_ATTEMPTS
        self.then: Callable[[Reply | NoReply, float], None] | None = None
        """Whom to tell; None: whoever gave the command."""
