"""A client of a virtual ring: an unmodified `ClientSession`, and what can happen on its way."""

import json
from collections.abc import Callable
from itertools import count
from random import Random

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.protocol.client_call import Connected, NoReply, Question, Reply
from pastryd.protocol.client_session import ClientSession
from pastryd.protocol.items import name_of
from pastryd.protocol.outbox import Completion
from pastryd.state.handle import Handle
from pastryd.wire.verbs import AnswerStatus, Verb
from tests.support.network import VirtualNetwork, VirtualNode

PORTS = count(50_000)


class VirtualClient:
    """An unmodified `ClientSession` on the virtual network."""

    def __init__(
        self, network: VirtualNetwork, access: VirtualNode, *, beside: bool = False
    ) -> None:
        """`beside`: it runs on the machine of its access node."""
        self.network = network
        self.access = access
        self.reaches_others = True
        """Whether datagrams to others than the access node arrive (no NAT, no containers)."""
        self.spoils: Callable[[bytes, Handle], bytes | None] = lambda data, sender: data
        """What becomes of a datagram on its way here; None: it is lost."""
        self.endpoint = (access.endpoint[0] if beside else "10.9.9.9", next(PORTS))
        if beside:
            network.place_beside(self.endpoint, access.endpoint)
        handle = Handle(network.rng.randbytes(32), "", 0, 1)
        self.session = ClientSession(handle, Config(), Random(9))
        self.results: dict[int, object] = {}
        self.timer_at = float("inf")
        self.datagrams = 0
        """Sent and received."""
        network.others[self.endpoint] = self.receive
        request_id = self.session.connect([access.endpoint], 5.0, network.now)
        assert isinstance(self.wait(request_id), Connected)

    def receive(self, data: bytes, sender: Handle, now: float) -> None:
        self.datagrams += 1
        arrived = self.spoils(data, sender)
        if arrived is not None:
            self.session.receive_datagram(arrived, sender, now)
        self.drain()

    def drain(self) -> None:
        outbox = self.session.outbox
        datagrams, outbox.datagrams = outbox.datagrams, []
        self.datagrams += len(datagrams)
        for data, destination in datagrams:
            endpoint = destination.endpoint if isinstance(destination, Handle) else destination
            if not self.reaches_others and endpoint != self.access.endpoint:
                continue
            self.network.transmit(data, self.session.identity.at(self.endpoint), destination)
        events, outbox.events = outbox.events, []
        for event in events:
            if isinstance(event, Completion):
                self.results[event.request_id] = event.result
        deadline = self.session.next_deadline()
        if deadline is not None and deadline < self.timer_at:
            self.timer_at = deadline
            self.network.at(max(deadline, self.network.now), self.fire)

    def fire(self) -> None:
        self.timer_at = float("inf")
        self.session.handle_timer(self.network.now)
        self.drain()

    def wait(self, request_id: int) -> object:
        self.drain()
        self.network.run_until(lambda: request_id in self.results, 60, 0.001)
        return self.results[request_id]

    def ask(self, verb: Verb, name: bytes = b"", value: bytes | None = None) -> Reply:
        size = 0 if value is None else len(value)
        request_id = self.session.ask(Question(verb, name, size, value, 30.0), self.network.now)
        reply = self.wait(request_id)
        assert not isinstance(reply, NoReply)
        assert isinstance(reply, Reply)
        return reply

    def put(self, value: bytes, name: Name | None = None) -> Reply:
        return self.ask(Verb.PUT, name or name_of(value), value)

    def get(self, value: bytes) -> Reply:
        """Get what must be there."""
        reply = self.ask(Verb.GET, name_of(value))
        assert (reply.status, bytes(reply.data)) == (AnswerStatus.OK, value)
        return reply

    def document(self, verb: Verb, name: bytes = b"") -> dict[str, object]:
        reply = self.ask(verb, name)
        assert reply.status is AnswerStatus.OK
        document = json.loads(bytes(reply.data))
        assert isinstance(document, dict)
        return document
