"""Questions that want an answer: one nonce each, repeated with backoff until answered or given up.

The one place that retransmits control messages and that measures RTT from their answers (Karn's
rule: never from a repeated question). A matching answer also proves the address of a peer that has
not moved since it was asked.
"""

from collections.abc import Callable
from typing import Any

from pastryd.protocol.context import NOBODY, Context
from pastryd.state.deadlines import Timer
from pastryd.state.peers import Peer
from pastryd.wire import messages as m
from pastryd.wire.codec import encode
from pastryd.wire.messages import Message

OnAnswer = Callable[[Any, float], None]
"""Called once with the answer and now, or with None when nobody answered."""

PENDING_MAX = 16_384

ANSWERS: dict[type[Any], tuple[type[Any], ...]] = {
    m.LeafSetProbe: (m.LeafSetReply,),
    m.RowRequest: (m.RowReply,),
    m.Ping: (m.Pong,),
    m.IndirectPing: (m.IndirectPong,),
    m.Find: (m.Found, m.Replicas),
    m.Store: (m.Stored,),
    m.HaveQuery: (m.HaveReply,),
    m.Ranges: (m.Ranges,),
    m.Names: (m.Names,),
}
"""What may answer a question: who was asked knows the nonce and could send anything with it."""


class _Pending:
    __slots__ = (
        "answers",
        "attempts",
        "data",
        "on_answer",
        "peer",
        "repeated",
        "sent_at",
        "timeout_s",
        "timer",
        "unproven",
    )

    def __init__(
        self,
        peer: Peer,
        data: bytes,
        answers: tuple[type[Any], ...],
        on_answer: OnAnswer,
        attempts: int,
        timeout_s: float,
        now: float,
    ) -> None:
        self.peer = peer
        self.unproven = peer.unproven
        """Another one when the answer comes: it has moved meanwhile, perhaps there and back."""
        self.data = data
        self.answers = answers
        self.on_answer = on_answer
        self.attempts = attempts
        self.timeout_s = timeout_s
        self.sent_at = now
        self.repeated = False
        self.timer: Timer


class Requests:
    """The outstanding questions of one node, by nonce."""

    __slots__ = ("_context", "_pending")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pending: dict[int, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def ask(
        self,
        peer: Peer,
        message: Message,
        on_answer: OnAnswer,
        now: float,
        *,
        attempts: int = 3,
        timeout_s: float | None = None,
        measure: bool = True,
    ) -> int:
        """Send a message that carries a fresh `nonce` field; return that nonce.

        The first wait is `timeout_s`, or the peer's retransmission timeout; then it doubles.
        `measure` False: the answer waits for more than the network and is no RTT sample.
        """
        nonce: int = message.nonce  # type: ignore[union-attr]
        first = peer.rto_s if timeout_s is None else timeout_s
        answers = ANSWERS[type(message)]
        pending = _Pending(peer, encode(message), answers, on_answer, attempts - 1, first, now)
        pending.repeated = not measure
        if len(self._pending) >= PENDING_MAX:
            self._context.stats.count("requests_refused")
            self._context.deadlines.arm(now, on_answer, None)
            return nonce
        self._pending[nonce] = pending
        self._context.send_bytes(pending.data, peer, now, is_question=True)
        pending.timer = self._context.deadlines.arm(now + first, self._handle_timeout, nonce)
        return nonce

    def answered(self, message: Any, peer: Peer, now: float) -> bool:
        """Match an answer; False when nobody (here) asked this peer, or no longer."""
        pending = self._pending.get(message.nonce)
        if pending is None or pending.peer.id != peer.id:
            return False
        if type(message) not in pending.answers:
            self._context.stats.count("answers_of_wrong_kind")
            return False
        self._forget(message.nonce)
        pending.timer.cancel()
        if not pending.repeated:
            peer.sample_rtt(now - pending.sent_at)
        if peer.unproven is not None:
            # Repeated, or held, the question may have gone wherever the peer was meanwhile.
            stayed = peer.unproven is pending.unproven
            self._context.prove(peer, peer.endpoint if stayed else NOBODY, now)
        pending.on_answer(message, now)
        return True

    def is_repeated(self, nonce: int) -> bool:
        """Tell whether a question has been sent again, and has not been answered yet."""
        pending = self._pending.get(nonce)
        return pending is not None and pending.repeated

    def cancel(self, nonce: int) -> None:
        """Forget a question; its callback is not called."""
        pending = self._pending.pop(nonce, None)
        if pending is not None:
            pending.timer.cancel()

    def _forget(self, nonce: int) -> None:
        del self._pending[nonce]
        if not self._pending:
            self._pending.clear()  # a dict keeps the size that it once needed

    def postpone(self, by_s: float) -> None:
        """We stood still: that is part of nobody's round trip time."""
        for pending in self._pending.values():
            pending.sent_at += by_s

    def _handle_timeout(self, nonce: int, now: float) -> None:
        pending = self._pending.get(nonce)
        if pending is None:
            return
        if pending.attempts <= 0:
            self._forget(nonce)
            pending.on_answer(None, now)
            return
        pending.attempts -= 1
        pending.repeated = True
        pending.timeout_s *= 2
        self._context.stats.count("retransmissions")
        self._context.send_bytes(pending.data, pending.peer, now, is_question=True)
        pending.timer = self._context.deadlines.arm(
            now + pending.timeout_s, self._handle_timeout, nonce
        )
