"""What one pull knows: its segments, its holders, its requests, who waits for it (DESIGN sec. 7).

State and small verbs; `transfer.py` decides. One byte per segment says whether it is wanted, asked
for, or which holder it came from, so that corrupt bytes can be traced to who sent them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.ids import Name, NodeId
from pastryd.protocol.context import DATAGRAM_OVERHEAD_BYTES
from pastryd.protocol.path_model import Mark
from pastryd.protocol.path_window import PathWindow, window_of
from pastryd.state.deadlines import Timer
from pastryd.state.peers import Peer
from pastryd.wire.codec import SEGMENT_HEADER, SEGMENT_HEADER_BYTES, SEGMENT_TAG

BURST_MAX = 54
"""Segments that one request may ask for: so many of 1,200 bytes fill a train."""
BURST_BYTES_MAX = 256 << 10
"""What one request may ask for: the holder sends it in one step."""
BUFFER_COST = 2
"""The kernel charges a datagram that waits in a receive buffer at about twice its size."""
LAPSED_MAX = 64
HOLDERS_MAX = 64
WANTED, ASKED, RECEIVED = 0, 1, 2
"""A segment's byte; RECEIVED plus the number of the holder that sent it."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """The verified bytes. Shared by everyone who pulled the item: not to be changed."""

    value: bytes | bytearray
    corrupt: tuple[Peer, ...]
    """Who delivered bytes that are not the item's."""
    mostly_from: Peer | None = None
    """Who delivered the most of it."""


@dataclass(frozen=True, slots=True)
class AbsentEverywhere:
    """Every holder answered, and none has it (those in `corrupt` have something else)."""

    corrupt: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Nobody who may still have it gives a sign of life."""

    after_s: float
    corrupt: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The deadline passed first."""

    after_s: float
    corrupt: tuple[Peer, ...]


PullResult = Pulled | AbsentEverywhere | Unreachable | TimedOut
OnDone = Callable[[PullResult, float], None]
AddHolder = Callable[[Name, Peer, float], None]
"""`Transfer.add_holder`: tells a pull of one more peer that may have the item."""


class PullItem(Protocol):
    """`Transfer.pull`."""

    def __call__(
        self,
        name: Name,
        size: int | None,
        holders: Sequence[Peer],
        on_done: OnDone,
        now: float,
        *,
        background: bool = False,
        deadline_s: float | None = None,
    ) -> None:
        """Fetch an item from those who may have it, nearest first."""


def segment_cost(segment_bytes: int) -> int:
    """Return what a segment on its way is charged to the node's receive window."""
    return BUFFER_COST * (segment_bytes + SEGMENT_HEADER_BYTES + DATAGRAM_OVERHEAD_BYTES)


class Standing(Enum):
    """What a pull thinks of a holder."""

    GOOD = "good"
    ABSENT = "absent"
    DISAGREES = "disagrees"
    """About the size, with whom was first. One of them is wrong; the hash will tell."""
    GONE = "gone"
    CORRUPT = "corrupt"


class Holder:
    """A peer that is said to have the item."""

    __slots__ = ("number", "peer", "silences", "silent_at", "standing", "window")

    def __init__(self, peer: Peer, number: int) -> None:
        self.peer = peer
        self.window: PathWindow = window_of(peer)
        self.number = number
        self.standing = Standing.GOOD
        self.silences = 0
        self.silent_at = float("-inf")

    def answers_as(self, peer: Peer) -> bool:
        """Tell whether a message from `peer` comes from this holder."""
        if self.peer is peer:
            return True
        if self.peer.id != peer.id:
            return False
        # Forgotten and met again meanwhile: the path's window moves to the new belief.
        self.peer = peer
        peer.window = self.window
        return True


class Request:
    """One `Pull` datagram: which segments of its burst have not come yet."""

    __slots__ = (
        "answered_at",
        "count",
        "first",
        "half",
        "hastened",
        "holder",
        "lapsed",
        "left",
        "mark",
        "missing",
        "nonce",
        "pull",
        "samples",
        "sent_at",
        "timeout_factor",
        "timer",
        "top",
    )

    def __init__(
        self, nonce: int, pull: "Pulling", holder: Holder, first: int, mask: int, now: float
    ) -> None:
        self.nonce = nonce
        self.pull = pull
        self.holder = holder
        self.first = first
        self.missing = mask
        self.count = self.left = mask.bit_count()
        self.half = self.left >> 1
        self.top = mask.bit_length() - 1
        self.sent_at = now
        size = self.left * pull.segment_bytes
        self.mark: Mark | None = holder.window.on_asked(size, pull.background, now)
        """What was so when it was sent; None: its answer measures nothing any more."""
        self.answered_at = float("inf")
        self.samples = False
        """Its answer measures the path: nothing of ours was queued before it."""
        self.hastened = False
        self.lapsed = False
        self.timeout_factor = 1
        self.timer: Timer | None = None

    @property
    def answered(self) -> bool:
        """At least one segment has come."""
        return self.answered_at < float("inf")


