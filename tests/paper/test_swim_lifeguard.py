"""SWIM (Das et al. 2002) and Lifeguard (Dadgar et al. 2018): who is declared dead, who is not."""

import pytest

from pastryd.config import Config
from pastryd.state.handle import Endpoint
from pastryd.state.peers import Liveness
from pastryd.wire.codec import decode
from pastryd.wire.messages import IndirectPing, LeafSetProbe, Ping, Suspect
from tests.support.network import VirtualNetwork, VirtualNode


def left_of(network: VirtualNetwork, victim: VirtualNode) -> VirtualNode:
    """The node that watches the victim."""
    for node in network.live:
        right = node.core.context.leaf_set.immediate_right
        if right is not None and right.id == victim.core.identity.id:
            return node
    raise AssertionError("nobody watches")


@pytest.mark.parametrize("preset,limit_s", [("lan", 2.0), ("wan", 15.0)])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("hung", [False, True])
def test_a_silent_neighbour_is_declared_dead_in_time(
    preset: str, limit_s: float, seed: int, hung: bool
) -> None:
    """The issue's bounds, for a crash and for a SIGSTOP alike."""
    config = Config.lan() if preset == "lan" else Config.wan()
    network = VirtualNetwork(seed, config, delay_s=0.0005 if preset == "lan" else 0.05)
    network.ring(20, settle_s=20 * config.heartbeat_s)
    victim = network.rng.choice(network.live)
    watcher = left_of(network, victim)
    if hung:
        network.hang(victim)
    else:
        network.crash(victim)
    network.run(limit_s)
    assert victim.core.identity.id not in watcher.core.context.leaf_set
    peer = watcher.core.context.peers.get(victim.core.identity.id)
    assert peer is not None and peer.liveness is Liveness.DEAD


def test_indirect_probes_save_a_node_that_one_link_cannot_reach() -> None:
    """SWIM sec. 4.1: other members still reach it, so it is not declared dead."""
    network = VirtualNetwork(seed=2)
    network.ring(12, settle_s=5)
    victim = network.live[3]
    watcher = left_of(network, victim)
    network.cut(victim, watcher)
    network.cut(watcher, victim)
    network.run(20)
    for node in network.live:
        if node is not victim:
            assert victim.core.identity.id in node.core.context.leaf_set
    assert watcher.core.stats.snapshot()["saved_by_indirect_ping"] > 0


def test_the_accused_refutes_with_a_higher_incarnation() -> None:
    """SWIM sec. 4.2: suspicion ends when its subject speaks up."""
    network = VirtualNetwork(seed=3)
    nodes = network.ring(8, settle_s=5)
    accused, accuser = nodes[2], nodes[5]
    before = accused.core.identity.incarnation
    peer = accuser.core.context.peers.get(accused.core.identity.id)
    assert peer is not None
    network.step(
        accuser,
        lambda: accuser.core.context.send(
            Suspect(accused.core.identity.id, before, ()), peer, network.now
        ),
    )
    network.run(1)
    assert accused.core.identity.incarnation == before + 1
    assert peer.handle.incarnation == before + 1 and peer.liveness is Liveness.ALIVE


def test_who_answers_though_others_call_it_dead_hears_of_it_and_refutes_to_all() -> None:
    """SWIM sec. 4.2: its own word reaches those who lose their only ping before they believe it."""
    network = VirtualNetwork(8, Config.wan(), delay_s=0.05)
    network.ring(40, settle_s=60)
    accused = network.live[7]
    before = accused.core.identity.incarnation
    watcher = left_of(network, accused)
    told = watcher.core.context.leaf_set.left[:3]
    network.cut(network.by_endpoint[told[0].endpoint], accused)

    def tell() -> None:
        for handle in told:
            peer = watcher.core.context.peers.of(handle)
            watcher.core.context.send(Suspect(accused.id, before, ()), peer, network.now)

    network.step(watcher, tell)
    network.run(6)
    assert accused.core.identity.incarnation == before + 1, "once, whoever tells it"
    for handle in accused.core.context.leaf_set.members():
        node = network.by_endpoint[handle.endpoint]
        known = node.core.context.leaf_set.get(accused.id)
        assert known is not None and known.incarnation == before + 1
        assert not any(e.event == "peer_liveness" for _, e in node.logged)


def test_who_missed_the_refutation_learns_of_it_from_its_neighbours() -> None:
    """SWIM sec. 4.2: a later incarnation overrides a death, whoever tells of it."""
    network = VirtualNetwork(8, Config.wan(), delay_s=0.05)
    network.ring(40, settle_s=60)
    accused = network.live[7]
    watcher = left_of(network, accused)
    told = watcher.core.context.leaf_set.left[:2]
    deaf = network.by_endpoint[told[0].endpoint]
    network.cut(deaf, accused)
    network.cut(accused, deaf)

    def tell() -> None:
        for handle in told:
            peer = watcher.core.context.peers.of(handle)
            accusation = Suspect(accused.id, accused.core.identity.incarnation, ())
            watcher.core.context.send(accusation, peer, network.now)

    network.step(watcher, tell)
    network.run_until(lambda: accused.id not in deaf.core.context.leaf_set, 6)
    network.links.cuts.clear()
    network.run_until(lambda: accused.id in deaf.core.context.leaf_set, 25)


