"""An access node serves clients: dedupe, bounds, documents (DESIGN sec. 6)."""

from random import Random

import msgpack
import pytest

from pastryd.ids import Name, position_of
from pastryd.protocol.client_call import Question
from pastryd.protocol.items import (
    CHUNK_BYTES,
    ENTRIES_PER_KEY,
    IndexEntry,
    ManifestBuilder,
    name_of,
)
from pastryd.protocol.search_state import Entries
from pastryd.state.handle import Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import Answer, Replicas, Request
from pastryd.wire.verbs import AnswerStatus, Verb
from tests.support.network import VirtualNetwork, VirtualNode
from tests.support.virtual_client import PORTS, VirtualClient


@pytest.fixture
def network() -> VirtualNetwork:
    network = VirtualNetwork()
    network.ring(8)
    return network


@pytest.mark.parametrize("size", [0, 5, 1024, 1060, 1080, 1 << 20])
def test_a_client_puts_at_one_node_and_gets_at_another(network, size):
    value = Random(size).randbytes(size)
    reply = VirtualClient(network, network.nodes[0]).put(value)
    assert (reply.status, reply.number) == (AnswerStatus.OK, 3)
    reply = VirtualClient(network, network.nodes[5]).ask(Verb.GET, name_of(value))
    assert reply.status is AnswerStatus.OK
    assert reply.data == value


def test_the_same_put_again_costs_a_question(network):
    value = Random(1).randbytes(300_000)
    VirtualClient(network, network.nodes[0]).put(value)
    other = VirtualClient(network, network.nodes[7])
    before = network.datagrams
    reply = other.put(value)
    assert (reply.status, reply.number) == (AnswerStatus.OK, 3)
    assert network.datagrams - before < 20


def test_an_unknown_key_is_not_found(network):
    client = VirtualClient(network, network.nodes[0])
    assert client.ask(Verb.GET, name_of(b"?")).status is AnswerStatus.NOT_FOUND
    assert client.ask(Verb.STAT, name_of(b"?")).status is AnswerStatus.NOT_FOUND


def test_index_entries_come_as_a_list_of_records(network):
    client = VirtualClient(network, network.nodes[0])
    key = name_of(b"a large blob")
    entry = IndexEntry(key, name_of(b"its manifest"), 9 << 20)
    assert client.put(entry.encode(), entry.name).status is AnswerStatus.OK
    reply = client.ask(Verb.GET, key)
    assert reply.status is AnswerStatus.INDEX
    assert msgpack.unpackb(bytes(reply.data)) == [entry.encode()]


def put_large(client: VirtualClient, chunks: int) -> tuple[Name, int]:
    builder = ManifestBuilder()
    for i in range(chunks):
        value = bytes([i]) * (CHUNK_BYTES if i < chunks - 1 else 1000)
        assert client.put(value).status is AnswerStatus.OK
        assert not builder.add(name_of(value), len(value))
    ((manifest_name, manifest),) = builder.finish()
    assert client.put(manifest).status is AnswerStatus.OK
    key = name_of(b"the whole")
    entry = IndexEntry(key, manifest_name, builder.size)
    assert client.put(entry.encode(), entry.name).status is AnswerStatus.OK
    return key, builder.size


def test_stat_tells_where_every_copy_lies(network):
    client = VirtualClient(network, network.nodes[0])
    key, size = put_large(client, 4)
    document = VirtualClient(network, network.nodes[3]).document(Verb.STAT, key)
    assert document["size"] == size
    assert document["chunks"] == 4
    parts = document["replicas"]
    assert [p["kind"] for p in parts] == ["index", "manifest", *["chunk"] * 4]
    for part in parts:
        names = {
            n.core.identity.id: n
            for n in network.nodes
            if bytes.fromhex(part["name"]) in n.disk.items
        }
        assert {int(h["id"], 16) for h in part["holders"]} == set(names)
        assert len(names) == 3
    small = b"small"
    client.put(small)
    document = client.document(Verb.STAT, name_of(small))
    assert (document["size"], document["chunks"]) == (5, 1)
    assert len(document["replicas"][0]["holders"]) == 3