class Waiter:
    """One caller of `Transfer.pull`."""

    __slots__ = ("on_done", "since", "timer")

    def __init__(self, on_done: OnDone, since: float) -> None:
        self.on_done = on_done
        self.since = since
        self.timer: Timer | None = None


class Pulling:
    """One item on its way here."""

    __slots__ = (
        "background",
        "burst_max",
        "checked",
        "corrupt",
        "cost",
        "count",
        "exclusive",
        "holders",
        "lapsed",
        "last",
        "last_bytes",
        "left",
        "name",
        "number",
        "requests",
        "segment_bytes",
        "size",
        "solo",
        "state",
        "suspect",
        "value",
        "view",
        "waiters",
        "wanted",
    )

    def __init__(self, name: Name, segment_bytes: int, background: bool) -> None:
        self.name = name
        self._set_length(segment_bytes)
        self.background = background
        self.number = 0
        """Of all pulls of this node, in the order in which they began."""
        self.checked = False
        """Somebody wants the bytes verified."""
        self.holders: dict[NodeId, Holder] = {}
        self.requests: dict[int, Request] = {}
        self.lapsed: deque[int] = deque()
        """Requests given up, whose late segments are still welcome."""
        self.waiters: list[Waiter] = []
        self.corrupt: list[Peer] = []
        self.exclusive = False
        """One holder at a time, since a mixture was corrupt."""
        self.solo: Holder | None = None
        self.suspect: tuple[bytearray, bytearray, int] | None = None
        """A corrupt mixture, its state and the length of its segments: compared with the true
        bytes, it names the liars."""
        self.value = bytearray()
        self.view = memoryview(self.value)
        self.reset()

    def reset(self) -> None:
        """Begin anew, as if nothing had arrived and nothing were known of the size."""
        self.size = -1
        self.count = self.left = self.wanted = BURST_MAX
        self.last = self.last_bytes = 0
        self.state = bytearray(BURST_MAX)
        self.view.release()
        self.value = bytearray()
        self.view = memoryview(self.value)
        self.solo = None

    def learn_size(self, size: int) -> None:
        """Make room for the item; nothing may have been received yet."""
        assert self.left == self.count and 0 <= size <= OBJECT_BYTES_MAX
        self.size = size
        self.count = self.left = max(1, -(-size // self.segment_bytes))
        self.last = self.count - 1
        self.last_bytes = size - self.last * self.segment_bytes
        state = bytearray(self.count)
        kept = min(len(state), len(self.state))
        state[:kept] = self.state[:kept]
        self.state = state
        self.wanted = state.count(WANTED)
        self.view.release()
        self.value = bytearray(size)
        self.view = memoryview(self.value)

    def _set_length(self, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        self.cost = segment_cost(segment_bytes)
        """What one segment on its way is charged to the node's receive window."""
        self.burst_max = max(1, min(BURST_MAX, BURST_BYTES_MAX // segment_bytes))
        """How many segments one request may ask for."""

    @property
    def begun(self) -> bool:
        """Something was asked for or has come."""
        return self.left != self.count or bool(self.requests)

    def resegment(self, segment_bytes: int) -> None:
        """Go on with segments of another length; nothing may be on its way.

        What has come stays, but for what does not fill one of the new segments.
        """
        assert not self.requests
        old, state = self.segment_bytes, self.state
        self._set_length(segment_bytes)
        if self.size < 0:
            return
        self.count = max(1, -(-self.size // segment_bytes))
        self.last = self.count - 1
        self.last_bytes = self.size - self.last * segment_bytes
        self.state = bytearray(self.count)
        for i in range(self.count):
            end = min((i + 1) * segment_bytes, self.size)
            covering = state[i * segment_bytes // old : max(1, -(-end // old))]
            if min(covering) >= RECEIVED:
                self.state[i] = covering[0]
        self.left = self.wanted = self.state.count(WANTED)

    def take(self, count: int) -> tuple[int, int]:
        """Mark up to `count` wanted segments as asked for; return the first and their mask."""
        state = self.state
        index = first = state.find(WANTED)
        if not any(state[first : first + count]):  # all are wanted: the usual case
            taken = len(state[first : first + count])
            state[first : first + taken] = bytes([ASKED]) * taken
            self.wanted -= taken
            return first, (1 << taken) - 1
        stop = first + 64
        mask = taken = 0
        while taken < count and index >= 0:
            state[index] = ASKED
            mask |= 1 << (index - first)
            taken += 1
            index = state.find(WANTED, index + 1, stop)
        self.wanted -= taken
        return first, mask

    def give_back(self, first: int, missing: int) -> None:
        """Want again what a request that is given up still lacks."""
        state = self.state
        while missing:
            low = missing & -missing
            index = first + low.bit_length() - 1
            if state[index] == ASKED:
                state[index] = WANTED
                self.wanted += 1
            missing ^= low

    def place(self, request: Request, train: Sequence[bytes]) -> tuple[int, bool]:
        """Take in the answers to a request that `train` begins with, as long as all is as expected.

        Returns how many, and whether the last segment that was asked for is among them.
        """
        step, size, last, first = self.segment_bytes, self.size, self.last, request.first
        state, view, code = self.state, self.view, RECEIVED + request.holder.number
        nonce, missing, unpack = request.nonce, request.missing, SEGMENT_HEADER.unpack_from
        full = step + SEGMENT_HEADER_BYTES
        count = 0
        for data in train:
            if len(data) < SEGMENT_HEADER_BYTES:
                break
            tag, of, index, whole = unpack(data)
            position = index - first
            if of != nonce or whole != size or tag != SEGMENT_TAG or position < 0:
                break
            expected = full if index < last else self.last_bytes + SEGMENT_HEADER_BYTES
            if not missing >> position & 1 or len(data) != expected or state[index] != ASKED:
                break
            offset = index * step
            view[offset : offset + step] = memoryview(data)[SEGMENT_HEADER_BYTES:]
            state[index] = code
            missing ^= 1 << position
            count += 1
        request.missing = missing
        request.left -= count
        self.left -= count
        return count, count > 0 and not missing >> request.top & 1

    def add_holder(self, peer: Peer) -> bool:
        """Remember who may have it; False when that is no news."""
        known = self.holders.get(peer.id)
        if known is not None:
            if known.standing is not Standing.GONE and known.standing is not Standing.ABSENT:
                return False
            known.standing = Standing.GOOD
            known.silences = 0
            return True
        if len(self.holders) >= HOLDERS_MAX:
            return False
        self.holders[peer.id] = Holder(peer, len(self.holders))
        return True

    def waits_behind(self, refused: "Pulling") -> bool:
        """Tell whether the path that had no room for another pull has none for this one either.

        A chunk on its way makes eight of them look for room, and most have one path, the same.
        """
        if len(self.holders) != 1 or len(refused.holders) != 1:
            return False
        (holder,), (other,) = self.holders.values(), refused.holders.values()
        window = holder.window
        if window is not other.window or window.probing or not window.outstanding:
            return False
        return self.wanted * self.segment_bytes >= refused.wanted * refused.segment_bytes

    def good_holders(self) -> Sequence[Holder]:
        """Return those that can be asked, in the order in which they were named."""
        return [h for h in self.holders.values() if h.standing is Standing.GOOD]

    def sources(self) -> list[Holder]:
        """Return the holders whose segments are in `value`."""
        return [h for h in self.holders.values() if RECEIVED + h.number in self.state]

    def main_source(self) -> Peer:
        """Return whom most of the segments came from; of equals who was named first."""
        count = self.state.count
        return max(self.holders.values(), key=lambda h: count(RECEIVED + h.number)).peer

    def liars(self) -> list[Holder]:
        """Compare the suspect mixture with the true value; return whose segments differ."""
        if self.suspect is None:
            return []
        value, state, step = self.suspect
        same_size = len(value) == len(self.value)
        numbers = {
            code - RECEIVED
            for i, code in enumerate(state)
            if not same_size
            or value[i * step : (i + 1) * step] != self.value[i * step : (i + 1) * step]
        }
        return [h for h in self.holders.values() if h.number in numbers]

    def _those_that_are(self, code: int) -> int:
        """Return a mask of the segments with this byte."""
        ones = bytearray(b"0" * 256)
        ones[code] = ord("1")
        return int(self.state.translate(ones)[::-1], 2)

    def check_invariants(self) -> None:
        """Assert what must hold between two steps."""
        assert self.waiters
        assert len(self.state) == self.count
        assert self.wanted == self.state.count(WANTED)
        assert self.left == self.wanted + self.state.count(ASKED) > 0
        missing = 0
        for request in self.requests.values():
            assert not request.lapsed and request.left == request.missing.bit_count() > 0
            mask = request.missing << request.first
            assert not missing & mask, "two requests ask for one segment"
            missing |= mask
        assert not missing >> self.count
        asked = self._those_that_are(ASKED)
        assert not asked & ~missing, "asked for by nobody"
        assert asked == missing or not self._those_that_are(WANTED) & missing
        assert len(self.lapsed) <= LAPSED_MAX
        if self.size >= 0:
            assert len(self.value) == self.size
