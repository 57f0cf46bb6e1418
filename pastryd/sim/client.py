"""A client in virtual time: the `ClientSession` that `pastry` uses, driven as the driver does it.

It stands beside its access node, connects, asks one thing, and is gone; or it stays, asks more, and
then asks the holders of items itself. Owns the session's drain and timer, and how answers become
what the workload knows; what is asked is up to `workload.py`.
"""

from collections.abc import Callable
from random import Random

import msgpack

from pastryd.ids import Name
from pastryd.protocol.client_call import Connected, NoReply, Question, Reply
from pastryd.protocol.client_session import ClientSession
from pastryd.protocol.outbox import Completion
from pastryd.protocol.search_state import Entries, Failure, FindResult, Object
from pastryd.sim.world import NEVER, SimNode, World
from pastryd.state.handle import Handle
from pastryd.wire.verbs import AnswerStatus, Verb

CONNECT_S = 15.0
PORT = 5000
FIRST_PORT, PORTS = 10_000, 50_000
_FAILURES = {AnswerStatus.NOT_FOUND: Failure.NOT_FOUND, AnswerStatus.CORRUPT: Failure.CORRUPT}

Then = Callable[[Reply | NoReply], object]


class Client:
    """One client, for one request or, if it stays, for many."""

    def __init__(self, world: World, access: SimNode, rng: Random, *, stays: bool = False) -> None:
        drawn = rng.getrandbits(24)
        if drawn & 1:  # on its machine: it asks holders to store what is long, too
            endpoint = (access.endpoint[0], FIRST_PORT + (drawn >> 1) % PORTS)
        else:
            endpoint = (f"10.{drawn >> 16}.{drawn >> 8 & 255}.{drawn & 255}", PORT)
        identity = Handle(rng.randbytes(32), *endpoint, int(world.now * 1000))
        self._session = ClientSession(identity, world.config, Random(rng.getrandbits(64)))
        self._world = world
        self.access = access
        self.lost = False
        """The access node fell silent: whoever wants more takes another client."""
        self._stays = stays
        self._endpoint = endpoint
        self._due = NEVER
        self._connected = False
        self._wants: list[tuple[Callable[[float], int], Then]] = []
        """What to ask when there is an access node."""
        self._thens: dict[int, Then] = {}

    def put(self, name: Name, value: bytes, then: Callable[[str, int], object]) -> None:
        """Put an item; `then` is told how it ended and how many copies were acknowledged."""

        def ended(reply: Reply | NoReply) -> None:
            if isinstance(reply, NoReply):
                then("NO_REPLY", 0)
            else:
                then(reply.status.name, reply.number)

        self._ask(Verb.PUT, name, value, self._world.config.put_timeout_s, ended)

    def get(self, name: Name, then: Callable[[FindResult], object]) -> None:
        """Get an item or the index entries of a key."""

        def ended(reply: Reply | NoReply) -> None:
            if isinstance(reply, NoReply):
                then(Failure.UNREACHABLE)
            elif reply.status is AnswerStatus.OK:
                then(Object(reply.data))
            elif reply.status is AnswerStatus.INDEX:
                then(Entries(tuple(msgpack.unpackb(reply.data))))
            else:
                then(_FAILURES.get(reply.status, Failure.UNREACHABLE))

        self._ask(Verb.GET, name, None, self._world.config.get_timeout_s, ended)

    def _ask(self, verb: Verb, name: Name, value: bytes | None, wait_s: float, then: Then) -> None:
        session, size = self._session, 0 if value is None else len(value)
        # The access node gives up first, and says so.
        self._wants.append(
            (lambda now: session.ask(Question(verb, name, size, value, 2 * wait_s), now), then)
        )
        if self._connected:
            self._ask_all()
        elif len(self._wants) == 1:
            self._world.place_beside(self._endpoint, self.access.endpoint)
            self._world.others[self._endpoint] = self._arrive
            session.connect([self.access.endpoint], CONNECT_S, self._world.now)
        self._drain()

    def _ask_all(self) -> None:
        wants, self._wants = self._wants, []
        for ask, then in wants:
            self._thens[ask(self._world.now)] = then

    # -- driven --

    def _arrive(self, data: bytes, sender: Handle, now: float) -> None:
        self._session.receive_datagram(data, sender, now)
        self._drain()

    def _fire(self, due: float) -> None:
        if self._due == due:
            self._due = NEVER
            self._session.handle_timer(self._world.now)
            self._drain()

    def _drain(self) -> None:
        session, outbox = self._session, self._session.outbox
        while outbox.datagrams or outbox.events:
            for data, destination in outbox.datagrams:
                self._world.transmit(data, session.identity, destination)
            outbox.datagrams.clear()
            events = outbox.events.copy()
            outbox.events.clear()
            for event in events:
                if isinstance(event, Completion):
                    self._completed(event)
        session.check_invariants()
        deadline = session.next_deadline()
        if deadline is not None and self._is_asking and deadline < self._due:
            self._due = deadline
            self._world.at(max(deadline, self._world.now), self._fire, deadline)

    @property
    def _is_asking(self) -> bool:
        return bool(self._thens or self._wants)

    def _completed(self, event: Completion) -> None:
        result = event.result
        if isinstance(result, Connected):
            self._connected = True
            self._ask_all()
            return
        assert isinstance(result, Reply | NoReply)
        self.lost |= isinstance(result, NoReply) and result.silent
        then = self._thens.pop(event.request_id, None)
        thens = [then] if then is not None else [then for _, then in self._wants]
        if then is None:
            self._wants = []  # no access node was found
        if not self._is_asking and (self.lost or not self._stays):
            del self._world.others[self._endpoint]
        for then in thens:
            then(result)
