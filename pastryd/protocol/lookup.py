"""Questions to whoever is the root of a key: routed there, answered directly.

Owns the nonces of routed questions and their repetition; what the answers mean is the asker's
business. Infrastructure of the blob machines. A question is a message of `wire/messages.py` as the
payload of the "blob" application: `Find` is answered by any holder on the way, a `HaveQuery`
without names asks the root for the replica set.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from pastryd.ids import Position
from pastryd.protocol import placement
from pastryd.protocol.context import Context
from pastryd.state.deadlines import Timer
from pastryd.state.peers import Peer
from pastryd.wire.codec import encode
from pastryd.wire.messages import Find, Found, HaveQuery, Replicas

BLOB_APPLICATION = "blob"
PENDING_MAX = 4096
ATTEMPTS = 4
FIRST_TIMEOUT_RTOS = 3
"""Of `rto_initial_s`: several hops, each of which repeats on its own."""

OnRouted = Callable[[Found | Replicas | None, Peer | None, float], None]
"""Takes the answer and who gave it; None: nobody answered."""
ThenPeers = Callable[[Sequence[Peer | None] | None, float], None]
"""Takes the replica set and more, root first, None among them being us; None: not resolved."""


class Route(Protocol):
    """The node's `route`."""

    def __call__(self, key: Position, payload: bytes, application: str, now: float) -> None:
        """Route a payload to the root of `key`."""


class _Asked:
    __slots__ = ("attempts", "key", "on_answer", "payload", "timeout_s", "timer")

    def __init__(self, key: Position, payload: bytes, on_answer: OnRouted) -> None:
        self.key = key
        self.payload = payload
        self.on_answer = on_answer
        self.attempts = ATTEMPTS
        self.timeout_s = 0.0
        self.timer: Timer


class Lookup:
    """The routed questions of one node."""

    __slots__ = ("_asked", "_context", "_route")

    def __init__(self, context: Context, route: Route) -> None:
        self._context = context
        self._route = route
        self._asked: dict[int, _Asked] = {}

    def ask(
        self, key: Position, message: Find | HaveQuery, on_answer: OnRouted, now: float
    ) -> None:
        """Route a question to the root of `key`, again if nobody answers."""
        if len(self._asked) >= PENDING_MAX:
            self._context.stats.count("lookups_refused")
            self._context.deadlines.arm(now, on_answer, None, None)
            return
        asked = _Asked(key, encode(message), on_answer)
        asked.timeout_s = FIRST_TIMEOUT_RTOS * self._context.config.rto_initial_s
        self._asked[message.nonce] = asked
        self._send(message.nonce, now)

    def resolve(self, key: Position, then: ThenPeers, now: float) -> None:
        """Find out the replica set of a position, and some more: from our leaf set or its root.

        `then` may be called before this returns.
        """
        context = self._context
        if placement.knows(context, key):
            then(placement.closest(context, key, 2 * context.config.replicas), now)
            return

        def resolved(answer: Found | Replicas | None, peer: Peer | None, now: float) -> None:
            if not isinstance(answer, Replicas) or not answer.holders:
                then(None, now)
                return
            then(self.peers_of(answer), now)

        self.ask(key, HaveQuery(context.nonce(), False, ()), resolved, now)

    def peers_of(self, answer: Replicas) -> list[Peer | None]:
        """Return the holders that somebody named, each once, None being us."""
        own_id = self._context.identity.id
        of = self._context.peers.of
        named = {handle.id: handle for handle in answer.holders}
        return [None if node_id == own_id else of(handle) for node_id, handle in named.items()]

    def answered(self, message: Found | Replicas, peer: Peer, now: float) -> bool:
        """Match an answer; the nonce, which only who was on the way can know, is what counts."""
        asked = self._asked.pop(message.nonce, None)
        if asked is None:
            return False
        asked.timer.cancel()
        asked.on_answer(message, peer, now)
        return True

    def _send(self, nonce: int, now: float) -> None:
        asked = self._asked.get(nonce)
        if asked is None:
            return
        if not asked.attempts:
            del self._asked[nonce]
            asked.on_answer(None, None, now)
            return
        asked.attempts -= 1
        # Armed first: routing to ourselves answers at once.
        asked.timer = self._context.deadlines.arm(now + asked.timeout_s, self._send, nonce)
        asked.timeout_s *= 2
        self._route(asked.key, asked.payload, BLOB_APPLICATION, now)
