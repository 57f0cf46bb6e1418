"""The access node's side of a client's conversation (DESIGN sec. 6): `Request` in, `Answer` out.

Owns the requests in progress, by client and nonce, and a few last answers: a repeated request is
answered PENDING while it is worked on, and with the same answer afterwards. What does not fit in a
datagram is kept in the cache, from where the client pulls it. Bounded: how many requests, and how
many bytes of puts, are in progress (`admission.py`); who comes on top is told BUSY. What another
node must say (STATUS, TRACE) travels as routed messages of the application "access".
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import msgpack

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.errors import RemoteProtocolError
from pastryd.ids import ID_BYTES, NAME_BYTES, Name, Position, position_of
from pastryd.protocol.access_report import (
    Document,
    encode_document,
    show_node,
    trace_document,
)
from pastryd.protocol.access_stat import Find, Stat
from pastryd.protocol.admission import Admission, Call
from pastryd.protocol.application import Application
from pastryd.protocol.context import Context
from pastryd.protocol.items import Value, name_of
from pastryd.protocol.lookup import Lookup
from pastryd.protocol.pull_state import Pulled, PullItem, PullResult
from pastryd.protocol.put_state import PutResult, ThenPut
from pastryd.protocol.requests import Requests
from pastryd.protocol.search_state import Failure, FindResult, Object
from pastryd.protocol.storage import Storage
from pastryd.state.deadlines import Timer
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import Answer, Hop, Request
from pastryd.wire.verbs import AnswerStatus, Verb

ANSWER_OVERHEAD_BYTES = 72
LAST_ANSWERS_MAX = 1024
ROUTED_MAX = 256
ROUTED_ATTEMPTS = 3
ROUTED_FIRST_RTOS = 5

_FAILURES = {
    Failure.NOT_FOUND: AnswerStatus.NOT_FOUND,
    Failure.UNREACHABLE: AnswerStatus.UNREACHABLE,
    Failure.CORRUPT: AnswerStatus.CORRUPT,
    Failure.BUSY: AnswerStatus.BUSY,
}
_PENDING = Answer(0, AnswerStatus.PENDING, 0, b"", 0, b"")

Put = Callable[[Name, int, Value | None, Peer | None, ThenPut, float], None]
RouteTraced = Callable[[Position, bytes, str, float, bool], None]
"""Routes (key, payload, application, now, keep the trail)."""


class _Routed:
    __slots__ = ("attempts", "call", "keep_trail", "key", "payload", "peer", "timeout_s", "timer")

    def __init__(
        self, call: Call, peer: Peer, key: Position, payload: bytes, keep_trail: bool
    ) -> None:
        self.call = call
        self.peer = peer
        self.key = key
        self.payload = payload
        self.keep_trail = keep_trail
        self.attempts = ROUTED_ATTEMPTS
        self.timeout_s = 0.0
        self.timer: Timer


class Access(Application):
    """Serves the clients of one node."""

    name = "access"
    __slots__ = (
        "_context",
        "_find",
        "_in_progress",
        "_inline_max",
        "_is_active",
        "_last",
        "_pull",
        "_put",
        "_route",
        "_routed",
        "_stat",
        "_status",
        "_storage",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        storage: Storage,
        lookup: Lookup,
        find: Find,
        put: Put,
        pull: PullItem,
        route: RouteTraced,
        is_active: Callable[[], bool],
        status: Callable[[float], Document],
    ) -> None:
        """`status` returns our own status document."""
        self._context = context
        self._storage = storage
        self._find = find
        self._put = put
        self._pull = pull
        self._route = route
        self._is_active = is_active
        self._status = status
        self._stat = Stat(context, requests, storage, lookup, find)
        self._in_progress = Admission(context.config.cache_bytes)
        self._last: OrderedDict[Call, Answer] = OrderedDict()
        self._routed: dict[int, _Routed] = {}
        self._inline_max = context.config.payload_bytes_max - ANSWER_OVERHEAD_BYTES

    @property
    def in_progress(self) -> int:
        """How many requests of clients are being worked on."""
        return len(self._in_progress)

    # -- requests --

    def on_request(self, message: Request, peer: Peer, now: float) -> None:
        """Begin to work on a request, or say how far a repeated one is."""
        call = (peer.id, message.nonce)
        last = self._last.get(call)
        if last is not None:
            self._context.send(last, peer, now)
            return
        if call in self._in_progress:
            self._context.send(_PENDING._replace(nonce=message.nonce), peer, now)
            return
        verb = VERBS.get(message.verb)
        if verb is None or not self._is_well_formed(message):
            self._context.stats.count("requests_bad")
            self._refuse(message, peer, AnswerStatus.BAD_REQUEST, now)
        elif message.verb not in (Verb.PING, Verb.STATUS) and not self._is_active():
            self._refuse(message, peer, AnswerStatus.NOT_READY, now)
        elif not self._in_progress.begin(call, message.number if message.verb == Verb.PUT else 0):
            self._context.stats.count("requests_busy")
            self._refuse(message, peer, AnswerStatus.BUSY, now)
        else:
            verb(self, message, call, peer, now)

    def _is_well_formed(self, message: Request) -> bool:
        length = len(message.name)
        if message.verb == Verb.PUT:
            data = len(message.data)
            fits = message.number <= OBJECT_BYTES_MAX and data in (0, message.number)
            return fits and length == NAME_BYTES
        if message.verb == Verb.STATUS:
            return length in (0, ID_BYTES)
        return length == NAME_BYTES or message.verb == Verb.PING

    def _refuse(self, message: Request, peer: Peer, status: AnswerStatus, now: float) -> None:
        """Answer without remembering: the same request may fare better next time."""
        self._context.send(Answer(message.nonce, status, 0, b"", 0, b""), peer, now)

    def _on_get(self, message: Request, call: Call, peer: Peer, now: float) -> None:
        name = Name(message.name)

        def found(result: FindResult, now: float) -> None:
            if isinstance(result, Failure):
                self._answer(call, peer, _FAILURES[result], 0, now)
            elif isinstance(result, Object):
                self._answer_item(call, peer, name, result.value, now)
            else:
                records = list(result.records)
                while len(data := msgpack.packb(records)) > self._inline_max:
                    records.pop()  # those that the fewest hold; a pull is for what has this name
                self._answer(call, peer, AnswerStatus.INDEX, len(records), now, data)

        self._find(name, found, now)

    def _on_put(self, message: Request, call: Call, peer: Peer, now: float) -> None:
        size = message.number
        inline = len(message.data) == size

        def stored(result: PutResult, now: float) -> None:
            self._answer(call, peer, result.status, result.copies, now)

        value = message.data if inline else None
        self._put(Name(message.name), size, value, None if inline else peer, stored, now)

    def _on_stat(self, message: Request, call: Call, peer: Peer, now: float) -> None:
        def located(result: Document | Failure, now: float) -> None:
            if isinstance(result, Failure):
                self._answer(call, peer, _FAILURES[result], 0, now)
            else:
                self._answer(call, peer, AnswerStatus.OK, 0, now, encode_document(result))

        self._stat.stat(Name(message.name), located, now)

    def _on_ping(self, message: Request, call: Call, peer: Peer, now: float) -> None:
        document = {**show_node(self._context.identity), "active": self._is_active()}
        self._answer(call, peer, AnswerStatus.OK, 0, now, encode_document(document))

    def _on_status(self, message: Request, call: Call, peer: Peer, now: float) -> None:
        target = position_of(message.name)
        if not message.name or target == self._context.identity.id:
            data = encode_document(self._status(now))
            self._answer(call, peer, AnswerStatus.OK, 0, now, data)
        elif not self._is_active():
            self._answer(call, peer, AnswerStatus.NOT_READY, 0, now)
        else:
            self._ask_root(message, target, call, peer, False, now)

    def _on_trace(self, message: Request, call: Call, peer: Peer, now: float) -> None:
        self._ask_root(message, position_of(message.name), call, peer, True, now)

    # -- answers --

    def _answer(
        self,
        call: Call,
        peer: Peer,
        status: AnswerStatus,
        number: int,
        now: float,
        data: bytes = b"",
    ) -> None:
        """Answer with a document."""
        self._finish(call, peer, self._with_document(call[1], status, number, data), now)

    def _with_document(self, nonce: int, status: AnswerStatus, number: int, data: bytes) -> Answer:
        """Return an answer whose document is inline, or to be pulled by its hash."""
        name: bytes = b""
        size = len(data)
        if size > self._inline_max:
            name = name_of(data)
            self._storage.keep(Name(name), data)
            data = b""
        return Answer(nonce, status, number, name, size, data)

    def _answer_item(self, call: Call, peer: Peer, name: Name, value: Value, now: float) -> None:
        size = len(value)
        data = b""
        if size <= self._inline_max:
            data = value if isinstance(value, bytes) else bytes(value)
        else:
            self._storage.keep(name, value)
        self._finish(call, peer, Answer(call[1], AnswerStatus.OK, 0, name, size, data), now)

    def _finish(self, call: Call, peer: Peer, answer: Answer, now: float) -> None:
        self._in_progress.end(call)
        # A pulled answer may be evicted before it is pulled: a repeated request makes it anew.
        if len(answer.data) == answer.size:
            self._last[call] = answer
            if len(self._last) > LAST_ANSWERS_MAX:
                self._last.popitem(last=False)
        self._context.send(answer, peer, now)

    # -- what another node must say --

    def _ask_root(
        self,
        message: Request,
        key: Position,
        call: Call,
        peer: Peer,
        keep_trail: bool,
        now: float,
    ) -> None:
        if len(self._routed) >= ROUTED_MAX:
            self._context.stats.count("requests_busy")
            self._answer(call, peer, AnswerStatus.BUSY, 0, now)
            return
        nonce = self._context.nonce()
        payload = encode(Request(nonce, message.verb, message.name, 0, b""))
        routed = self._routed[nonce] = _Routed(call, peer, key, payload, keep_trail)
        routed.timeout_s = ROUTED_FIRST_RTOS * self._context.config.rto_initial_s
        self._send_routed(nonce, now)

    def _send_routed(self, nonce: int, now: float) -> None:
        routed = self._routed.get(nonce)
        if routed is None:
            return
        if not routed.attempts:
            del self._routed[nonce]
            self._answer(routed.call, routed.peer, AnswerStatus.UNREACHABLE, 0, now)
            return
        routed.attempts -= 1
        # Armed first: routing to ourselves answers at once.
        routed.timer = self._context.deadlines.arm(now + routed.timeout_s, self._send_routed, nonce)
        routed.timeout_s *= 2
        self._route(routed.key, routed.payload, self.name, now, routed.keep_trail)

    def deliver(
        self, key: Position, payload: bytes, source: Handle, trail: Sequence[Hop], now: float
    ) -> None:
        """We are the root of a trace, or (if it is our id) the node whose status is wanted."""
        try:
            message = decode(payload)
        except RemoteProtocolError:
            message = None
        if not isinstance(message, Request) or not self._is_well_formed(message):
            self._context.stats.count("access_messages_malformed")
            return
        identity = self._context.identity
        status = AnswerStatus.OK
        data = b""
        if message.verb == Verb.TRACE:
            data = encode_document(trace_document(message.name.hex(), trail, identity))
        elif message.verb == Verb.STATUS and key == identity.id:
            data = encode_document(self._status(now))
        else:
            status = AnswerStatus.NOT_FOUND
        peer = self._context.peers.of(source)
        if source.id == identity.id:
            answer = Answer(message.nonce, status, 0, b"", len(data), data)
            self.on_answer(answer, peer, now)
        else:
            # Not `_answer`: the nonce is the sender's to choose, and may be that of a request here.
            answer = self._with_document(message.nonce, status, 0, data)
            self._context.send(answer, peer, now)

    def on_answer(self, message: Answer, peer: Peer, now: float) -> None:
        """The root has answered what we routed for a client."""
        routed = self._routed.pop(message.nonce, None)
        if routed is None:
            self._context.stats.count("answers_unexpected")
            return
        routed.timer.cancel()
        known = message.status in (AnswerStatus.OK, AnswerStatus.NOT_FOUND)
        status = AnswerStatus(message.status) if known else AnswerStatus.UNREACHABLE
        if len(message.data) == message.size:
            self._answer(routed.call, routed.peer, status, 0, now, message.data)
            return
        if len(message.name) != NAME_BYTES or message.size > OBJECT_BYTES_MAX:
            self._answer(routed.call, routed.peer, AnswerStatus.UNREACHABLE, 0, now)
            return
        done = partial(self._on_document, routed, status)
        self._pull(Name(message.name), message.size, (peer,), done, now)

    def _on_document(
        self, routed: _Routed, status: AnswerStatus, result: PullResult, now: float
    ) -> None:
        if isinstance(result, Pulled):
            self._answer(routed.call, routed.peer, status, 0, now, bytes(result.value))
        else:
            self._answer(routed.call, routed.peer, AnswerStatus.UNREACHABLE, 0, now)


VERBS: dict[int, Callable[[Access, Request, Call, Peer, float], None]] = {
    Verb.GET: Access._on_get,
    Verb.PUT: Access._on_put,
    Verb.STAT: Access._on_stat,
    Verb.PING: Access._on_ping,
    Verb.TRACE: Access._on_trace,
    Verb.STATUS: Access._on_status,
}
