"""Names that nobody has, announced to a node that has much to repair."""

from collections.abc import Sequence

import pytest

from pastryd.ids import RING_MASK, Name
from pastryd.protocol.items import name_of
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import NAMES_MAX, Absent, HaveQuery, Segment
from tests.items.world import World
from tests.support.network import VirtualNode


def mute(world: World, liar: VirtualNode) -> None:
    """Have a node answer no pull."""
    network = world.network
    transmit = network.transmit

    def silent(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        if sender.id != liar.id or not isinstance(decode(data), Segment | Absent):
            transmit(data, sender, destination)

    network.transmit = silent  # type: ignore[method-assign]


def made_up(world: World, victim: VirtualNode, count: int) -> Sequence[Name]:
    """Return names nearer to the victim than anything that it lacks."""
    tail = world.choose.randbytes
    at = [(int(victim.id) + i) & RING_MASK for i in range(count)]
    return [Name(position.to_bytes(16, "big") + tail(16)) for position in at]


def announce(world: World, liar: VirtualNode, victim: VirtualNode, datagrams: int) -> None:
    for i in range(datagrams):
        names = made_up(world, victim, NAMES_MAX)
        message = HaveQuery(2 * i + 1, True, tuple(names))
        world.network.transmit(encode(message), liar.handle, victim.handle)


@pytest.mark.parametrize("datagrams_later", [0, 1])
def test_repair_goes_on_while_somebody_announces_what_nobody_has(datagrams_later: int) -> None:
    world = World(8, seed=5)
    world.fill(40)
    liar, victim = world.live[6], world.live[3]
    world.crash([victim])
    victim.disk.items.clear()
    mute(world, liar)
    world.network.restart(victim, [world.live[0]])
    world.network.run(0.2)
    announce(world, liar, victim, 100)
    for _ in range(4):
        world.network.run(5)
        announce(world, liar, victim, datagrams_later)
    assert world.is_replicated()


def test_neighbours_are_compared_with_while_another_announces_without_end() -> None:
    world = World(8, seed=5)
    liar = world.live[6]
    mute(world, liar)
    value = world.choose.randbytes(300)
    world.values[name_of(value)] = value
    replicas = world.replicas(name_of(value))
    assert liar not in replicas
    for _ in range(20):
        for victim in world.live:
            if victim is not liar:
                announce(world, liar, victim, 1)
        world.network.run(2)
    # As after a put that ended with its client.
    holder = replicas[1]
    holder.disk.items[name_of(value)] = value
    holder.core.items.storage.inventory.add(name_of(value), len(value))
    for _ in range(20):
        for victim in world.live:
            if victim is not liar:
                announce(world, liar, victim, 1)
        world.network.run(2)
    assert world.is_replicated()
