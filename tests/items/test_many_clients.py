"""Many clients that put at once at nodes that need time for each datagram: who waits, and where."""

from random import Random

from pastryd.protocol.client_call import Question, Reply
from pastryd.protocol.client_ring import LEARN_AFTER
from pastryd.protocol.client_window import UNDER_WAY_MAX
from pastryd.protocol.items import name_of
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.verbs import AnswerStatus, Verb
from tests.support.network import VirtualNetwork, VirtualNode
from tests.support.virtual_client import VirtualClient

NODES = 8


class BusyNetwork(VirtualNetwork):
    """Nodes that work on what arrives one datagram after the other; the others wait, in order."""

    work_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.free_at: dict[int, float] = {}
        self.longest_s = 0.0
        """How long a datagram has waited at most."""

    def _arrive(
        self,
        node: VirtualNode | None,
        endpoint: Endpoint,
        data: bytes,
        sender: Handle,
        wanted: Handle | None,
    ) -> None:
        arrive = super()._arrive
        if node is None:
            arrive(node, endpoint, data, sender, wanted)
            return
        began = max(self.now, self.free_at.get(node.number, 0.0))
        self.free_at[node.number] = began + self.work_s
        self.longest_s = max(self.longest_s, began - self.now)
        self.at(began + self.work_s, arrive, node, endpoint, data, sender, wanted)

    @property
    def suspicions(self) -> int:
        return sum(
            logged.event == "peer_liveness" and logged.fields["now"] == "suspect"
            for node in self.nodes
            for _, logged in node.logged
        )


class Crowd:
    """Clients that know the ring."""

    def __init__(self, size: int) -> None:
        self.network = BusyNetwork()
        self.network.ring(NODES)
        self.rng = Random(1)
        self.clients = [
            VirtualClient(self.network, self.network.nodes[i % NODES]) for i in range(size)
        ]
        for client in self.clients:
            for _ in range(LEARN_AFTER + 4 * NODES):
                client.put(self.rng.randbytes(300))

    def put_at_once(self, count: int) -> None:
        """Let each client put so many items, all asked for at the same time; all must end well."""
        asked: list[tuple[VirtualClient, int]] = []
        for client in self.clients:
            for _ in range(count):
                value = self.rng.randbytes(300)
                session, now = client.session, self.network.now
                request = session.ask(
                    Question(Verb.PUT, name_of(value), len(value), value, 30.0), now
                )
                asked.append((client, request))
            client.drain()
        for client, request in asked:
            reply = client.wait(request)
            assert isinstance(reply, Reply) and reply.status is AnswerStatus.OK
        self.network.run(1.0)

    def count(self, counter: str) -> int:
        return sum(client.session.stats.counters.get(counter, 0) for client in self.clients)


def test_many_clients_that_put_at_once_wait_at_home_and_not_in_front_of_heartbeats() -> None:
    crowd = Crowd(24)
    network = crowd.network
    network.work_s = 0.001
    crowd.put_at_once(UNDER_WAY_MAX)
    network.longest_s = 0.0
    crowd.put_at_once(UNDER_WAY_MAX)
    assert network.longest_s < 0.25
    assert network.suspicions == 0
    assert crowd.count("retransmissions") < 24 * UNDER_WAY_MAX / 50
    network.work_s = 0.0
    assert crowd.clients[0].put(b"the next").after_s < 0.01


def test_one_client_is_not_held_back() -> None:
    crowd = Crowd(1)
    network, window = crowd.network, crowd.clients[0].session._requests._turns.window
    network.work_s = 0.0001
    crowd.put_at_once(2 * UNDER_WAY_MAX)
    assert window.requests == UNDER_WAY_MAX
    assert crowd.count("retransmissions") == 0


def test_a_call_that_waits_for_its_turn_can_be_cancelled_and_its_time_does_not_run() -> None:
    crowd = Crowd(1)
    client, network = crowd.clients[0], crowd.network
    network.work_s = 0.02
    session, values = client.session, [crowd.rng.randbytes(300) for _ in range(200)]
    asked = [
        session.ask(Question(Verb.PUT, name_of(value), len(value), value, 1.0), network.now)
        for value in values
    ]
    session.cancel(asked.pop(100), network.now)
    session.check_invariants()
    began = network.now
    for request in asked:
        reply = client.wait(request)
        assert isinstance(reply, Reply) and reply.status is AnswerStatus.OK
    assert network.now - began > 1.2
    session.check_invariants()
