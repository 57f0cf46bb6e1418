"""A client's search for an access node: Hello to bare addresses until one of them answers.

Owns which Hellos are under way; what is asked of who answered is `client_session.py`'s.
"""

from collections.abc import Sequence

from pastryd.errors import LocalProtocolError
from pastryd.protocol.client_call import Connected, NoReply
from pastryd.protocol.context import Context
from pastryd.state.handle import Endpoint
from pastryd.state.peers import Peer
from pastryd.wire.messages import Echo, Welcome

HELLO_REPEAT_S = 0.2
HELLO_REPEAT_MAX_S = 1.0


class _Connecting:
    """One search for an access node."""

    __slots__ = ("deadline", "endpoints", "request_id", "sent", "since")

    def __init__(
        self, request_id: int, endpoints: Sequence[Endpoint], now: float, deadline: float
    ) -> None:
        self.request_id = request_id
        self.endpoints = endpoints
        self.since = now
        self.deadline = deadline
        self.sent: dict[int, tuple[Endpoint, float]] = {}
        """Where to each Hello left, and when, by nonce."""


class AccessSearch:
    """At most one search; it ends with a `Connected` or a `NoReply`."""

    __slots__ = ("_connecting", "_context")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._connecting: _Connecting | None = None

    def begin(
        self, request_id: int, endpoints: Sequence[Endpoint], timeout_s: float, now: float
    ) -> None:
        """Say Hello to all of `endpoints`."""
        if self._connecting is not None:
            raise LocalProtocolError("already connecting")
        self._connecting = _Connecting(request_id, endpoints, now, now + timeout_s)
        self._say_hello(self._connecting, HELLO_REPEAT_S, now)

    def _say_hello(self, connecting: _Connecting, wait_s: float, now: float) -> None:
        if self._connecting is not connecting:
            return
        if now >= connecting.deadline:
            self._connecting = None
            self._context.complete(connecting.request_id, NoReply(now - connecting.since, True))
            return
        for endpoint in connecting.endpoints:
            connecting.sent[self._context.hello_endpoint(endpoint)] = (endpoint, now)
        when = min(now + wait_s, connecting.deadline)
        longer = min(2 * wait_s, HELLO_REPEAT_MAX_S)
        self._context.deadlines.arm(when, self._say_hello, connecting, longer)

    def on_welcome(self, message: Welcome, peer: Peer, now: float) -> bool:
        """End the search with who answers first; tell whether this did."""
        connecting = self._connecting
        sent = connecting.sent.get(message.nonce) if connecting else None
        if connecting is None or sent is None:
            return False
        endpoint, sent_at = sent
        self._connecting = None
        self._context.prove(peer, endpoint, now)
        self._context.send(Echo(message.cookie), peer, now)
        peer.sample_rtt(now - sent_at)
        seen = (message.seen_host, message.seen_port)
        self._context.complete(
            connecting.request_id, Connected(peer.handle, message.active, seen, now - sent_at)
        )
        return True

    def postpone(self, by_s: float) -> None:
        """We stood still: that is part of nobody's round trip time."""
        if self._connecting is not None:
            sent = self._connecting.sent
            sent.update({nonce: (where, at + by_s) for nonce, (where, at) in sent.items()})
