"""Rings of real nodes in the virtual network: build, break, heal; the oracle says what is right."""

import pytest

from pastryd.config import Config
from pastryd.state.handle import Endpoint
from pastryd.wire.codec import decode
from pastryd.wire.messages import Hello
from tests.support.network import VirtualNetwork
from tests.support.virtual_client import VirtualClient


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 9, 16, 17, 18, 19, 40])
def test_a_ring_of_any_size_is_consistent(size: int) -> None:
    network = VirtualNetwork(seed=size)
    network.ring(size, settle_s=10)
    assert network.is_consistent()


@pytest.mark.parametrize("seed", range(5))
def test_nodes_that_all_join_at_once_form_one_ring(seed: int) -> None:
    network = VirtualNetwork(seed)
    first = network.add()
    for _ in range(29):
        network.add([first])
    network.run_until(network.is_consistent, 20)


def test_nodes_that_know_only_each_other_form_one_ring() -> None:
    network = VirtualNetwork(seed=1)
    nodes = [network.add(start=False) for _ in range(3)]
    for node in nodes:
        others = [n.endpoint for n in nodes if n is not node]
        network.step(node, lambda node=node, others=others: node.core.start(others, network.now))
    network.run_until(network.is_consistent, 60)


@pytest.mark.parametrize("size,loss", [(2, 0.1), (8, 0.2)])
@pytest.mark.parametrize("seed", range(3))
def test_of_those_who_know_only_each_other_one_starts_the_ring(
    size: int, loss: float, seed: int
) -> None:
    """A lost answer neither puts the clock back nor makes another one the lowest of them."""
    network = VirtualNetwork(seed, loss=loss)
    nodes = [network.add(start=False) for _ in range(size)]
    for node in nodes:
        others = [n.endpoint for n in nodes if n is not node]
        network.step(node, lambda node=node, others=others: node.core.start(others, network.now))
    network.run_until(network.is_consistent, 60)
    events = [e.event for n in network.nodes for _, e in n.logged]
    assert events.count("all_seeds_are_joining_starting_the_ring") == 1


@pytest.mark.parametrize("lives_s", [3.0, 10.0])
def test_who_met_only_a_joiner_that_died_starts_the_ring(lives_s: float) -> None:
    """After a power cut both look for each other, and one goes again."""
    network = VirtualNetwork(seed=3)
    nodes = [network.add(start=False) for _ in range(2)]
    for node, other in (nodes, nodes[::-1]):
        seeds = [other.endpoint]
        network.step(node, lambda node=node, s=seeds: node.core.start(s, network.now, 2.0))
    network.run(lives_s)
    assert not any(node.core.active for node in nodes)
    network.crash(nodes[1])
    network.run_until(lambda: nodes[0].core.active, 20)


def test_a_stranger_who_probes_a_joiner_does_not_make_it_active() -> None:
    """A node that had given it up may hear of it first, far away from where it belongs."""
    network = VirtualNetwork(seed=4)
    nodes = network.ring(60, settle_s=30)
    joiner = network.add([nodes[0]])
    own_id = joiner.core.identity.id
    far = max(nodes, key=lambda node: min((node.id - own_id) % 2**128, (own_id - node.id) % 2**128))
    handle = joiner.core.identity.at(joiner.endpoint)
    network.step(far, lambda: far.core.leafset_upkeep.probe(handle, network.now))
    while not joiner.core.active:
        network.run(0.001)
    assert network.is_consistent()


@pytest.mark.parametrize("seed", range(3))
def test_joins_succeed_on_a_lossy_network(seed: int) -> None:
    network = VirtualNetwork(seed, loss=0.1, duplication=0.05)
    first = network.add()
    for _ in range(19):
        network.add([first])
    network.run_until(network.is_consistent, 90)


@pytest.mark.parametrize("seed", range(4))
def test_a_quarter_of_the_nodes_dies_at_once(seed: int) -> None:
    network = VirtualNetwork(seed)
    nodes = network.ring(16)
    for node in network.rng.sample(nodes, 4):
        network.crash(node)
    network.run_until(network.is_consistent, 10)


def test_one_whole_side_of_a_leaf_set_dies_at_once() -> None:
    network = VirtualNetwork(seed=8)
    nodes = sorted(network.ring(60, settle_s=30), key=lambda n: n.core.identity.id)
    for node in nodes[10:18]:
        network.crash(node)
    network.run_until(network.is_consistent, 30)


@pytest.mark.parametrize("seed", range(3))
def test_a_split_ring_merges_when_the_network_heals(seed: int) -> None:
    network = VirtualNetwork(seed)
    nodes = network.ring(20)
    network.split(nodes[:7], nodes[7:])
    network.run(30)
    assert not network.is_consistent()
    network.split()
    network.run_until(network.is_consistent, 60)


def test_the_last_of_two_parts_find_each_other_though_they_were_no_neighbours() -> None:
    """The others die while the ring is split: each of the two is all that the other has."""
    network = VirtualNetwork(seed=16)
    ring = sorted(network.ring(5), key=lambda n: n.core.identity.id)
    network.split(ring[:3], ring[3:])
    network.run(10)
    for node in (ring[1], ring[2], ring[4]):
        network.crash(node)
        network.run(5)
    network.split()
    network.run_until(network.is_consistent, 60)


