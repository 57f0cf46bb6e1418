"""Index entries, which anybody may put at a key, neither hide an item there nor hold it up."""

from collections.abc import Sequence

import pytest

from pastryd.ids import Name
from pastryd.protocol.items import ENTRIES_PER_KEY, IndexEntry, name_of
from pastryd.protocol.search_state import Entries
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import Find, Found, Route, Store
from tests.items.world import World
from tests.support.network import VirtualNode

CLIENT = Handle(bytes([7]) * 32, "10.9.9.9", 4160, 1)


def lie(
    world: World, key: Name, nodes: Sequence[VirtualNode], count: int = ENTRIES_PER_KEY
) -> None:
    """Have nodes keep so many entries of a key, or as many as they take, each another one."""
    choose = world.choose
    for node in nodes:
        for _ in range(count):
            entry = IndexEntry(key, Name(choose.randbytes(32)), 2 << 20)
            record = entry.encode()
            store = Store(choose.getrandbits(63) | 1, entry.name, len(record), record)
            world.network.transmit(encode(store), CLIENT, node.handle)
    world.network.run(0.1 if len(nodes) > 1 else 0.005)
    assert all(len(node.core.items.storage.records_at(key)) >= count - 1 for node in nodes)


def lose(world: World, node: VirtualNode, name: Name) -> None:
    """Have a node hold an item no longer, and nobody have it in a cache."""
    network = world.network
    node.core.items.storage.drop_cached(name)
    network.step(
        node, lambda: node.core.items.storage.delete(name, lambda status, now: None, network.now)
    )
    network.run(0.01)
    assert name not in node.disk.items
    for other in world.live:
        other.core.items.storage.drop_cached(name)


def put_and_lie(world: World) -> Name:
    """Put an object, which nobody has in a cache then, and lie about it."""
    value = b"acknowledged"
    key = name_of(value)
    assert world.put(world.live[0], value).copies == 3
    for node in world.live:
        node.core.items.storage.drop_cached(key)
    lie(world, key, world.live)
    return key


def test_an_object_follows_its_replicas_although_its_key_is_full_of_entries() -> None:
    world = World(9, seed=3)
    key = put_and_lie(world)
    for _ in range(4):
        world.crash(world.holders(key)[:1])
        world.repair(60)


def test_entries_at_a_node_that_need_not_keep_them_do_not_hide_what_the_replicas_hold() -> None:
    world = World(12, seed=4)
    put_and_lie(world)
    world.network.run(60)
    world.assert_readable()


def test_entries_at_a_hop_do_not_answer_for_the_replicas() -> None:
    world = World(60, seed=6)
    put_and_lie(world)
    world.assert_readable()


@pytest.mark.parametrize("liar", range(3))
@pytest.mark.parametrize("size", [12, 60])
def test_a_replica_that_holds_but_lies_does_not_answer_for_the_two_that_hold_the_object(
    size: int, liar: int
) -> None:
    world = World(size, seed=4)
    value = b"acknowledged"
    key = name_of(value)
    assert world.put(world.live[0], value).copies == 3
    for node in world.live[::5] + world.replicas(key):
        lose(world, world.replicas(key)[liar], key)
        lie(world, key, [world.replicas(key)[liar]])
        world.assert_right(world.get(node, key))


@pytest.mark.parametrize("liar", range(3))
@pytest.mark.parametrize("size", [12, 60])
def test_nor_for_the_two_that_hold_the_true_entry(size: int, liar: int) -> None:
    for asks in range(0, size, 5):
        world = World(size, seed=5)
        key = name_of(b"a large blob")
        entry = IndexEntry(key, name_of(b"its manifest"), 5 << 20)
        assert world.put(world.live[0], entry.encode(), entry.name).copies == 3
        replicas = world.replicas(key)
        lose(world, replicas[liar], entry.name)
        lie(world, key, [replicas[liar]])
        result = world.get(world.live[asks], key).result
        assert isinstance(result, Entries)
        assert result.records[0] == entry.encode(), "what more holders say comes first"


@pytest.mark.parametrize(
    ("size", "silent", "within_s"), [(12, 1, 0.1), (40, 1, 0.75), (12, 2, 0.5)]
)
def test_who_asks_waits_for_silent_replicas_for_a_moment(
    size: int, silent: int, within_s: float
) -> None:
    world = World(size, seed=6)
    key = name_of(b"a large blob")
    entry = IndexEntry(key, name_of(b"its manifest"), 5 << 20)
    world.put(world.live[0], entry.encode(), entry.name)
    hung = world.replicas(key)[:silent]
    for node in hung:
        world.network.hang(node)
    for node in [n for n in world.live if n not in hung][:8]:
        search = world.get(node, key)
        assert search.result == Entries((entry.encode(),))
        assert search.took_s < within_s
        world.network.run(0.01)


def test_lies_alone_end_a_search_although_two_replicas_are_silent() -> None:
    world = World(12, seed=7)
    key = name_of(b"never put")
    liar, *silent = world.replicas(key)
    lie(world, key, [liar])
    world.crash(silent)
    search = world.get(liar, key)
    assert isinstance(search.result, Entries)
    assert search.took_s < 0.7


def test_a_hop_that_answers_with_a_lie_whatever_it_holds_does_not_end_a_search() -> None:
    world = World(60, seed=8)
    value = b"acknowledged"
    key = name_of(value)
    world.put(world.live[0], value)
    record = IndexEntry(key, Name(bytes(32)), 2 << 20).encode()
    network = world.network
    transmit = network.transmit
    lied = 0

    def lying(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        nonlocal lied
        message = decode(data)
        if isinstance(message, Route) and isinstance(destination, Handle):
            question = decode(message.payload)
            if isinstance(question, Find) and question.name == key:
                lied += 1
                lie = Found(question.nonce, 0, b"", (record,))
                transmit(encode(lie), destination, sender)
                return
        transmit(data, sender, destination)

    network.transmit = lying  # type: ignore[method-assign]
    for node in world.live[::4]:
        for other in world.live:
            other.core.items.storage.drop_cached(key)
        world.assert_right(world.get(node, key))
    assert lied
