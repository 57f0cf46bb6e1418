"""A client that lives for a week in a ring whose nodes come and go: what it keeps is bounded."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from types import FunctionType, ModuleType

from pastryd.config import Config
from pastryd.protocol.client_call import Connected, Question, Reply
from pastryd.protocol.items import name_of
from pastryd.wire.verbs import AnswerStatus, Verb
from tests.support.network import VirtualNetwork, VirtualNode
from tests.support.virtual_client import VirtualClient

DAY_S = 86_400.0
CHANGE_S = 10_800.0
LEAST, MOST = 4, 8
REQUESTS = 10
"""After each change; as many as bring the client to ask who is there."""

QUIET = replace(
    Config.lan(),
    heartbeat_s=600.0,
    leaf_set_exchange_s=3600.0,
    table_repair_s=3600.0,
    merge_s=3600.0,
    reconcile_s=3600.0,
    table_probe_min_s=3600.0,
    table_probe_max_s=3600.0,
)
"""A ring at rest that a week of virtual time does not cost minutes."""


def reachable(root: object) -> Iterator[object]:
    """Yield all objects that only live because of `root`, more or less: no code, no classes."""
    seen = {id(root)}
    stack = [root]
    while stack:
        one = stack.pop()
        yield one
        for other in gc.get_referents(one):
            if id(other) not in seen and not isinstance(other, type | ModuleType | FunctionType):
                seen.add(id(other))
                stack.append(other)


class Week:
    """The ring, the client, and who has been there."""

    def __init__(self) -> None:
        self.network = VirtualNetwork(config=QUIET)
        self.network.checked = False
        self.network.ring(6)
        self.rng = Random(1)
        self.client = VirtualClient(self.network, self.network.nodes[0])
        self.nodes = 6

    def change(self) -> None:
        """Let one node join or leave."""
        network, live = self.network, self.network.live
        if len(live) <= LEAST or (len(live) < MOST and self.rng.random() < 0.5):
            joiner = network.add([self.rng.choice(live)])
            network.run_until(lambda: joiner.core.active, 60)
            self.nodes += 1
        else:
            leaver = self.rng.choice(live)
            network.leave(leaver)
            network.run_until(lambda: not leaver.running, 60)
            network.forget(leaver)
            if leaver is self.client.access:
                self.reconnect(self.rng.choice(network.live))

    def reconnect(self, access: VirtualNode) -> None:
        client = self.client
        client.access = access
        request = client.session.connect([access.endpoint], 5.0, self.network.now)
        assert isinstance(client.wait(request), Connected)

    def ask(self, large: bool) -> None:
        """Put and get small items, and now and then a large one."""
        client = self.client
        values = [self.rng.randbytes(300) for _ in range(REQUESTS)]
        if large:
            values.append(self.rng.randbytes(300_000))
        for value in values:
            for verb, data in ((Verb.PUT, value), (Verb.GET, None)):
                session, now = client.session, self.network.now
                size = len(data or b"")
                reply = client.wait(
                    session.ask(Question(verb, name_of(value), size, data, 60.0), now)
                )
                assert isinstance(reply, Reply) and reply.status is AnswerStatus.OK
        client.results.clear()

    def objects(self) -> int:
        return sum(1 for _ in reachable(self.client.session))

    def live(self, days: int) -> None:
        for number in range(int(days * DAY_S / CHANGE_S)):
            self.change()
            self.ask(large=number % 8 == 0)
            self.network.run(CHANGE_S)


def test_a_week_of_joins_and_leaves_leaves_nothing_with_a_client() -> None:
    week = Week()
    week.live(2)
    early = week.objects()
    week.live(5)
    assert week.nodes > 4 * MOST
    session = week.client.session
    session.check_invariants()
    assert week.objects() < 1.2 * early + 500
    assert len(session._context.peers) <= 2 * MOST
    assert len(session._ring._members) <= MOST and len(session._ring._backoffs) <= 2 * MOST
    assert not session._requests._calls and not session._requests._asked