def test_no_number_of_index_entries_makes_stat_ask_what_nobody_can_read(network):
    """Many written at once get past the bound on a key's entries."""
    client = VirtualClient(network, network.nodes[0])
    key, size = put_large(client, 4)
    stat = network.nodes[3].core.items.access._stat
    find = stat._find

    def find_many(name, then, now):
        def found(result, now):
            if isinstance(result, Entries):
                others = [IndexEntry(key, name_of(bytes([i])), size) for i in range(60)]
                result = Entries((*result.records, *(other.encode() for other in others)))
            then(result, now)

        find(name, found, now)

    stat._find = find_many
    parts = VirtualClient(network, network.nodes[3]).document(Verb.STAT, key)["replicas"]
    kinds = [part["kind"] for part in parts]
    assert kinds == [*["index"] * ENTRIES_PER_KEY, "manifest", *["chunk"] * 4]
    assert all(len(part["holders"]) == 3 for part in (parts[0], *parts[-5:]))


def test_who_names_one_holder_again_and_again_names_one(network):
    node, holder = network.nodes[:2]
    named = Replicas(1, (holder.handle,) * 16)
    assert [peer.id for peer in node.core.items.lookup.peers_of(named)] == [holder.handle.id]


def test_ping_and_status_describe_the_node(network):
    node = network.nodes[2]
    client = VirtualClient(network, node)
    ping = client.document(Verb.PING)
    assert ping == {
        "id": f"{node.core.identity.id:032x}",
        "address": "10.0.0.3:4160",
        "active": True,
    }
    status = client.document(Verb.STATUS)
    assert status["id"] == ping["id"]
    assert len(status["leaf_set"]["left"]) == len(status["leaf_set"]["right"]) == 7
    assert status["leaf_set"]["left"][0]["liveness"] == "alive"
    assert status["replication"] == {
        "backlog": 0,
        "missing": 0,
        "unconfirmed": 0,
        "settled": True,
    }


def test_the_status_of_any_node_can_be_asked_of_any_other():
    network = VirtualNetwork(seed=2)
    network.ring(30)
    client = VirtualClient(network, network.nodes[0])
    for node in network.nodes[::7]:
        node_id = node.core.identity.id
        document = client.document(Verb.STATUS, node_id.to_bytes(16, "big"))
        assert document["id"] == f"{node_id:032x}"
    unknown = client.ask(Verb.STATUS, bytes(16))
    assert unknown.status is AnswerStatus.NOT_FOUND


def test_a_trace_lists_the_hops_from_the_access_node_to_the_root():
    network = VirtualNetwork(seed=2)
    network.ring(30)
    client = VirtualClient(network, network.nodes[0])
    for i in range(10):
        key = name_of(b"%d" % i)
        document = client.document(Verb.TRACE, key)
        hops = document["hops"]
        root = min(
            network.nodes,
            key=lambda n: min(
                (n.core.identity.id - position_of(key)) % 2**128,
                (position_of(key) - n.core.identity.id) % 2**128,
            ),
        )
        assert int(hops[0]["id"], 16) == network.nodes[0].core.identity.id
        assert int(hops[-1]["id"], 16) == root.core.identity.id
        assert all(hop["rtt_ms"] is None or hop["rtt_ms"] > 0 for hop in hops)


class Wire:
    """Sends bare requests to a node, as a client with its own ideas would."""

    def __init__(self, network: VirtualNetwork, node: VirtualNode) -> None:
        self.network = network
        self.node = node
        self.answers: list[Answer] = []
        self.endpoint = ("10.8.8.8", next(PORTS))
        self.handle = Handle(network.rng.randbytes(32), *self.endpoint, 1)
        network.others[self.endpoint] = self.receive
        node.core.context.peers.of(self.handle).unproven = None

    def receive(self, data: bytes, sender: Handle, now: float) -> None:
        message = decode(data)
        if isinstance(message, Answer):
            self.answers.append(message)

    def send(self, request: Request) -> None:
        self.network.transmit(encode(request), self.handle, self.node.handle)

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]


