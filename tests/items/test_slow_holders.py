"""Holders that live but are slow: who has just found one so asks another first, for a while."""

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.protocol.blobs_find import SLOW_RTOS
from pastryd.sim.links import Uplink
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode
from pastryd.wire.messages import Find
from tests.items.world import World
from tests.support.network import VirtualNode


def count_finds(world: World, holder: VirtualNode) -> list[Name]:
    """Return what a node will have been asked for."""
    network = world.network
    transmit = network.transmit
    asked: list[Name] = []

    def counting(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        message = decode(data)
        if isinstance(message, Find) and destination == holder.handle:
            asked.append(message.name)
        transmit(data, sender, destination)

    network.transmit = counting  # type: ignore[method-assign]
    return asked


def fill(world: World, size: int, count: int) -> tuple[VirtualNode, VirtualNode, list[Name]]:
    """Put items; return a holder of many that is to be slow, a node near it, and what it gets."""
    names = world.fill(count, size)
    reader = world.live[0]
    elsewhere = [name for name in names if reader not in world.replicas(name)]
    slow = max(world.live, key=lambda node: sum(node in world.replicas(n) for n in elsewhere))
    wanted = [name for name in elsewhere if slow in world.replicas(name)]
    for name in names:
        reader.core.items.storage.drop_cached(name)
    peer = reader.core.context.peers.of(slow.handle)
    peer.srtt_s, peer.rttvar_s = 0.0005, 0.0
    assert len(wanted) > 4
    return slow, reader, wanted


def test_who_hangs_is_asked_first_once_and_not_for_each_item() -> None:
    world = World(12, 3)
    slow, reader, wanted = fill(world, 300, 60)
    world.network.hang(slow)
    asked = count_finds(world, slow)
    for name in wanted:
        world.assert_right(world.get(reader, name))
    assert len(set(asked)) == 1
    assert reader.core.stats.counters["finds_hedged"] == 1


def test_who_sends_slowly_is_not_asked_first_for_the_next_item() -> None:
    world = World(12, 4)
    slow, reader, wanted = fill(world, 400_000, 40)
    world.network.links.uplinks[world.network.place_of(slow.endpoint)] = Uplink(500_000, 1 << 20)
    asked = count_finds(world, slow)
    for name in wanted:
        world.assert_right(world.get(reader, name))
    assert len(set(asked)) == 1


def test_it_is_asked_again_after_a_while() -> None:
    world = World(12, 3)
    slow, reader, wanted = fill(world, 300, 60)
    world.network.hang(slow)
    asked = count_finds(world, slow)
    for name in wanted[:-1]:
        world.assert_right(world.get(reader, name))
    world.network.resume(slow)
    world.network.run(SLOW_RTOS * Config().rto_initial_s)
    before = len(asked)
    for name in wanted:
        reader.core.items.storage.drop_cached(name)
        world.assert_right(world.get(reader, name))
    assert len(asked) > before
