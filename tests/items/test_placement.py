"""Items on a quiet ring: k copies on the k closest nodes, to be had through any node (DESIGN 6)."""

from dataclasses import replace

import pytest

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.protocol.items import IndexEntry, name_of
from pastryd.protocol.search_state import Entries, Failure
from tests.items.world import World


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("bytes_each", [0, 300, 60_000])
def test_what_is_put_at_one_node_is_on_the_closest_and_got_at_every_other(
    size: int, bytes_each: int
) -> None:
    world = World(size)
    world.fill(1 if not bytes_each else 12, bytes_each)
    assert world.is_tidy()
    assert world.assert_readable() < 0.5


@pytest.mark.parametrize("replicas", [1, 5])
def test_other_numbers_of_copies(replicas: int) -> None:
    world = World(12, config=replace(Config.lan(), replicas=replicas))
    world.fill(20)
    assert world.is_tidy()
    world.assert_readable()


def test_in_a_ring_of_sixty_an_access_node_far_from_the_replicas_finds_them() -> None:
    """Its leaf set spans a quarter of the ring: the rest is found by routing."""
    world = World(60, seed=2)
    world.fill(40)
    assert world.is_tidy()
    far = 0
    for name in world.values:
        replicas = world.replicas(name)
        known = {h.id for node in replicas for h in node.core.context.leaf_set.members()}
        for node in world.live[::7]:
            if node.core.identity.id in known or node in replicas:
                continue
            far += 1
            search = world.get(node, name)
            world.assert_right(search)
            assert search.took_s < 0.2
    assert far > 100


def test_in_a_ring_of_sixty_not_found_is_certain_and_quick() -> None:
    world = World(60, seed=3)
    for i in range(10):
        search = world.get(world.live[6 * i], Name(world.choose.randbytes(32)))
        assert search.result is Failure.NOT_FOUND
        assert search.took_s < 1.0


def test_with_a_tenth_lost_and_much_twice_puts_and_gets_are_right() -> None:
    world = World(10, seed=4)
    world.network.loss = 0.1
    world.network.duplication = 0.1
    world.fill(20)
    world.fill(4, 100_000)
    world.assert_readable(world.live[::3])
    world.network.loss = 0.0
    world.repair(20)


def test_a_full_node_is_passed_over_and_the_put_is_acknowledged() -> None:
    world = World(8, seed=5)
    full = world.live[3]
    full.disk.full = True
    names = world.fill(40)
    assert any(full in world.replicas(name) for name in names)
    assert not full.disk.items
    assert all(len(world.holders(name)) >= 3 for name in names)
    world.network.run(30)
    assert all(len(world.holders(name)) >= 3 for name in names)
    world.assert_readable()
    full.disk.full = False
    world.repair(60)


def test_when_all_are_full_the_put_says_so_and_nothing_else_is_hurt() -> None:
    world = World(5, seed=6)
    world.fill(5)
    for node in world.live:
        node.disk.full = True
    began = world.network.now
    result = world.put(world.live[0], b"one too many")
    assert result.status.name == "FULL" and not result.copies
    assert world.network.now - began < 2.0
    world.assert_readable()


def test_a_corrupt_copy_is_never_handed_out_and_is_replaced() -> None:
    for size in (300, 40_000):
        world = World(8, seed=7)
        for i in range(6):
            value = world.choose.randbytes(size)
            replicas = world.replicas(name_of(value))
            # Through a node that keeps nothing: who put it has it in memory, too.
            world.put(next(node for node in world.live if node not in replicas), value)
            name, victim = name_of(value), replicas[i % 3]
            good = victim.disk.items[name]
            victim.disk.items[name] = good[:-1] + bytes([good[-1] ^ 1])
        world.assert_readable()
        # Whoever got a bad copy says so to its holder; who finds it itself forgets it.
        world.repair(30)


@pytest.mark.parametrize("offset", [50, 85])  # in what it says of the manifest, of the size
def test_a_corrupt_index_entry_is_never_handed_out_and_is_replaced(offset: int) -> None:
    world = World(8, seed=7)
    key = name_of(b"a large blob")
    entry = IndexEntry(key, name_of(b"its manifest"), 9 << 20)
    good = entry.encode()
    for victim in range(3):
        world.put(world.live[0], good, entry.name)
        disk = world.replicas(key)[victim].disk
        disk.items[entry.name] = good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :]
        for node in world.live:
            assert world.get(node, key).result == Entries((good,))
        world.repair(30)


def test_at_rest_a_ring_with_items_is_as_quiet_as_one_without() -> None:
    world = World(12, seed=8)
    world.fill(100)
    world.network.run(20)
    assert world.sent_per_node_and_s(60) <= 4.0