def test_who_refuted_its_death_and_then_died_is_asked_once_and_stays_dead() -> None:
    """SWIM sec. 4.2: of a later incarnation one may be told, but not for ever."""
    network = VirtualNetwork(8, Config.wan(), delay_s=0.05)
    network.ring(40, settle_s=60)
    accused = network.live[7]
    watcher = left_of(network, accused)
    deaf = network.by_endpoint[watcher.core.context.leaf_set.left[0].endpoint]
    peer = deaf.core.context.peers.of(accused.core.identity)
    network.step(deaf, lambda: deaf.core.leafset_upkeep.remove(peer, False, network.now))
    accusation = Suspect(accused.id, accused.core.identity.incarnation, ())
    teller = watcher.core.context
    to_accused = teller.peers.of(accused.core.identity)
    network.step(watcher, lambda: teller.send(accusation, to_accused, network.now))
    network.run(0.07)
    network.crash(accused)
    asked: list[float] = []

    def count(place: int, endpoint: Endpoint, data: bytes) -> None:
        is_probe = isinstance(decode(data), LeafSetProbe)
        if is_probe and endpoint == accused.endpoint and place == network.place_of(deaf.endpoint):
            asked.append(network.now)

    network.on_datagram = count
    network.run(40)
    assert accused.id not in deaf.core.context.leaf_set
    assert 0 < len(asked) <= 1 + deaf.core.context.config.probe_attempts, "one question, repeated"
    network.run_until(network.is_consistent, 60)
    network.run(300)
    assert not any(accused.id in node.core.context.leaf_set for node in network.live)
    assert len(asked) <= 1 + deaf.core.context.config.probe_attempts


def test_a_node_that_stood_still_accuses_nobody() -> None:
    """Lifeguard: after a stall it doubts itself; nobody loses a live neighbour for it."""
    network = VirtualNetwork(seed=4)
    nodes = network.ring(16, settle_s=5)
    sleeper = nodes[4]
    network.hang(sleeper)
    network.run(30)
    others = [n for n in nodes if n is not sleeper]
    assert all(sleeper.core.identity.id not in n.core.context.leaf_set for n in others)
    network.resume(sleeper)
    assert not sleeper.core.active, "it answers for nothing until the others confirmed it"
    network.run_until(network.is_consistent, 10)
    deaths = [
        e for _, e in sleeper.logged if e.event == "peer_liveness" and e.fields["now"] == "dead"
    ]
    assert deaths == []


def test_a_cut_off_node_stretches_its_own_timeouts() -> None:
    """Lifeguard: helpers that do not even answer mean that we may be the one who cannot hear."""
    network = VirtualNetwork(seed=5)
    nodes = network.ring(10, settle_s=5)
    lonely = nodes[3]
    network.split([lonely], [n for n in nodes if n is not lonely])
    network.run(3)
    assert lonely.core.liveness.awareness.score > 0
    network.split()
    network.run_until(network.is_consistent, 60)


def test_a_node_that_hears_its_neighbours_again_trusts_itself_again() -> None:
    """Lifeguard: what came in time lowers the score. Else each death among the helpers would raise
    it for good, and a node that has seen many would notice no death within a minute.
    """
    network = VirtualNetwork(seed=6)
    nodes = network.ring(24, settle_s=5)
    for pair in (nodes[2:4], nodes[8:10], nodes[14:16], nodes[19:21]):
        for node in pair:
            network.crash(node)
        network.run(5)
    scores = [node.core.liveness.awareness.score for node in network.live]
    network.run(10)
    assert [node.core.liveness.awareness.score for node in network.live] == [0] * 16, scores


def test_who_pinged_for_the_watcher_does_not_ping_again_to_verify_its_word() -> None:
    """SWIM sec. 4.1: a helper's ping is as much its own as one that it sends for itself."""
    network = VirtualNetwork(5, Config.wan(), delay_s=0.05)
    network.ring(40, settle_s=60)
    victim = network.live[7]
    pings: dict[int, int] = {}
    helpers: set[int] = set()

    def count(place: int, endpoint: Endpoint, data: bytes) -> None:
        message = decode(data)
        if isinstance(message, Ping) and endpoint == victim.endpoint:
            pings[place] = pings.get(place, 0) + 1
        if isinstance(message, IndirectPing):
            helpers.add(network.place_of(endpoint))

    network.crash(victim)
    network.on_datagram = count
    network.run(60)
    assert len(helpers) == 3
    assert all(pings[place] == 1 for place in helpers)
    for node in network.live:
        assert victim.id not in node.core.context.leaf_set


def test_the_watcher_tells_one_side_of_a_death_and_that_side_tells_the_other() -> None:
    """MSPastry 2004, fig. 2: probes carry who failed. The new neighbours have to meet anyway."""
    network = VirtualNetwork(6, Config.wan(), delay_s=0.05)
    network.ring(40, settle_s=60)
    victim = network.live[7]
    watcher = left_of(network, victim)
    lefts = {handle.endpoint for handle in watcher.core.context.leaf_set.left}
    told: list[Endpoint] = []
    members = [handle.endpoint for handle in victim.core.context.leaf_set.members()]
    pings = dict.fromkeys(map(network.place_of, members), 0)

    def count(place: int, endpoint: Endpoint, data: bytes) -> None:
        message = decode(data)
        if isinstance(message, Suspect) and endpoint != victim.endpoint:
            told.append(endpoint)
        if isinstance(message, Ping) and endpoint == victim.endpoint and place in pings:
            pings[place] += 1

    network.crash(victim)
    network.on_datagram = count
    network.run(25)
    assert sorted(told) == sorted(endpoint for endpoint in lefts if endpoint in told)
    assert len(told) == 7, "the eighth does not know the dead node"
    assert all(pings[network.place_of(endpoint)] == 1 for endpoint in told), "by the watcher"
    assert max(pings.values()) == 2
    assert network.is_consistent()
