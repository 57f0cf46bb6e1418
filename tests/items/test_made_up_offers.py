"""Offers of items that nobody has, or that are here already, keep nobody else from being served."""

import pytest

from pastryd.ids import Name
from pastryd.protocol import blobs
from pastryd.protocol.blobs import STORES_FEW
from pastryd.protocol.items import name_of
from pastryd.protocol.outbox import ReadItem, StoreReply, StoreRequest
from pastryd.sim.disk import VirtualDisk
from pastryd.sim.links import Uplink
from pastryd.wire.codec import encode
from pastryd.wire.messages import Store
from pastryd.wire.verbs import AnswerStatus
from tests.items.test_made_up_names import mute
from tests.items.world import World
from tests.support.network import VirtualNode

SIZE = 1 << 20


class CountingDisk(VirtualDisk):
    reads = 0

    def perform(self, request: StoreRequest) -> StoreReply:
        self.reads += isinstance(request, ReadItem)
        return super().perform(request)


def offer(world: World, node: VirtualNode, victim: VirtualNode, name: Name, times: int = 1) -> None:
    """Offer an item whose bytes stay with the node."""
    for _ in range(times):
        message = Store(world.choose.getrandbits(63) | 1, name, SIZE, b"")
        world.network.transmit(encode(message), node.handle, victim.handle)


def offer_air(world: World, node: VirtualNode, victim: VirtualNode, count: int) -> None:
    """Offer items that nobody has."""
    for _ in range(count):
        offer(world, node, victim, Name(world.choose.randbytes(32)))


def test_puts_go_on_while_somebody_offers_what_nobody_has() -> None:
    world = World(8, seed=5)
    liar = world.live[6]
    mute(world, liar)
    honest = [node for node in world.live if node is not liar]
    for victim in honest:
        for _ in range(300):
            offer(world, liar, victim, Name(world.choose.randbytes(32)))
    world.network.run(0.3)
    began = world.network.now
    for access in world.live[:6]:
        assert world.put(access, world.choose.randbytes(5_000)).status is AnswerStatus.OK
    assert world.network.now - began < 1
    assert all(node.core.stats.counters["stores_refused"] > 0 for node in honest)


def test_several_who_never_send_hold_all_the_room_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blobs, "STORES_MAX", 4 * STORES_FEW)  # three are enough, not nine
    world = World(10, seed=5)
    liars = world.live[6:9]
    for liar in liars:
        mute(world, liar)
    honest = [node for node in world.live if node not in liars]
    value = world.choose.randbytes(5_000)
    while any(node in liars for node in world.replicas(name_of(value))):
        value = world.choose.randbytes(5_000)
    for liar in liars:  # the first takes half of the room, the others what is left
        for victim in world.replicas(name_of(value)):
            offer_air(world, liar, victim, 3 * STORES_FEW)
        world.network.run(0.01)
    world.network.run(0.1)
    began = world.network.now
    assert world.put(honest[0], value).status is AnswerStatus.OK
    assert world.network.now - began < 1.6
    assert all(
        node.disk.items.get(name_of(value)) == value for node in world.replicas(name_of(value))
    )


def test_who_makes_room_is_refused_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "STORES_MAX", 2 * STORES_FEW)
    world = World(6, seed=5)
    victim, *liars = world.live[:4]
    for liar in liars:
        mute(world, liar)
    for liar in liars[:2]:
        offer_air(world, liar, victim, STORES_FEW)
        world.network.run(0.01)
    refused = victim.core.stats.counters
    assert "stores_refused" not in refused
    world.network.run(1.1)
    offer_air(world, liars[2], victim, 3)
    world.network.run(0.01)
    assert refused["stores_refused"] == 3


def test_who_sends_slowly_keeps_its_room() -> None:
    world = World(6, seed=5)
    slow, victim = world.live[4], world.live[2]
    network = world.network
    network.links.uplinks[network.place_of(slow.endpoint)] = Uplink(100_000, 1 << 20)
    value = world.choose.randbytes(SIZE >> 1)
    slow.core.items.storage.pin(name_of(value), value)
    message = Store(1, name_of(value), len(value), b"")
    network.transmit(encode(message), slow.handle, victim.handle)
    liars = [node for node in world.live if node not in (slow, victim)]
    for liar in liars:
        mute(world, liar)
    network.checked = False
    for _ in range(12):
        for liar in liars:
            offer_air(world, liar, victim, 100)
        network.run(0.5)
    assert victim.disk.items[name_of(value)] == value


def test_an_item_is_pulled_from_all_who_offer_it() -> None:
    world = World(8, seed=5)
    liar = world.live[6]
    mute(world, liar)
    value = world.choose.randbytes(SIZE)
    for victim in world.replicas(name_of(value)):
        offer(world, liar, victim, name_of(value))
    world.network.run(0.1)
    began = world.network.now
    assert world.put(world.live[0], value).status is AnswerStatus.OK
    assert world.network.now - began < 2


def test_offers_of_what_is_here_cost_a_bounded_number_of_reads() -> None:
    world = World(6, seed=5)
    value = world.choose.randbytes(SIZE)
    name = name_of(value)
    assert world.put(world.live[0], value).status is AnswerStatus.OK
    victim = world.replicas(name)[0]
    liar, honest = [node for node in world.live if node is not victim][:2]
    victim.core.items.storage.drop_cached(name)
    disk = CountingDisk()
    disk.items = victim.disk.items
    victim.disk = disk
    offer(world, liar, victim, name, 1_000)
    world.network.run(0.1)
    assert 0 < disk.reads < 100
    # Who has got a bad copy from here is heard nevertheless.
    disk.items[name] = bytes(SIZE)
    offer(world, honest, victim, name)
    world.network.run(5)
    assert disk.items[name] == value
