"""Put and get over a whole virtual ring: copies, hedging, corruption, refusals (DESIGN sec. 6)."""

from collections import Counter
from random import Random

import pytest

from pastryd.config import Config
from pastryd.ids import Name, clockwise, position_of, rank
from pastryd.protocol import storage
from pastryd.protocol.items import IndexEntry, name_of
from pastryd.protocol.put_state import PutResult
from pastryd.protocol.search_state import Entries, Failure, FindResult, Object
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import Store, Stored
from pastryd.wire.verbs import AnswerStatus, StoreStatus
from tests.support.network import VirtualNetwork, VirtualNode


def ring(size: int, **options: object) -> VirtualNetwork:
    network = VirtualNetwork(**options)  # type: ignore[arg-type]
    network.ring(size)
    return network


def put(
    network: VirtualNetwork, node: VirtualNode, value: bytes, name: Name | None = None
) -> PutResult:
    results: list[PutResult] = []
    name = name or name_of(value)
    network.step(
        node,
        lambda: node.core.items.blobs.put(
            name, len(value), value, None, lambda result, now: results.append(result), network.now
        ),
    )
    network.run_until(lambda: bool(results), 30, 0.001)
    return results[0]


def get(network: VirtualNetwork, node: VirtualNode, name: Name) -> FindResult:
    results: list[FindResult] = []
    network.step(
        node,
        lambda: node.core.items.blobs.find(
            name, lambda result, now: results.append(result), network.now
        ),
    )
    network.run_until(lambda: bool(results), 30, 0.001)
    return results[0]


def closest(network: VirtualNetwork, name: Name) -> list[VirtualNode]:
    position = position_of(name)
    return sorted(network.live, key=lambda n: rank(position, n.core.identity.id))


def holders(network: VirtualNetwork, name: Name) -> list[VirtualNode]:
    return [n for n in network.live if name in n.disk.items]


@pytest.mark.parametrize("size", [0, 1, 1024, 1100, 70_000, 1 << 20])
def test_a_put_ends_with_k_durable_copies_and_any_node_gets_it(size):
    network = ring(8)
    value = Random(size).randbytes(size)
    name = name_of(value)
    assert put(network, network.nodes[0], value) == PutResult(AnswerStatus.OK, 3)
    replicas = closest(network, name)[:3]
    assert sorted(map(id, holders(network, name))) == sorted(map(id, replicas))
    for node in network.nodes:
        result = get(network, node, name)
        assert isinstance(result, Object) and result.value == value