def test_who_loses_its_only_seed_finds_the_ring_of_a_joiner_that_the_seed_had_named() -> None:
    network = VirtualNetwork(seed=11)
    seed, named, lonely = (network.add(start=False) for _ in range(3))
    for node, other in ((seed, named), (named, seed), (lonely, seed)):
        bootstrap = [other.endpoint]
        network.step(node, lambda n=node, b=bootstrap: n.core.start(b, network.now))
    network.run(2)
    network.crash(seed)
    for node in (named, lonely):
        network.step(node, lambda n=node: n.core.leafset_upkeep.activate_alone(network.now))
    assert not network.is_consistent()
    network.run_until(network.is_consistent, 60)


def test_two_rings_merge_through_a_remembered_bootstrap_address() -> None:
    network = VirtualNetwork(seed=11)
    one = network.add()
    for _ in range(9):
        network.add([one])
    network.run(5)
    other = network.add()
    for _ in range(9):
        network.add([other])
    network.run(5)
    network.step(other, lambda: other.core.add_seeds([one.endpoint]))
    network.run_until(network.is_consistent, 90)


def test_a_restarted_node_is_welcome_at_once_and_no_ghost_remains() -> None:
    network = VirtualNetwork(seed=12)
    nodes = network.ring(16)
    old = nodes[5]
    network.crash(old)
    network.run(1)
    network.restart(old, [nodes[0]])
    network.run_until(network.is_consistent, 5)
    network.run(30)
    assert network.is_consistent()


def test_who_leaves_is_forgotten_at_once_and_does_not_come_back() -> None:
    network = VirtualNetwork(seed=13)
    nodes = network.ring(16)
    leaver = nodes[3]
    network.step(leaver, lambda: leaver.core.leave(network.now))
    network.run(0.1)
    own_id = leaver.core.identity.id
    others = [n for n in nodes if n is not leaver]
    assert all(own_id not in n.core.context.leaf_set for n in others)
    network.run(5)
    network.crash(leaver)
    network.run_until(network.is_consistent, 10)


def test_a_node_survives_the_loss_of_all_others_and_takes_them_back() -> None:
    network = VirtualNetwork(seed=14)
    nodes = network.ring(4)
    for node in nodes[1:]:
        network.crash(node)
    network.run(15)
    assert nodes[0].core.active and len(nodes[0].core.context.leaf_set) == 0
    for node in nodes[1:]:
        network.restart(node, [nodes[0]])
    network.run_until(network.is_consistent, 15)


@pytest.mark.parametrize("preset,limit", [("lan", 4.0), ("wan", 0.5)])
@pytest.mark.parametrize("size", [2, 16, 40])
def test_idle_traffic_is_within_its_budget(preset: str, limit: float, size: int) -> None:
    """Datagrams sent per node and second at rest."""
    config = Config.lan() if preset == "lan" else Config.wan()
    network = VirtualNetwork(size, config, delay_s=0.001)
    network.ring(size, settle_s=10 * config.heartbeat_s)
    before, duration = network.datagrams, 200 * config.heartbeat_s
    network.run(duration)
    assert (network.datagrams - before) / duration / size <= limit


def test_a_bootstrap_address_that_is_our_own_starts_a_ring() -> None:
    network = VirtualNetwork(seed=15)
    node = network.add(start=False)
    network.step(node, lambda: node.core.start([node.endpoint], network.now))
    network.run(2)
    assert node.core.active


def test_a_node_that_restarts_elsewhere_finds_its_way_back() -> None:
    network = VirtualNetwork(seed=16)
    nodes = network.ring(8)
    old = nodes[3]
    network.step(old, lambda: old.core.leave(network.now))
    network.run(0.5)
    network.crash(old)
    moved = network.add(
        [nodes[0]],
        disk=old.disk,
        public_key=old.core.identity.public_key,
        endpoint=("10.9.9.9", 999),
    )
    network.run_until(lambda: moved.core.active, 2)
    network.run_until(network.is_consistent, 5)


def test_the_first_node_learns_its_address_from_those_who_join() -> None:
    network = VirtualNetwork(seed=17)
    nodes = network.ring(3, settle_s=2)
    for node in nodes:
        assert node.core.identity.endpoint == node.endpoint


def test_an_advertised_address_is_what_others_are_told() -> None:
    network = VirtualNetwork(seed=18)
    nodes = network.ring(3, settle_s=2)
    behind = network.add(start=False)
    behind.core.context.identity = behind.core.identity.at(("192.0.2.7", 4160))
    behind.core.context._learns_address = False  # it was told
    network.by_endpoint["192.0.2.7", 4160] = behind  # a forwarded port
    network.step(behind, lambda: behind.core.start([nodes[0].endpoint], network.now))
    network.run_until(lambda: behind.core.active, 5)
    for node in nodes:
        member = node.core.context.leaf_set.get(behind.core.identity.id)
        assert member is not None and member.endpoint == ("192.0.2.7", 4160)


