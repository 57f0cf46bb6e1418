"""An access node without a ring: a sans-IO core that keeps what a client puts in a dictionary.

It speaks the real messages over the real transfer, and can be told to misbehave.
"""

from collections.abc import Sequence
from random import Random

import msgpack

from pastryd.config import Config
from pastryd.errors import RemoteProtocolError
from pastryd.ids import Name, position_of
from pastryd.protocol.context import NOBODY, Context
from pastryd.protocol.items import INDEX_ENTRY_BYTES, Value, name_of, verify
from pastryd.protocol.outbox import Outbox, StoreReply
from pastryd.protocol.pull_state import Pulled, PullResult
from pastryd.protocol.segment_server import Then
from pastryd.protocol.transfer import Transfer
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire import messages as m
from pastryd.wire.codec import decode
from pastryd.wire.verbs import AnswerStatus, Verb

INLINE_MAX = 1000


class AccessNode:
    """Satisfies the driver's `Core`."""

    def __init__(self, identity: Handle, config: Config, rng: Random) -> None:
        self.context = Context(identity, config, rng)
        self.transfer = Transfer(self.context, self._read, verify)
        self.items: dict[Name, Value] = {}
        self.documents: dict[Name, bytes] = {}
        """Its own, which are pulled as items are."""
        self.requests: list[Verb] = []
        self.copies = 3
        self.document = b'{"id": "%032x", "padding": "%s"}' % (identity.id, b"x" * 3000)
        self.put_status = AnswerStatus.OK
        self.pending_answers = 0
        self.refusals: list[AnswerStatus] = []
        """What the next requests are answered with."""
        self.active = True
        self.stalls: list[float] = []
        self.stored: list[StoreReply] = []

    @property
    def identity(self) -> Handle:
        return self.context.identity

    @property
    def outbox(self) -> Outbox:
        return self.context.outbox

    def receive_train(self, train: Sequence[bytes], sender: Handle, now: float) -> None:
        peer = self.context.heard(sender, 0, now)
        for data in self.transfer.take_segments(train, peer, now):
            self.receive_datagram(data, sender, now)

    def receive_datagram(self, data: bytes, sender: Handle, now: float) -> None:
        try:
            message = decode(data)
        except RemoteProtocolError:
            self.context.stats.count("messages_malformed")
            return
        peer = self.context.heard(sender, len(data), now)
        match message:
            case m.PathProbe():
                self.transfer.prober.on_probe(message, peer, now)
            case m.PathReply():
                self.transfer.prober.on_reply(message, peer, now)
            case m.Hello():
                self.context.on_hello(message, peer.handle, self.active, NOBODY, now)
            case m.Welcome():
                self.context.on_welcome(message, peer, now)
            case m.Echo():
                self.context.on_echo(message, peer, now)
            case m.Request():
                self._on_request(message, peer, now)
            case m.Pull():
                self.transfer.on_pull(message, peer, now)
            case m.Segment():
                self.transfer.on_segment(message, peer, now)
            case m.Absent():
                self.transfer.on_absent(message, peer, now)
            case _:
                self.context.stats.count("messages_unexpected")

    def receive_hello(self, data: bytes, sender: Handle, now: float) -> None:
        message = decode(data)
        assert isinstance(message, m.Hello)
        self.context.on_hello(message, sender, self.active, NOBODY, now)

    def receive_twin(self, data: bytes, sender: Handle, now: float) -> None:
        raise AssertionError("nobody else has this key")

    def handle_timer(self, now: float) -> None:
        self.context.deadlines.run_due(now)

    def next_deadline(self) -> float | None:
        return self.context.deadlines.next_deadline()

    def store_completed(self, reply: StoreReply, now: float) -> None:
        self.stored.append(reply)

    def report_stall(self, lag_s: float, now: float) -> None:
        self.stalls.append(lag_s)

    def _read(self, name: Name, offset: int, length: int, then: Then, now: float) -> None:
        value = self.items.get(name, self.documents.get(name))
        if value is None:
            then(None, 0, now)
        else:
            end = len(value) if length < 0 else offset + length
            then(memoryview(value)[offset:end], len(value), now)

    def _on_request(self, message: m.Request, peer: Peer, now: float) -> None:
        self.requests.append(Verb(message.verb))
        if self.pending_answers:
            self.pending_answers -= 1
            self._answer(message, peer, AnswerStatus.PENDING, now)
        elif self.refusals:
            self._answer(message, peer, self.refusals.pop(), now)
        elif message.verb == Verb.GET:
            self._get(message, peer, now)
        elif message.verb == Verb.PUT:
            self._put(message, peer, now)
        elif message.verb == Verb.PING:
            self._send(message, peer, AnswerStatus.OK, 0, Name(b""), b'{"active": true}', now)
        elif message.verb == Verb.STATUS:
            document = self.document
            self.documents[name_of(document)] = document
            self._send(message, peer, AnswerStatus.OK, 0, name_of(document), document, now)
        else:
            self._answer(message, peer, AnswerStatus.NOT_FOUND, now)

    def _get(self, message: m.Request, peer: Peer, now: float) -> None:
        name = Name(message.name)
        value = self.items.get(name)
        position = position_of(name)
        records = [
            bytes(v)
            for n, v in self.items.items()
            if len(v) == INDEX_ENTRY_BYTES and position_of(n) == position
        ]
        if value is not None:
            self._send(message, peer, AnswerStatus.OK, 0, name, value, now)
        elif records:
            data = msgpack.packb(records)
            self._send(message, peer, AnswerStatus.INDEX, 0, name, data, now)
        else:
            self._answer(message, peer, AnswerStatus.NOT_FOUND, now)

    def _put(self, message: m.Request, peer: Peer, now: float) -> None:
        name = Name(message.name)

        def kept(value: Value, now: float) -> None:
            self.items[name] = value
            answer = m.Answer(message.nonce, self.put_status, self.copies, b"", 0, b"")
            self.context.send(answer, peer, now)

        def pulled(result: PullResult, now: float) -> None:
            if isinstance(result, Pulled):
                kept(result.value, now)

        if len(message.data) == message.number:
            assert verify(name, message.data)
            kept(message.data, now)
        elif name in self.items:
            kept(self.items[name], now)
        elif self.transfer.is_pulling(name):
            self._answer(message, peer, AnswerStatus.PENDING, now)
        else:
            self.transfer.pull(name, message.number, [peer], pulled, now)

    def _answer(self, message: m.Request, peer: Peer, status: AnswerStatus, now: float) -> None:
        self.context.send(m.Answer(message.nonce, status, 0, b"", 0, b""), peer, now)

    def _send(
        self,
        message: m.Request,
        peer: Peer,
        status: AnswerStatus,
        number: int,
        name: Name,
        data: Value,
        now: float,
    ) -> None:
        inline = bytes(data) if len(data) <= INLINE_MAX else b""
        answer = m.Answer(message.nonce, status, number, name, len(data), inline)
        self.context.send(answer, peer, now)
