"""Index entries, which anybody may put at a key, neither hide an item there nor hold it up."""

from pastryd.ids import Name
from pastryd.protocol.items import ENTRIES_PER_KEY, IndexEntry, name_of
from pastryd.state.handle import Handle
from pastryd.wire.codec import encode
from pastryd.wire.messages import Store
from tests.items.world import World

CLIENT = Handle(bytes([7]) * 32, "10.9.9.9", 4160, 1)


def lie(world: World, key: Name) -> None:
    """Have every node keep as many entries of a key as it takes, each another one."""
    choose = world.choose
    for node in world.live:
        for _ in range(ENTRIES_PER_KEY):
            entry = IndexEntry(key, Name(choose.randbytes(32)), 2 << 20)
            record = entry.encode()
            store = Store(choose.getrandbits(63) | 1, entry.name, len(record), record)
            world.network.transmit(encode(store), CLIENT, node.handle)
    world.network.run(0.1)
    assert all(len(node.core.items.storage.records_at(key)) >= 15 for node in world.live)


def put_and_lie(world: World) -> Name:
    """Put an object, which nobody has in a cache then, and lie about it."""
    value = b"acknowledged"
    key = name_of(value)
    assert world.put(world.live[0], value).copies == 3
    for node in world.live:
        node.core.items.storage.drop_cached(key)
    lie(world, key)
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
