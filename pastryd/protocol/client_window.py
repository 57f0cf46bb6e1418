"""How many requests a client has with holders at one time: no more than make them faster.

An access node says when it is busy. Holders that are asked directly do not: what is too much for
them waits in their sockets, in front of their heartbeats. Who waits at home disturbs nobody. So the
number follows how long answers wait, as TCP's window does (Chiu and Jain 1989; RFC 5681): half for
one that is late, once for all that were under way together; a little more for each that is prompt,
one more as long as none has been late; and only while all of it is used.
"""

from collections import deque
from collections.abc import Callable

from pastryd.protocol.client_call import Call

UNDER_WAY_FIRST = 16
UNDER_WAY_MAX = 64
BULK_BYTES_UNDER_WAY = 2 << 20
BULK_ITEM_BYTES_MAX = BULK_BYTES_UNDER_WAY // 8
"""Of items that each holder pulls, which are never prompt: so many bytes, or eight that are longer,
as one large blob has under way (`net/put_window.py`): what is put beside it must not take the wire
for so long that the time for all of it is over."""
LATE_S = 0.1
"""How long a request may wait in queues, the disk's among them; a ring neighbour that is silent for
not much longer is wondered about (`heartbeat_grace_s`, `probe_timeout_s`)."""
NEVER = float("-inf")


class ClientWindow:
    """Pure arithmetic."""

    __slots__ = ("_halved_at", "_size")

    def __init__(self) -> None:
        self._size = float(UNDER_WAY_FIRST)
        self._halved_at = NEVER

    @property
    def requests(self) -> int:
        """How many may be under way: from one to UNDER_WAY_MAX."""
        return int(self._size)

    def on_answer(self, sent_at: float, round_trip_s: float, under_way: int, now: float) -> None:
        """Take in when that was asked what a holder answers now, and how far it is.

        `under_way`: how many are. Fewer than may be say nothing about more of them.
        """
        if now - sent_at - round_trip_s <= LATE_S:
            if under_way < int(self._size):
                return
            more = 1.0 if self._halved_at == NEVER else 1 / self._size
            self._size = min(self._size + more, UNDER_WAY_MAX)
        elif sent_at >= self._halved_at:
            self._size = max(self._size / 2, 1.0)
            self._halved_at = now


class Turns:
    """Who has its turn, and who waits for it: small ones by number, bulk by its bytes."""

    __slots__ = ("_begin", "_bulk_bytes", "_taken", "_waiting", "window")

    def __init__(self, begin: Callable[[Call, float], None], bulk_bytes: int = 0) -> None:
        """`bulk_bytes`: how many of bulk may be under way; 0: these are the turns of small ones."""
        self._begin = begin
        self._bulk_bytes = bulk_bytes
        self._taken = 0
        """Requests, or bytes, that have their turn."""
        self._waiting: deque[Call] = deque()
        self.window = ClientWindow()

    def want(self, call: Call, now: float) -> None:
        """Begin a call as soon as it is its turn; only then its time begins to run."""
        self._waiting.append(call)
        self._go_on(now)

    def on_answer(self, call: Call, round_trip_s: float, now: float) -> None:
        """Take in that a holder, so far away, has answered what it was asked for a small call."""
        self.window.on_answer(call.sent_at, round_trip_s, self._taken, now)
        if self._waiting:
            self._go_on(now)

    def end(self, call: Call, now: float) -> None:
        """A call needs no turn, or no longer; harmless if it has none."""
        if call.has_turn:
            call.has_turn = False
            self._taken -= self._cost(call)
        elif call in self._waiting:
            self._waiting.remove(call)  # perhaps in front of one that there is room for
        if self._waiting:
            self._go_on(now)

    def _cost(self, call: Call) -> int:
        return min(call.number, BULK_ITEM_BYTES_MAX) if self._bulk_bytes else 1

    @property
    def _room(self) -> int:
        return (self._bulk_bytes or self.window.requests) - self._taken

    def _go_on(self, now: float) -> None:
        while self._waiting and self._cost(self._waiting[0]) <= self._room:
            call = self._waiting.popleft()
            call.deadline += now - call.since
            call.since = now
            call.has_turn = True
            self._taken += self._cost(call)
            self._begin(call, now)

    def check_invariants(self) -> None:
        """Assert what must hold between two steps."""
        assert 1 <= self.window.requests <= UNDER_WAY_MAX
        assert 0 <= self._taken <= (self._bulk_bytes or UNDER_WAY_MAX)
        assert not self._waiting or self._cost(self._waiting[0]) > self._room