def test_a_repeated_request_is_answered_pending_and_done_once(network):
    wire = Wire(network, network.nodes[0])
    value = b"v" * 100
    request = Request(77, Verb.PUT, name_of(value), 100, value)
    for _ in range(3):
        wire.send(request)
    network.run(1)
    assert sorted(wire.statuses) == [AnswerStatus.OK, AnswerStatus.PENDING, AnswerStatus.PENDING]
    wire.send(request)
    network.run(1)
    assert wire.statuses[-1] == AnswerStatus.OK
    assert wire.answers[-1].number == 3


def test_more_puts_than_the_cache_holds_are_told_busy(network):
    wire = Wire(network, network.nodes[0])
    for i in range(40):
        wire.send(Request(100 + i, Verb.PUT, name_of(b"%d" % i), 1 << 20, b""))
    network.run(0.05)
    assert wire.statuses == [AnswerStatus.BUSY] * 8
    network.run(60)
    assert wire.statuses[8:] == [AnswerStatus.UNREACHABLE] * 32
    assert not network.nodes[0].core.items.access.in_progress
    assert network.nodes[0].core.items.blobs.puts == 0


@pytest.mark.parametrize(("count", "size"), [(300, 1024), (40, 1 << 20)])
def test_puts_without_data_keep_no_other_client_waiting(network, count, size):
    others = VirtualClient(network, network.nodes[0])
    stored = Random(3).randbytes(2000)
    assert others.put(stored).status is AnswerStatus.OK
    wire = Wire(network, network.nodes[0])
    for i in range(count):
        wire.send(Request(100 + i, Verb.PUT, name_of(b"%d" % i), size, b""))
    network.run(0.05)
    assert AnswerStatus.BUSY in wire.statuses
    others = VirtualClient(network, network.nodes[0])
    others.reaches_others = False
    began = network.now
    for value in (b"small", Random(1).randbytes(2000), Random(2).randbytes(1 << 20)):
        assert others.put(value).status is AnswerStatus.OK
    assert others.get(stored)
    assert network.now - began < 1


@pytest.mark.parametrize(
    "request_",
    [
        Request(5, 99, b"", 0, b""),
        Request(5, Verb.GET, b"short", 0, b""),
        Request(5, Verb.PUT, bytes(32), 1 << 40, b""),
        Request(5, Verb.PUT, bytes(32), 10, b"12345"),
        Request(5, Verb.STATUS, b"123", 0, b""),
        Request(5, Verb.TRACE, b"", 0, b""),
    ],
)
def test_a_malformed_request_is_refused(network, request_):
    wire = Wire(network, network.nodes[0])
    wire.send(request_)
    network.run(1)
    assert wire.statuses == [AnswerStatus.BAD_REQUEST]


def test_a_put_that_is_not_what_it_says_is_corrupt(network):
    wire = Wire(network, network.nodes[0])
    wire.send(Request(5, Verb.PUT, name_of(b"abc"), 3, b"abd"))
    network.run(1)
    assert wire.statuses == [AnswerStatus.CORRUPT]


def test_a_node_that_has_not_joined_says_so():
    network = VirtualNetwork()
    network.ring(2)
    node = network.add(start=False)
    wire = Wire(network, node)
    wire.send(Request(5, Verb.GET, bytes(32), 0, b""))
    wire.send(Request(6, Verb.PING, b"", 0, b""))
    network.run(1)
    by_nonce = {answer.nonce: answer.status for answer in wire.answers}
    assert by_nonce == {5: AnswerStatus.NOT_READY, 6: AnswerStatus.OK}


def test_a_routed_question_under_the_number_of_a_clients_request_does_not_end_that(network):
    node = network.nodes[0]
    access = node.core.items.access
    client = VirtualClient(network, node)
    value = Random(1).randbytes(CHUNK_BYTES)
    client.session.ask(Question(Verb.PUT, name_of(value), len(value), value, 30.0), network.now)
    client.drain()
    network.run(0.003)
    [(_, nonce)] = access._in_progress._calls
    question = encode(Request(nonce, Verb.TRACE, name_of(value), 0, b""))
    asker = client.session.identity.at(client.endpoint)
    access.deliver(position_of(name_of(value)), question, asker, (), network.now)
    assert access.in_progress == 1
