"""One node that is full for good stands in nobody else's way."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from pastryd.config import Config
from pastryd.ids import Name, clockwise, position_of, rank
from pastryd.protocol.items import name_of
from pastryd.wire.codec import encode
from pastryd.wire.messages import Store
from tests.support.network import VirtualNetwork, VirtualNode


def values(count: int) -> dict[Name, bytes]:
    """Return items."""
    return {name_of(value): value for value in (b"item %d" % i for i in range(count))}


def closest(network: VirtualNetwork, name: Name) -> list[VirtualNode]:
    """Return who should hold an item."""
    return sorted(network.live, key=lambda node: rank(position_of(name), node.id))[:3]


def missing(network: VirtualNetwork, names: Iterable[Name]) -> int:
    """Count the items that some of the k closest do not have."""
    return sum(not all(name in n.disk.items for n in closest(network, name)) for name in names)


def test_what_cannot_be_handed_over_keeps_nothing_else_from_its_turn() -> None:
    """A node comes back with old items far from it; of the first ones one replica is full."""
    network = VirtualNetwork(3, replace(Config.lan(), leaf_set_size=6))
    nodes = network.ring(14)
    old = nodes[7]
    network.crash(old)
    network.run(6)
    others = sorted(network.live, key=lambda node: clockwise(old.id, node.id))
    near, far = clockwise(old.id, others[4].id), clockwise(old.id, others[-5].id)
    inside = {
        n: v for n, v in values(1500).items() if near < clockwise(old.id, position_of(n)) < far
    }
    ordered = sorted(inside, key=lambda name: clockwise(old.id, position_of(name)))
    kept = ordered[:20] + ordered[20::8][:180]
    counted = Counter(node.number for name in kept[:16] for node in closest(network, name))
    full = next(n for n in network.live if n.number == counted.most_common(1)[0][0])
    assert counted[full.number] == 16
    full.disk.full = True
    free = [name for name in kept if full not in closest(network, name)]
    old.disk.items.update({name: inside[name] for name in kept})
    network.restart(old, [nodes[0]])
    network.run(120)
    assert len(free) > 40
    assert missing(network, free) == 0


def test_what_one_replica_has_alone_reaches_the_others_while_a_third_differs_for_good() -> None:
    """A client died in the middle of its puts."""
    network = VirtualNetwork(5, Config.lan())
    nodes = network.ring(8)
    full = nodes[4]
    full.disk.full = True
    for name, value in values(40).items():
        for node in closest(network, name):
            if node is not full:
                node.disk.items[name] = value
                node.core.items.storage.inventory.add(name, len(value))
    network.run(90)
    alone: list[Name] = []
    for name, value in values(100).items():
        replicas = closest(network, name)
        if name in values(40) or full in replicas:
            continue
        store = Store(network.rng.getrandbits(63) | 1, name, len(value), value)
        sender = next(node for node in nodes if node is not replicas[1])
        network.transmit(encode(store), sender.handle, replicas[1].handle)
        alone.append(name)
    network.run(1)
    assert missing(network, alone) > 20
    network.run(900)
    assert missing(network, alone) == 0
