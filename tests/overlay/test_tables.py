"""Routing tables of running nodes: what they take on hearsay, and how that is found out."""

from random import Random

import pytest

from pastryd.config import Config
from pastryd.ids import NodeId, Position
from pastryd.protocol.table_upkeep import MISSING_MEASURED_MAX
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.peers import Liveness
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import (
    RTT_US_MAX,
    Heartbeat,
    Hello,
    Hop,
    Measured,
    Message,
    Ping,
    Pong,
    Route,
    RowReply,
    RowRequest,
)
from tests.support.builders import handle_at
from tests.support.network import VirtualNetwork, VirtualNode


def _sent_to(network: VirtualNetwork, handles: list[Handle]) -> list[tuple[NodeId, Message]]:
    """Return a list that will hold what is sent to these from now on."""
    ids = {handle.id for handle in handles}
    sent: list[tuple[NodeId, Message]] = []
    transmit = network.transmit

    def heard(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        if isinstance(destination, Handle) and destination.id in ids:
            sent.append((destination.id, decode(data)))
        transmit(data, sender, destination)

    network.transmit = heard  # type: ignore[method-assign]
    return sent


def _row_of_ghosts(node: VirtualNode) -> list[Handle]:
    """Return one node that does not exist for each slot of the first row."""
    own_digit = node.id >> 124
    ids = [NodeId((digit << 124) + 7) for digit in range(16) if digit != own_digit]
    return [handle_at(node_id, host=f"10.9.0.{i}") for i, node_id in enumerate(ids)]


def test_of_a_row_the_nearest_are_measured_and_the_others_believed() -> None:
    network = VirtualNetwork(seed=1)
    node, other = network.ring(2)
    context, upkeep = node.core.context, node.core.table_upkeep
    teller = context.peers.of(other.handle)
    teller.srtt_s = 0.01
    context.table.discard(teller.id)
    ghosts = _row_of_ghosts(node)
    entries = [Hop(ghost, 20_000 + 1_000 * i) for i, ghost in enumerate(ghosts)]
    Random(3).shuffle(entries)
    sent = _sent_to(network, ghosts)
    network.step(node, lambda: upkeep.take_row(teller, entries, network.now))
    nearest, others = ghosts[:MISSING_MEASURED_MAX], ghosts[MISSING_MEASURED_MAX:]
    assert [node_id for node_id, _ in sent] == [ghost.id for ghost in nearest]
    assert {type(message) for _, message in sent} == {Ping}
    assert not any(context.in_table(ghost.id) for ghost in nearest), "they have not answered"
    for i, ghost in enumerate(others, MISSING_MEASURED_MAX):
        assert context.in_table(ghost.id)
        assert context.table.rtt_of(ghost.id) == pytest.approx(0.01 + 0.02 + 0.001 * i)


def test_who_was_given_up_for_dead_is_not_believed_to_be_there() -> None:
    network = VirtualNetwork(seed=1)
    node, other = network.ring(2)
    context, upkeep = node.core.context, node.core.table_upkeep
    ghosts = _row_of_ghosts(node)
    context.peers.of(ghosts[-1]).liveness = Liveness.DEAD
    entries = [Hop(ghost, 20_000) for ghost in ghosts]
    teller = context.peers.of(other.handle)
    network.step(node, lambda: upkeep.take_row(teller, entries, network.now))
    assert context.in_table(ghosts[-2].id)
    assert not context.in_table(ghosts[-1].id)


def test_a_believed_entry_that_is_dead_costs_a_message_one_detour_and_is_gone() -> None:
    network = VirtualNetwork(seed=6, config=Config.wan(), delay_s=0.03)
    nodes = network.ring(40, settle_s=20)
    node = nodes[3]
    context = node.core.context
    ghost = next(g for g in _row_of_ghosts(node) if not context.leaf_set.covers(g.id))
    entry = context.table.lookup(ghost.id)
    if entry is not None:
        context.table.discard(entry.id)
    context.table.consider(ghost, 0.1)
    sent = _sent_to(network, [ghost])
    key, number = Position(ghost.id), 5
    payload = bytes([number])
    network.step(node, lambda: node.core.route(key, payload, "nobody", network.now))
    assert [type(message) for _, message in sent] == [Route], "no greeting before it"
    network.run(10)
    assert not context.in_table(ghost.id)
    assert not any(type(message) is Hello for _, message in sent)
    unknown = [n for n in nodes if n.core.stats.snapshot().get("route_unknown_application")]
    assert len(unknown) == 1, "it arrived, once"


def test_what_others_told_of_distances_never_makes_a_row_that_nobody_can_read() -> None:
    network = VirtualNetwork(seed=1)
    node, other = network.ring(2)
    ghosts = _row_of_ghosts(node)
    teller = node.core.context.peers.of(other.handle)
    entries = [Hop(ghost, RTT_US_MAX) for ghost in ghosts]
    network.step(node, lambda: node.core.table_upkeep.take_row(teller, entries, network.now))
    sent = _sent_to(network, [other.handle])
    request = RowRequest(1, 0, b"")
    network.step(node, lambda: node.core.table_upkeep.on_row_request(request, teller, network.now))
    [(_, reply)] = sent
    assert isinstance(reply, RowReply)
    assert any(hop.rtt_us == RTT_US_MAX for hop in reply.entries)


def test_a_way_of_hours_is_told_in_words_that_can_be_read() -> None:
    """Who is greeted in vain once per `merge_s` may answer as late as it likes."""
    network = VirtualNetwork(seed=1)
    node, other = network.ring(2)
    peer = node.core.context.peers.of(other.handle)
    peer.srtt_s = 2 * 3600.0
    sent = _sent_to(network, [other.handle])
    network.step(node, lambda: node.core.liveness.doubt(peer, None, network.now))
    [(_, ping)] = sent
    assert isinstance(ping, Ping) and ping.rtt_us == RTT_US_MAX


class Claimant:
    """A key that says that it is nearer to a node than anybody, and may be asked how far it is."""

    def __init__(self, network: VirtualNetwork, node: VirtualNode, handle: Handle) -> None:
        self.network = network
        self.node = node
        self.handle = handle
        network.others[handle.endpoint] = lambda data, sender, now: None

    def say(self, message: Message) -> None:
        data, network = encode(message), self.network
        core = self.node.core
        network.step(self.node, lambda: core.receive_datagram(data, self.handle, network.now))

    def answer_after(self, seconds: float) -> None:
        """Answer pings, from now on."""

        def answer(data: bytes, sender: Handle, now: float) -> None:
            question = decode(data)
            if isinstance(question, Ping):
                self.network.at(now + seconds, self.say, Pong(question.nonce, 0))

        self.network.others[self.handle.endpoint] = answer


def _rivals_of_entries(network: VirtualNetwork, node: VirtualNode) -> dict[NodeId, Claimant]:
    """Return one for each entry outside the leaf set of a node, which have all been measured."""
    context = node.core.context
    entries = [h for h in context.table.entries() if h.id not in context.leaf_set]
    assert entries
    for entry in entries:
        context.peers.of(entry).srtt_s = 0.002
        context.table.consider(entry, 0.002)
    ids = [NodeId(entry.id ^ 1) for entry in entries]
    return {
        entry.id: Claimant(network, node, handle_at(rival, host=f"10.9.0.{i}"))
        for i, (entry, rival) in enumerate(zip(entries, ids, strict=True))
    }


@pytest.mark.parametrize("claim", [Ping(1, 1), Measured(1)])
@pytest.mark.parametrize("answers_after_s", [None, 0.02])
def test_who_says_that_it_is_near_takes_no_slot_of_who_is(
    claim: Message, answers_after_s: float | None
) -> None:
    network = VirtualNetwork(seed=5)
    node = network.ring(40, settle_s=20)[7]
    table = node.core.context.table
    rivals = _rivals_of_entries(network, node)
    for rival in rivals.values():
        if answers_after_s is not None:
            rival.answer_after(answers_after_s)
    for _ in range(20):
        for rival in rivals.values():
            rival.say(claim)
        network.run(0.5)
    captured = [i for i in rivals if table.lookup(i) == rivals[i].handle]
    assert captured == []
    assert len(rivals) == sum(table.lookup(i) is not None for i in rivals)


def test_who_says_that_it_is_nearer_and_is_so_gets_the_slot_for_one_ping() -> None:
    network = VirtualNetwork(seed=5)
    node = network.ring(40, settle_s=20)[7]
    entry, rival = next(iter(_rivals_of_entries(network, node).items()))
    rival.answer_after(0.0)
    sent = _sent_to(network, [rival.handle])
    rival.say(Measured(1_000))
    network.run(0.1)
    assert node.core.context.table.lookup(entry) == rival.handle
    assert [type(message) for _, message in sent] == [Ping]


def test_an_entry_that_only_says_how_near_it_is_is_measured_in_its_turn_or_dropped() -> None:
    network = VirtualNetwork(seed=5)
    node = network.ring(40, settle_s=20)[7]
    context = node.core.context
    honest, mute = list(_rivals_of_entries(network, node).items())[:2]
    honest[1].answer_after(0.02)
    for entry, rival in (honest, mute):
        context.table.discard(entry)
        rival.say(Measured(1))
        assert context.table.rtt_of(rival.handle.id) == 1e-6
    until = network.now + 2 * node.core.table_upkeep.period_s
    while network.now < until:
        network.run(5)
        for _, rival in (honest, mute):
            rival.say(Heartbeat(0))
    measured_s = context.table.rtt_of(honest[1].handle.id)
    assert measured_s is None or measured_s > 0.01
    assert not context.in_table(mute[1].handle.id)
