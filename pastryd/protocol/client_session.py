"""A client's side of the conversation with its access node (DESIGN sec. 6), sans-IO.

An ephemeral identity that says Hello to bare addresses, asks `Request`s of who welcomes it first,
and moves objects with the same transfer as nodes do: answers that do not fit a datagram are pulled,
what it puts is offered to be pulled. Knows objects; chunks and manifests are `client.py`'s.

Owns the commands, and hands on what arrives; a request, from the first question to the answer, is
the business of `client_requests.py`.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from pastryd.config import OBJECT_BYTES_MAX, Config
from pastryd.errors import LocalProtocolError, RemoteProtocolError
from pastryd.ids import ID_BYTES, Name
from pastryd.protocol.client_call import Call, NoReply, Question, Reply
from pastryd.protocol.client_offers import Offers
from pastryd.protocol.client_requests import ClientRequests
from pastryd.protocol.client_ring import ClientRing
from pastryd.protocol.client_search import AccessSearch
from pastryd.protocol.context import NOBODY, Context
from pastryd.protocol.items import verify
from pastryd.protocol.outbox import Outbox, StoreReply
from pastryd.protocol.transfer import Transfer
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.peers import Peer
from pastryd.stats import Stats
from pastryd.wire import messages as m
from pastryd.wire.codec import UnknownMessageError, decode
from pastryd.wire.verbs import AnswerStatus, Verb

REQUEST_BYTES = 64
"""More than what a `Request` adds to its data."""


class ClientSession:
    """One client's identity and its requests; driven as a node is."""

    def __init__(self, identity: Handle, config: Config, rng: Random) -> None:
        self._context = Context(identity, config, rng)
        self._offers = Offers()
        self._transfer = Transfer(self._context, self._offers.read, verify)
        self._ring = ClientRing(self._context, self._transfer.prober)
        self._search = AccessSearch(self._context)
        self._requests = ClientRequests(self._context, self._transfer, self._ring, self._offers)
        self._request_id = 0
        self._inline_max = config.payload_bytes_max - REQUEST_BYTES
        self._handlers: dict[type[Any], Callable[[Any, Peer, float], object]] = {
            m.Hello: self._on_hello,
            m.Welcome: self._on_welcome,
            m.Answer: self._requests.on_answer,
            m.Stored: self._requests.on_stored,
            m.Pull: self._transfer.on_pull,
            m.Segment: self._transfer.on_segment,
            m.Absent: self._transfer.on_absent,
            m.PathProbe: self._transfer.prober.on_probe,
            m.PathReply: self._transfer.prober.on_reply,
        }

    # -- what the driver calls --

    @property
    def identity(self) -> Handle:
        """Who we are, for as long as this session lives."""
        return self._context.identity

    @property
    def outbox(self) -> Outbox:
        """What this step wants done."""
        return self._context.outbox

    @property
    def stats(self) -> Stats:
        """Counters."""
        return self._context.stats

    def receive_datagram(self, data: bytes, sender: Handle, now: float) -> None:
        """Take in what an authenticated peer sent. Never raises on a peer's bytes."""
        self._take(data, self._context.heard(sender, len(data), now), now)

    def receive_train(self, train: Sequence[bytes], sender: Handle, now: float) -> None:
        """Take in messages that an authenticated peer sent in one go: segments, above all."""
        peer = self._context.heard(sender, sum(map(len, train)), now)
        for data in self._transfer.take_segments(train, peer, now):
            self._take(data, peer, now)

    def _take(self, data: bytes, peer: Peer, now: float) -> None:
        try:
            message = decode(data)
        except UnknownMessageError:
            self.stats.count("messages_unknown")
            return
        except RemoteProtocolError:
            self.stats.count("messages_malformed")
            return
        handler = self._handlers.get(type(message))
        if handler is None:
            self.stats.count("messages_unexpected")
            return
        handler(message, peer, now)

    def receive_hello(self, data: bytes, sender: Handle, now: float) -> None:
        """Ignore it: nobody joins through a client."""
        self.stats.count("messages_unexpected")

    def receive_twin(self, data: bytes, sender: Handle, now: float) -> None:
        """Ignore it: each client makes itself a key."""
        self.stats.count("messages_unexpected")

    def handle_timer(self, now: float) -> None:
        """Run what is due."""
        self._context.deadlines.run_due(now)

    def next_deadline(self) -> float | None:
        """Return when `handle_timer` wants to be called."""
        return self._context.deadlines.next_deadline()

    def store_completed(self, reply: StoreReply, now: float) -> None:
        """Never happens: a client has no store."""
        raise AssertionError("a client asks no store")

    def report_stall(self, lag_s: float, now: float) -> None:
        """We stood still: nobody's silence during it counts."""
        self.stats.count("stalls")
        self._context.deadlines.shift(lag_s)
        self._transfer.postpone(lag_s)
        self._requests.postpone(lag_s)
        self._search.postpone(lag_s)

    # -- commands: each returns a request id, whose result comes as a `Completion` --

    def connect(self, endpoints: Sequence[Endpoint], timeout_s: float, now: float) -> int:
        """Say Hello to all of `endpoints`; who answers first is the access node from then on."""
        self._search.begin(self._next_id(), endpoints, timeout_s, now)
        return self._request_id

    def ask(self, question: Question, now: float) -> int:
        """Ask the access node or holders; a value too large for a datagram is offered to pull."""
        verb, name, number, value, timeout_s, checked = question
        if self._requests.access is None:
            raise LocalProtocolError("not connected to an access node")
        if value is not None and len(value) > OBJECT_BYTES_MAX:
            raise LocalProtocolError("an item is at most 1 MiB")
        offered = value is not None and len(value) > self._inline_max
        # What is offered each holder pulls from us: k times over our wire.
        stores = verb is Verb.PUT and (not offered or self._ring.is_beside)
        call = Call(
            self._next_id(),
            verb,
            name,
            number,
            b"" if value is None or offered else bytes(value),
            offered,
            now,
            now + timeout_s,
            checked,
            direct=stores or verb is Verb.GET,
        )
        if offered and value is not None:
            self._offers.add(Name(name), value)
        if call.direct and self._ring.wants_status(now):
            self._ask_status(b"", timeout_s, now)
        self._requests.begin(call, now)
        return call.request_id

    def _ask_status(self, node_id: bytes, timeout_s: float, now: float) -> None:
        """Learn who is around the access node (no id), or around another node."""

        def told(result: Reply | NoReply, now: float) -> None:
            if isinstance(result, Reply) and result.status is AnswerStatus.OK:
                for more in self._ring.learn(bytes(result.data), now):
                    self._ask_status(more.to_bytes(ID_BYTES, "big"), timeout_s, now)

        call = Call(self._next_id(), Verb.STATUS, node_id, 0, b"", False, now, now + timeout_s)
        call.then = told
        self._requests.begin(call, now)

    def cancel(self, request_id: int, now: float) -> None:
        """Nobody waits for a request any more."""
        self._requests.cancel(request_id, now)

    def _on_hello(self, message: m.Hello, peer: Peer, now: float) -> None:
        self._context.on_hello(message, peer.handle, active=False, ahead=NOBODY, now=now)

    def _on_welcome(self, message: m.Welcome, peer: Peer, now: float) -> None:
        if self._search.on_welcome(message, peer, now):
            self._requests.access = peer
            self._ring.restart(peer, message.seen_host)
        elif not self._ring.on_welcome(message, peer, now):
            self._context.on_welcome(message, peer, now)

    def _next_id(self) -> int:
        self._request_id += 1
        return self._request_id

    def check_invariants(self) -> None:
        """Assert what must hold between two steps."""
        self._transfer.check_invariants()
        self._requests.check_invariants()
