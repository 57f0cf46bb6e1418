"""Roots that name too few replicas: they lie, or are cut off from their own neighbours."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pastryd.config import Config
from pastryd.ids import Name, position_of, rank
from pastryd.protocol.items import name_of
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import Hello, Replicas
from pastryd.wire.verbs import AnswerStatus
from tests.items.world import World
from tests.support.network import VirtualNode

SIZE = 16
CUT_OFF_S = 60.0
"""After so long a node that is cut off has given up all others, one after the other."""


def ring(size: int = SIZE) -> World:
    """A ring that is larger than a leaf set, so that far replica sets have to be asked for."""
    return World(size, 3, replace(Config.lan(), leaf_set_size=6))


def names_itself(world: World, liar: VirtualNode, times: int, until: Callable[[], bool]) -> None:
    """Have a node name itself alone, so many times, whenever it is asked who keeps an item."""
    network = world.network
    transmit = network.transmit

    def lying(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        message = decode(data)
        if sender.id == liar.id and isinstance(message, Replicas) and not until():
            data = encode(Replicas(message.nonce, (sender,) * times))
        transmit(data, sender, destination)

    network.transmit = lying  # type: ignore[method-assign]


def in_order(world: World, name: Name) -> list[VirtualNode]:
    """Return all nodes, the closest to an item first."""
    return sorted(world.live, key=lambda node: rank(position_of(name), node.id))


def value_at(world: World, root: VirtualNode) -> bytes:
    """Return a value whose root this node is."""
    values = (b"value %d" % i for i in range(10_000))
    return next(v for v in values if in_order(world, name_of(v))[0] is root)


def cut_off_from_all_but_one(world: World) -> tuple[VirtualNode, VirtualNode]:
    """Leave one node with nobody but a far one, which has it in its table; return both."""
    pairs = [
        (lone, far)
        for lone in world.live
        for far in world.live
        if far.core.context.in_table(lone.id) and lone.id not in far.core.context.leaf_set
    ]
    lone, far = pairs[-1]
    for node in world.live:
        if node not in (lone, far):
            world.network.cut(lone, node)
            world.network.cut(node, lone)
    world.network.run(CUT_OFF_S)
    assert not len(lone.core.context.leaf_set)
    return lone, far


def keep(world: World, node: VirtualNode, value: bytes) -> Name:
    """Have a node hold an item that nobody else holds, as after a start with old data."""
    name = name_of(value)
    node.disk.items[name] = value
    node.core.items.storage.inventory.add(name, len(value))
    world.values[name] = value
    return name


@pytest.mark.parametrize("times", [1, 3])
def test_a_put_whose_root_names_nobody_but_itself_is_not_acknowledged_as_ok(times: int) -> None:
    world = ring()
    value = b"precious"
    root, *_, access = in_order(world, name_of(value))
    names_itself(world, root, times, until=lambda: False)
    result = world.put(access, value)
    assert (result.status, result.copies) == (AnswerStatus.UNDER_REPLICATED, 1)


def test_a_root_that_names_too_few_at_first_is_asked_again() -> None:
    world = ring()
    value = b"precious"
    root, *_, access = in_order(world, name_of(value))
    began = world.network.now
    names_itself(world, root, 1, until=lambda: world.network.now > began + 1)
    result = world.put(access, value)
    assert (result.status, result.copies) == (AnswerStatus.OK, 3)
    assert world.network.now - began < 2


def test_a_put_through_a_root_that_is_cut_off_is_not_acknowledged_as_ok() -> None:
    world = ring()
    lone, far = cut_off_from_all_but_one(world)
    result = world.put(far, value_at(world, lone))
    assert (result.status, result.copies) == (AnswerStatus.UNDER_REPLICATED, 1)


def test_a_node_that_lost_all_others_at_once_doubts_that_it_is_the_ring() -> None:
    world = World(8, 3)
    alone, *rest = world.live
    world.network.split([alone], rest)
    world.network.run(CUT_OFF_S)
    began = world.network.now
    result = world.put(alone, b"precious")
    assert (result.status, result.copies) == (AnswerStatus.UNDER_REPLICATED, 1)
    assert world.network.now - began < 1
    world.network.split()
    world.network.run_until(world.network.is_consistent, 120)
    assert world.put(alone, b"precious").status is AnswerStatus.OK


def test_a_node_that_others_greet_and_do_not_let_in_is_not_the_ring() -> None:
    world = World(5, 3)
    alone = world.live[0]
    network = world.network
    transmit = network.transmit

    def greeting_only(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        if sender.endpoint != alone.endpoint or isinstance(decode(data), Hello):
            transmit(data, sender, destination)

    began = network.now
    # As the older of two nodes with one identity has it: its seals are refused, not its Hello.
    network.transmit = greeting_only  # type: ignore[method-assign]
    while network.now < began + 2 * CUT_OFF_S:
        result = world.put(alone, world.choose.randbytes(300))
        assert result.status is not AnswerStatus.OK or result.copies >= 3, network.now - began
        network.run(0.3)


def test_a_node_that_all_others_left_is_the_ring() -> None:
    world = ring(3)
    alone, *rest = world.live
    for leaver in rest:
        world.network.leave(leaver)
        world.network.run(20)
    result = world.put(alone, b"precious")
    assert (result.status, result.copies) == (AnswerStatus.OK, 1)


@pytest.mark.parametrize("times", [1, 3])
def test_an_item_is_not_dropped_because_its_root_names_nobody_but_itself(times: int) -> None:
    world = ring()
    value = b"precious"
    root, *_, holder = in_order(world, name_of(value))
    names_itself(world, root, times, until=lambda: False)
    name = keep(world, holder, value)
    world.network.run(60)
    assert holder in world.holders(name)


def test_an_item_is_not_dropped_because_a_root_that_is_cut_off_has_it() -> None:
    world = ring()
    lone, far = cut_off_from_all_but_one(world)
    name = keep(world, far, value_at(world, lone))
    world.network.run(60)
    assert far in world.holders(name)