def test_a_small_put_costs_three_offers_and_three_answers_and_a_get_one():
    network = ring(16)
    kinds: Counter[str] = Counter()
    transmit = network.transmit

    def counting(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        kinds[type(decode(data)).__name__] += 1
        transmit(data, sender, destination)

    network.transmit = counting  # type: ignore[method-assign]
    value = bytes(1024)
    others = closest(network, name_of(value))[3:]
    put(network, others[0], value)
    get(network, others[1], name_of(value))
    overlay = {"Hello", "Welcome", "Heartbeat", "Ping", "Pong", "LeafSetProbe", "LeafSetReply"}
    assert {k: n for k, n in kinds.items() if k not in overlay | {"Ranges"}} == {
        "Store": 3,
        "Stored": 3,
        "Find": 1,
        "Found": 1,
    }


def test_in_a_ring_smaller_than_k_all_nodes_are_enough():
    for size in (1, 2):
        network = ring(size)
        assert put(network, network.nodes[0], b"x") == PutResult(AnswerStatus.OK, size)
        assert len(holders(network, name_of(b"x"))) == size


def test_in_a_large_ring_puts_and_gets_are_routed():
    network = ring(40, seed=3)
    for i, node in enumerate(network.nodes[:10]):
        value = b"%d" % i * 100
        assert put(network, node, value) == PutResult(AnswerStatus.OK, 3)
        assert holders(network, name_of(value)) == [
            n for n in network.live if n in closest(network, name_of(value))[:3]
        ]
        other = network.nodes[-1 - i]
        result = get(network, other, name_of(value))
        assert isinstance(result, Object) and result.value == value
        assert get(network, other, name_of(value + b"no")) is Failure.NOT_FOUND


def test_not_found_is_said_at_once_when_all_answer():
    network = ring(8)
    start = network.now
    assert get(network, network.nodes[0], name_of(b"nothing")) is Failure.NOT_FOUND
    assert network.now - start < 0.1


@pytest.mark.parametrize("hung_count,limit_s", [(1, 0.1), (2, 0.15)])
def test_a_hung_replica_delays_a_get_by_less_than_100_ms(hung_count, limit_s):
    network = ring(12)
    value = bytes(900)
    name = name_of(value)
    put(network, network.nodes[0], value)
    order = closest(network, name)
    for hung in order[:hung_count]:
        network.hang(hung)
    for reader in order[6:]:
        start = network.now
        result = get(network, reader, name)
        assert isinstance(result, Object)
        assert network.now - start < limit_s


def test_what_may_exist_at_an_unreachable_node_is_not_called_missing():
    network = ring(6)
    name = name_of(b"x")
    order = closest(network, name)
    for node in order[:3]:
        network.hang(node)
    results: list[FindResult] = []
    reader = order[-1]
    network.step(
        reader,
        lambda: reader.core.items.blobs.find(name, lambda r, now: results.append(r), network.now),
    )
    network.run(0.5)
    assert not results


def test_a_put_does_not_wait_for_a_hung_replica():
    network = ring(8)
    value = b"v" * 500
    order = closest(network, name_of(value))
    network.hang(order[1])
    start = network.now
    assert put(network, order[-1], value) == PutResult(AnswerStatus.OK, 3)
    assert network.now - start < 1.0


def test_a_put_reports_how_many_copies_it_reached():
    network = ring(3, config=Config.lan())
    value = b"v" * 500
    for node in network.nodes[1:]:
        node.disk.full = True
    result = put(network, network.nodes[0], value)
    assert result == PutResult(AnswerStatus.UNDER_REPLICATED, 1)
    network.nodes[0].disk.full = True
    assert put(network, network.nodes[0], b"other") == PutResult(AnswerStatus.FULL, 0)


def test_a_full_replica_is_replaced_by_the_next_closest():
    network = ring(8)
    value = b"v" * 500
    order = closest(network, name_of(value))
    order[0].disk.full = True
    assert put(network, order[-1], value) == PutResult(AnswerStatus.OK, 3)
    assert name_of(value) in order[3].disk.items


def test_equal_puts_at_one_time_join_and_later_ones_cost_little():
    network = ring(8)
    value = Random(1).randbytes(200_000)
    name = name_of(value)
    results: list[PutResult] = []
    for node in network.nodes[:2] * 2:
        network.step(
            node,
            lambda node=node: node.core.items.blobs.put(
                name, len(value), value, None, lambda r, now: results.append(r), network.now
            ),
        )
    network.run_until(lambda: len(results) == 4, 10)
    assert results == [PutResult(AnswerStatus.OK, 3)] * 4
    before = network.datagrams
    put(network, network.nodes[5], value)
    assert network.datagrams - before < 20


def test_a_value_that_is_not_what_its_name_says_is_refused():
    network = ring(4)
    result = put(network, network.nodes[0], b"abc", name_of(b"abd"))
    assert result == PutResult(AnswerStatus.CORRUPT, 0)
    assert not holders(network, name_of(b"abd"))


@pytest.mark.parametrize("size", [500, 50_000])
def test_a_bad_copy_is_fetched_elsewhere_and_replaced(size):
    network = ring(8)
    value = Random(size).randbytes(size)
    name = name_of(value)
    put(network, network.nodes[0], value)
    order = closest(network, name)
    for node in network.nodes:
        node.core.items.storage.drop_cached(name)
    bad = bytearray(value)
    bad[7] ^= 1
    for node in order[:2]:
        node.disk.items[name] = bytes(bad)
    for reader in order:
        result = get(network, reader, name)
        assert isinstance(result, Object) and result.value == value
    network.run(15)
    assert all(n.disk.items[name] == value for n in order[:3])


def test_index_entries_are_found_under_their_key():
    network = ring(8)
    key = name_of(b"large blob")
    entries = [IndexEntry(key, name_of(b"m%d" % i), 5 << 20) for i in range(2)]
    for entry in entries:
        result = put(network, network.nodes[1], entry.encode(), entry.name)
        assert result == PutResult(AnswerStatus.OK, 3)
    for node in network.nodes:
        result = get(network, node, key)
        assert isinstance(result, Entries)
        assert sorted(result.records) == sorted(e.encode() for e in entries)


def test_puts_and_gets_survive_heavy_loss():
    network = ring(10, seed=5)
    network.loss = 0.1
    values = [Random(i).randbytes(3000 * i + 10) for i in range(8)]
    for i, value in enumerate(values):
        assert put(network, network.nodes[i], value).status is AnswerStatus.OK
    for i, value in enumerate(values):
        result = get(network, network.nodes[-1 - i], name_of(value))
        assert isinstance(result, Object) and result.value == value


def test_replicas_that_are_busy_are_given_the_time_that_they_take():
    network = ring(8)
    node = network.nodes[0]
    rng = Random(5)
    offers = Counter[Name]()

    def note(place: int, endpoint: Endpoint, data: bytes) -> None:
        message = decode(data)
        if isinstance(message, Store):
            offers[message.name] += 1

    network.on_datagram = note
    for one in network.nodes:
        one.disk.write_s = 0.7
    for _ in range(8):
        assert put(network, node, rng.randbytes(300)).status is AnswerStatus.OK
    offers.clear()
    value = rng.randbytes(300)
    assert put(network, node, value) == PutResult(AnswerStatus.OK, 3)
    remote = 3 - (node in closest(network, name_of(value))[:3])
    assert offers[name_of(value)] == remote


def test_who_was_given_up_and_answers_after_all_counts():
    network = ring(8)
    value = b"v" * 300
    node = closest(network, name_of(value))[-1]
    for one in network.nodes:
        one.disk.write_s = 0.4
    began = network.now
    assert put(network, node, value) == PutResult(AnswerStatus.OK, 3)
    assert node.core.stats.counters["stores_unanswered"] > 0
    assert network.now - began < 0.42


def cut_off(network: VirtualNetwork, one: VirtualNode, others: list[VirtualNode]) -> None:
    for other in others:
        network.cut(one, other)
        network.cut(other, one)


@pytest.mark.parametrize("size", [300, 50_000])
def test_who_was_replaced_is_not_waited_for_once_k_others_have_it(size):
    network = ring(12)
    value = Random(size).randbytes(size)
    order = closest(network, name_of(value))
    node = order[-1]
    cut_off(network, node, [order[i] for i in (0, 2, 3, 4)])
    results: list[PutResult] = []
    network.step(
        node,
        lambda: node.core.items.blobs.put(
            name_of(value),
            size,
            value,
            None,
            lambda result, now: results.append(result),
            network.now,
        ),
    )
    counters = node.core.stats.counters
    network.run_until(lambda: counters.get("puts_retried", 0) > 0, 10)
    assert not results
    network.links.cuts.clear()
    cut_off(network, node, order[2:5])
    # The root is asked again after `RETRY_S` at most, and the third is silent for its patience.
    network.run_until(lambda: bool(results), 1)
    assert results == [PutResult(AnswerStatus.OK, 3)]
    assert node.core.context.usable(order[2].id)


def test_a_put_with_k_copies_is_complete_though_one_who_joined_meanwhile_is_slow():
    network = ring(8)
    rng = Random(2)
    node = network.nodes[0]
    heard = min((n for n in network.nodes[1:]), key=lambda n: clockwise(node.id, n.id))
    value = rng.randbytes(300)
    while (
        heard not in closest(network, name_of(value))[:3]
        or node in closest(network, name_of(value))[:4]
    ):
        value = rng.randbytes(300)
    network.crash(heard)
    network.run(10)
    for one in network.live:
        one.disk.write_s = 1.5
    for _ in range(8):
        put(network, node, rng.randbytes(300))
    heard = network.restart(heard, [node])
    heard.disk.write_s = 60.0
    assert put(network, node, value) == PutResult(AnswerStatus.OK, 3)
    assert heard.id in node.core.context.leaf_set
    assert name_of(value) not in heard.disk.items


def refuse_stores(network: VirtualNetwork, node: VirtualNode, until: float) -> list[float]:
    """Have a node answer BUSY to whoever offers it something, until then; return when it did."""
    transmit = network.transmit
    refused: list[float] = []

    def transmit_or_refuse(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        if isinstance(destination, Handle) and destination.id == node.core.identity.id:
            message = decode(data)
            if isinstance(message, Store) and network.now < until:
                refused.append(network.now)
                answer = Stored(message.nonce, StoreStatus.BUSY)
                transmit(encode(answer), node.core.identity, sender)
                return
        transmit(data, sender, destination)

    network.transmit = transmit_or_refuse  # type: ignore[method-assign]
    return refused


@pytest.mark.parametrize("size", [300, 100_000])
def test_a_replica_that_is_busy_for_a_moment_is_asked_again_and_not_replaced(size: int) -> None:
    network = ring(8)
    value = Random(size).randbytes(size)
    name = name_of(value)
    replicas = closest(network, name)[:3]
    refused = refuse_stores(network, replicas[1], network.now + 0.3)
    assert put(network, network.nodes[0], value) == PutResult(AnswerStatus.OK, 3)
    assert sorted(map(id, holders(network, name))) == sorted(map(id, replicas))
    assert 2 <= len(refused) <= 5


def test_a_replica_that_stays_busy_is_replaced_after_a_bounded_number_of_questions() -> None:
    network = ring(8)
    value = b"value"
    replicas = closest(network, name_of(value))[:4]
    refused = refuse_stores(network, replicas[1], float("inf"))
    began = network.now
    assert put(network, network.nodes[0], value) == PutResult(AnswerStatus.OK, 3)
    kept = holders(network, name_of(value))  # repair may have brought it to the busy one, too
    assert all(node in kept for node in replicas if node is not replicas[1])
    assert network.now - began < 2.0
    assert len(refused) <= 6


def test_a_put_whose_replicas_are_all_busy_ends_in_time_and_asks_seldom() -> None:
    network = ring(3)
    value = b"value"
    refused = [refuse_stores(network, node, float("inf")) for node in network.nodes[1:]]
    began = network.now
    result = put(network, network.nodes[0], value)
    assert result.status is AnswerStatus.UNDER_REPLICATED
    assert network.now - began < network.config.put_timeout_s + 0.1
    assert max(map(len, refused)) < 64


def test_our_own_disk_that_is_busy_for_a_moment_is_waited_for_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = ring(8)
    value = b"value"
    replicas = closest(network, name_of(value))[:3]
    own = replicas[0].core.items.storage
    monkeypatch.setattr(storage, "WRITES_MAX", 1)
    written: list[float] = []
    other = b"another value"
    network.step(
        replicas[0],
        lambda: own.write(
            name_of(other), other, lambda status, now: written.append(now), network.now
        ),
    )
    assert put(network, replicas[0], value) == PutResult(AnswerStatus.OK, 3)
    assert written
    assert sorted(map(id, holders(network, name_of(value)))) == sorted(map(id, replicas))
