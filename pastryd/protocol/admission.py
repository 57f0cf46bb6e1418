"""Which requests of clients an access node takes on at one time, and which are told BUSY.

Any client may take what is free, for a bulk put should have all of an idle node. So that it cannot
keep all others out, with puts whose data never comes, say, there is room on top for those who have
little under way themselves. Identities cost nothing: many clients that act as one can fill that
as well.
"""

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.ids import NodeId

Call = tuple[NodeId, int]
"""A client and its nonce."""

REQUESTS_MAX = 256
"""Of all clients. Each is 0.3 ms of work: many more would keep a heartbeat waiting for too long."""
RESERVED_REQUESTS = 64
RESERVED_BYTES = 8 << 20
"""On top of that, and of the bytes of all, for clients who have little under way."""
LITTLE_REQUESTS = 4
LITTLE_BYTES = OBJECT_BYTES_MAX


class Admission:
    """Pure accounts: calls under way, each with the bytes that a put is going to bring."""

    __slots__ = ("_bytes", "_bytes_max", "_calls", "_shares")

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max`: of all puts under way, but for those on the reserve; one is always taken."""
        self._bytes_max = bytes_max
        self._calls: dict[Call, int] = {}
        self._bytes = 0
        self._shares: dict[NodeId, tuple[int, int]] = {}
        """How many calls, and bytes, each client has under way."""

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, call: Call) -> bool:
        return call in self._calls

    def begin(self, call: Call, size: int) -> bool:
        """Take a call on, if there is room for it."""
        client = call[0]
        calls, held = self._shares.get(client, (0, 0))
        if not self._fits(REQUESTS_MAX, self._bytes_max, size):
            has_little = calls < LITTLE_REQUESTS and held + size <= LITTLE_BYTES
            requests_max = REQUESTS_MAX + RESERVED_REQUESTS
            bytes_max = self._bytes_max + RESERVED_BYTES
            if not has_little or not self._fits(requests_max, bytes_max, size):
                return False
        self._calls[call] = size
        self._bytes += size
        self._shares[client] = (calls + 1, held + size)
        return True

    def _fits(self, requests_max: int, bytes_max: int, size: int) -> bool:
        fits = not size or not self._bytes or self._bytes + size <= bytes_max
        return fits and len(self._calls) < requests_max

    def end(self, call: Call) -> None:
        """A call has its answer; harmless if it was not taken on."""
        size = self._calls.pop(call, None)
        if size is None:
            return
        self._bytes -= size
        calls, held = self._shares[call[0]]
        if calls == 1:
            del self._shares[call[0]]
        else:
            self._shares[call[0]] = (calls - 1, held - size)
