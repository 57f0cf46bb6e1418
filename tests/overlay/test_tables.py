"""Routing tables of running nodes: what they take on hearsay, and how that is found out."""

from random import Random

import pytest

from pastryd.config import Config
from pastryd.ids import NodeId, Position
from pastryd.protocol.table_upkeep import MISSING_MEASURED_MAX
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.peers import Liveness
from pastryd.wire.codec import decode
from pastryd.wire.messages import (
    RTT_US_MAX,
    Hello,
    Hop,
    Message,
    Ping,
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
