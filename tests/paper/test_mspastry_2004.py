"""MSPastry (Castro, Costa, Rowstron 2004): consistent join, per-hop acks, self-tuning."""

import pytest

from pastryd.config import Config
from pastryd.ids import Position, rank
from pastryd.protocol.application import Application
from tests.support.network import VirtualNetwork, VirtualNode


class Recorder(Application):
    """Notes what is delivered where."""

    name = "recorder"

    def __init__(self, node_id: int, log: list[tuple[int, int]]) -> None:
        self._node_id = node_id
        self._log = log

    def deliver(self, key, payload, source, trail, now):  # type: ignore[no-untyped-def]
        self._log.append((self._node_id, int.from_bytes(payload, "big")))


def record(network: VirtualNetwork) -> list[tuple[int, int]]:
    """Host a recorder on every node; return the common log of (node id, message number)."""
    log: list[tuple[int, int]] = []
    for node in network.live:
        node.core.register(Recorder(node.core.identity.id, log))
    return log


def route(network: VirtualNetwork, node: VirtualNode, key: int, number: int) -> None:
    """Route one numbered message."""
    payload = number.to_bytes(4, "big")
    network.step(node, lambda: node.core.route(Position(key), payload, "recorder", network.now))


def root_of(network: VirtualNetwork, key: int) -> int:
    """The oracle's root."""
    return min((n.core.identity.id for n in network.live), key=lambda i: rank(key, i))


def test_a_joiner_is_active_only_once_its_leaf_set_knows_it() -> None:
    """Sec. 3.1: when a node becomes active, every member of its leaf set has it in theirs."""
    network = VirtualNetwork(seed=3)
    nodes = network.ring(24, settle_s=5)
    joiner = network.add([nodes[0]])
    own_id = joiner.core.identity.id
    network.run_until(lambda: joiner.core.active, 5, 0.0005)
    members = {h.id for h in joiner.core.context.leaf_set.members()}
    for node in nodes:
        if node.core.identity.id in members:
            assert own_id in node.core.context.leaf_set


def test_a_joiner_delivers_nothing_before_it_is_active() -> None:
    """Sec. 3.1: it buffers what it is the root of, and delivers it then."""
    network = VirtualNetwork(seed=4)
    nodes = network.ring(8, settle_s=3)
    joiner = network.add([nodes[0]])
    log: list[tuple[int, int]] = []
    joiner.core.register(Recorder(joiner.core.identity.id, log))
    assert not joiner.core.active
    route(network, joiner, joiner.core.identity.id + 1, 7)
    assert log == []
    network.run_until(lambda: joiner.core.active, 5)
    network.run(1)
    assert log == [(joiner.core.identity.id, 7)]


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_every_message_reaches_the_true_root_and_no_other_node(loss: float) -> None:
    """Sec. 3.2 and 5.3: per-hop acks make up for loss; no wrong delivery in a stable ring.

    With loss a message may arrive twice: a lost ack makes the hop before take another way too.
    """
    network = VirtualNetwork(seed=5, loss=loss)
    network.ring(60, settle_s=30)
    network.run_until(network.is_consistent, 60)
    log = record(network)
    expected = []
    for number in range(300):
        key = network.rng.getrandbits(128)
        expected.append((root_of(network, key), number))
        route(network, network.rng.choice(network.live), key, number)
    network.run(20)
    assert set(log) == set(expected)
    assert loss or len(log) == len(expected)


def test_lookups_go_around_a_hung_hop_within_100_ms() -> None:
    """Sec. 3.2: no ack in time, and the message takes another way; with the lan preset."""
    network = VirtualNetwork(seed=6)
    network.ring(60, settle_s=20)
    log = record(network)
    source, victim = next(
        (n, network.by_endpoint[entry.endpoint])
        for n in network.live
        for entry in n.core.context.table.entries()
        if entry.id not in n.core.context.leaf_set
    )
    network.hang(victim)
    number = 0
    while True:  # a key that goes through the victim, without ending there
        number += 1
        key = (victim.core.identity.id & ~((1 << 124) - 1)) | network.rng.getrandbits(124)
        hop = source.core.router.next_hop(Position(key))
        root = root_of(network, key)
        if hop is not None and hop.id == victim.core.identity.id and root != hop.id:
            break
    route(network, source, key, number)
    started = network.now
    network.run_until(lambda: bool(log), 1, 0.001)
    assert log == [(root, number)]
    assert network.now - started < 0.1


def test_a_message_for_a_hung_root_waits_for_the_verdict() -> None:
    """Sec. 4.2: the last hop is retried; the next closest delivers once the root is suspect."""
    network = VirtualNetwork(seed=7)
    network.ring(20, settle_s=10)
    log = record(network)
    victim = network.rng.choice(network.live)
    others = [n for n in network.live if n is not victim]
    key = victim.core.identity.id
    network.hang(victim)
    route(network, others[0], key, 1)
    network.run(0.3)
    assert log == [], "nobody else may claim the key while the root is only slow"
    network.run(4)
    heir = min((n.core.identity.id for n in others), key=lambda i: rank(key, i))
    assert log == [(heir, 1)]


def test_a_message_for_a_dead_root_leaves_it_the_moment_the_root_is_suspect() -> None:
    """Sec. 4.2: when the root turns out to be dead no timer is waited for any more."""
    network = VirtualNetwork(seed=7, config=Config.wan(), delay_s=0.05)
    network.ring(12, settle_s=200)
    log = record(network)
    victim = network.live[3]
    key = victim.core.identity.id
    network.crash(victim)
    heir = min(network.live, key=lambda node: rank(key, node.core.identity.id))
    route(network, heir, key, 1)
    network.run_until(lambda: bool(log), 30, 0.001)
    (suspected_at,) = (
        when
        for when, event in heir.logged
        if event.event == "peer_liveness" and event.fields["now"] == "suspect"
    )
    assert log == [(heir.core.identity.id, 1)]
    assert network.now - suspected_at < 0.01