def test_a_chain_of_joiners_on_a_lossy_network_starts_no_ring_of_its_own() -> None:
    network = VirtualNetwork(seed=24, loss=0.1)
    network.add()
    for _ in range(29):
        network.add([network.rng.choice(network.live)])
        network.run(0.05)
    network.run_until(network.is_consistent, 30)
    events = [e.event for n in network.nodes for _, e in n.logged]
    assert "all_seeds_are_joining_starting_the_ring" not in events


@pytest.mark.parametrize(
    "preset,size,loss,limit_s",
    [("lan", 60, 0.0, 5), ("lan", 30, 0.1, 30), ("wan", 30, 0.0, 30)],
)
def test_a_chain_of_joiners_that_start_at_once_starts_no_ring_of_its_own(
    preset: str, size: int, loss: float, limit_s: float
) -> None:
    """Each knows the one before alone: joiners name whom they ask themselves."""
    config = Config.lan() if preset == "lan" else Config.wan()
    network = VirtualNetwork(2, config, delay_s=0.001 if preset == "lan" else 0.05, loss=loss)
    network.add()
    for _ in range(size - 1):
        network.add([network.nodes[-1]])
    network.run_until(network.is_consistent, limit_s)
    events = [e.event for n in network.nodes for _, e in n.logged]
    assert "all_seeds_are_joining_starting_the_ring" not in events


def test_a_member_that_one_node_has_lost_is_one_again_once_it_is_told_of() -> None:
    """Its neighbours see from the heartbeats that somebody is missing, and tell."""
    network = VirtualNetwork(seed=9, config=Config.wan(), delay_s=0.05)
    node = network.ring(40, settle_s=60)[5]
    lost = node.core.context.leaf_set.leftmost
    assert lost is not None
    network.step(node, lambda: node.core.context.leaf_set.discard(lost.id))
    network.run_until(network.is_consistent, 40)
    assert node.core.context.leaf_set.get(lost.id) == lost, "it had nothing to refute"


def test_a_member_that_was_wrongly_believed_dead_is_one_again_before_tombstones_expire() -> None:
    """Who is told of its death asks it, so that it refutes, and tells of its new incarnation."""
    config = Config.wan()
    network = VirtualNetwork(seed=9, config=config, delay_s=0.05)
    node = network.ring(40, settle_s=60)[5]
    far = node.core.context.leaf_set.leftmost
    assert far is not None
    lost = node.core.context.peers.of(far)
    network.step(node, lambda: node.core.leafset_upkeep.remove(lost, False, network.now))
    network.run_until(network.is_consistent, 40)
    assert config.tombstone_s > 40
    member = node.core.context.leaf_set.get(far.id)
    assert member is not None and member.incarnation == far.incarnation + 1


def test_a_table_entry_that_does_not_tell_its_row_is_given_up() -> None:
    network = VirtualNetwork(6)
    node = network.ring(40, settle_s=5)[3]
    context = node.core.context
    entry = next(h for h in context.table.entries() if h.id not in context.leaf_set)
    network.crash(next(n for n in network.live if n.id == entry.id))
    upkeep, peer = node.core.table_upkeep, context.peers.of(entry)
    network.step(node, lambda: upkeep.fetch_row(peer, 0, network.now))
    network.run(1)
    assert not context.in_table(entry.id)


def test_a_client_that_answers_keeps_nobody_from_beginning_a_ring() -> None:
    """Found by seed 1070: after a power cut all waited for the lowest id, which was a client's."""
    network = VirtualNetwork(seed=3)
    nodes = network.ring(3)
    client = VirtualClient(network, nodes[0])
    while client.session.identity.id > min(node.id for node in nodes):
        client = VirtualClient(network, nodes[0])
    for node in nodes:
        network.crash(node)
    back = [
        network.add(public_key=n.core.identity.public_key, endpoint=n.endpoint, start=False)
        for n in nodes
    ]
    addresses = [client.endpoint, *(node.endpoint for node in nodes)]
    for node in back:
        network.step(node, lambda core=node.core: core.start(addresses, network.now))
    network.run_until(lambda: all(node.core.active for node in back), 60)


@pytest.mark.parametrize("size", [2, 6])
def test_who_loses_others_and_doubts_itself_greets_them_at_once(size: int) -> None:
    """Perhaps it is not heard: they would say why, and it need not wait for the next look."""
    network = VirtualNetwork(seed=size)
    lonely, *others = network.ring(size, settle_s=40)
    greeted: list[float] = []

    def watch(source: int, endpoint: Endpoint, data: bytes) -> None:
        if source == lonely.place and isinstance(decode(data), Hello):
            greeted.append(network.now)

    network.on_datagram = watch
    for other in others:
        network.cut(lonely, other)
    dead: list[float] = []
    while not dead:
        network.run(0.05)
        dead = [at for at, event in lonely.logged if event.fields.get("now") == "dead"]
    network.run(1.0)
    assert [at for at in greeted if dead[0] <= at <= dead[0] + 0.01]
