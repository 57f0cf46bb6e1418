"""A client beside its access node, whose replicas pull from it over a wire that is slow."""

from collections.abc import Sequence
from random import Random

import pytest

from pastryd.config import Config
from pastryd.protocol.client_call import Question, Reply
from pastryd.protocol.client_requests import SLOW_WIRE_S
from pastryd.protocol.client_ring import LEARN_AFTER
from pastryd.protocol.items import name_of
from pastryd.sim.links import Uplink
from pastryd.state.handle import Handle
from pastryd.wire.codec import decode
from pastryd.wire.messages import Pull
from pastryd.wire.verbs import AnswerStatus, Verb
from tests.support.network import VirtualNetwork
from tests.support.virtual_client import VirtualClient

NODES = 8
SIZE = 256 << 10
TIMEOUT_S = Config().put_timeout_s + 5.0
"""As `pastryd.client` waits."""


class SlowRing:
    """Nodes on slow wires, and a client beside one of them that knows the others."""

    def __init__(self, bits_per_s: float) -> None:
        self.network = VirtualNetwork(delay_s=0.0002)
        self.network.ring(NODES)
        self.rng = Random(4)
        self.client = VirtualClient(self.network, self.network.nodes[0], beside=True)
        for _ in range(LEARN_AFTER + 4 * NODES):
            self.client.put(self.rng.randbytes(300))
        for node in self.network.nodes:
            self.network.links.uplinks[node.place] = Uplink(bits_per_s / 8, 256_000)
        self.network.checked = False  # for each of so many datagrams it would take long

    def put_at_once(self, count: int, size: int = SIZE) -> Sequence[object]:
        """Put so many items, all asked for at the same time; return how each ended."""
        client = self.client
        values = [self.rng.randbytes(size) for _ in range(count)]
        asked = [
            client.session.ask(
                Question(Verb.PUT, name_of(value), len(value), value, TIMEOUT_S), self.network.now
            )
            for value in values
        ]
        replies = [client.wait(request) for request in asked]
        client.session.check_invariants()
        return replies


def test_what_a_slow_wire_has_no_time_for_is_told_by_the_access_node() -> None:
    replies = SlowRing(1.5e6).put_at_once(4)
    assert all(isinstance(reply, Reply) and reply.number for reply in replies)


def test_after_a_slow_wire_bulk_goes_through_the_access_node_for_a_while() -> None:
    ring = SlowRing(1.5e6)
    client, network = ring.client, ring.network
    ring.put_at_once(4)
    network.links.uplinks.clear()
    pullers: set[int] = set()

    def note(data: bytes, sender: Handle) -> bytes:
        if isinstance(decode(data), Pull):
            pullers.add(sender.id)
        return data

    client.spoils = note
    network.run(5)
    for wait_s, number in ((0.0, 1), (SLOW_WIRE_S, 3)):
        network.run(wait_s)
        pullers.clear()
        ring.put_at_once(1)
        assert len(pullers) == number


@pytest.mark.parametrize(("count", "size"), [(48, SIZE), (180, 70_000)])
def test_more_than_a_wire_carries_waits_at_home(count: int, size: int) -> None:
    replies = SlowRing(1e7).put_at_once(count, size)
    # More where somebody was replaced who had it after all.
    assert all(
        isinstance(reply, Reply) and reply.status is AnswerStatus.OK and reply.number >= 3
        for reply in replies
    )


@pytest.mark.parametrize(("size", "at_once"), [(70_000, 29), (300_000, 8), (1 << 20, 8)])
def test_as_many_are_with_holders_as_are_two_mebibytes_or_eight(size: int, at_once: int) -> None:
    ring = SlowRing(1e9)
    session, now = ring.client.session, ring.network.now
    values = [ring.rng.randbytes(size) for _ in range(40)]
    questions = [Question(Verb.PUT, name_of(value), size, value, TIMEOUT_S) for value in values]
    asked = [session.ask(question, now) for question in questions]
    ring.client.drain()
    assert sum(bool(call.asked) for call in session._requests._calls.values()) == at_once
    session.check_invariants()
    for request in asked:
        reply = ring.client.wait(request)
        assert isinstance(reply, Reply) and reply.status is AnswerStatus.OK


def test_who_waits_behind_a_long_item_that_is_cancelled_has_its_turn() -> None:
    ring = SlowRing(1.5e6)
    session, network = ring.client.session, ring.network
    # Seven of 256 KiB and one of 100 kB leave room for one of 70 kB, but not for the one before it.
    sizes = [SIZE] * 7 + [100_000, SIZE, 70_000]
    asked: list[int] = []
    for size in sizes:
        value = ring.rng.randbytes(size)
        question = Question(Verb.PUT, name_of(value), size, value, TIMEOUT_S)
        asked.append(session.ask(question, network.now))
    session.check_invariants()
    session.cancel(asked[-2], network.now)
    session.check_invariants()
