"""Machines come, go, hang and return, the network splits: nothing acknowledged is lost."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from pastryd.config import Config
from pastryd.protocol.search_state import Object
from pastryd.wire.verbs import AnswerStatus
from tests.items.world import World
from tests.support.network import VirtualNode

SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_of_three_holders_die_and_the_last_one_restores_them(seed: int) -> None:
    world = World(12, seed)
    names = world.fill(60)
    world.crash(world.choose.sample(world.replicas(names[0]), 2))
    world.assert_readable(world.live[:4])
    assert world.repair(15) < 10


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quarter_dies_at_once(seed: int) -> None:
    world = World(16, seed)
    world.fill(100)
    victims = world.choose.sample(world.live, 4)
    unlucky = [n for n in world.values if all(r in victims for r in world.replicas(n))]
    for name in unlucky:
        del world.values[name]
    world.crash(victims)
    assert world.assert_readable(world.live[:3]) < 3.0
    assert world.repair(20) < 15


def test_after_a_repair_traffic_falls_back_to_normal() -> None:
    world = World(12, seed=4)
    world.fill(80)
    world.crash(world.choose.sample(world.live, 3))
    world.network.run(40)
    assert world.is_replicated()
    assert world.sent_per_node_and_s(60) <= 4.0


@pytest.mark.parametrize("seed", SEEDS)
def test_who_joins_takes_over_its_range_and_the_others_let_go(seed: int) -> None:
    world = World(6, seed)
    world.fill(80)
    joiner = world.network.add([world.live[0]])
    world.network.run_until(lambda: joiner.core.active, 10)
    world.repair(15)
    assert joiner.disk.items
    world.network.run_until(world.is_tidy, 90)


@pytest.mark.parametrize("seed", range(4))
def test_during_a_mass_join_nothing_acknowledged_is_ever_not_found(seed: int) -> None:
    """Twelve join four right after the puts: every get through anybody, at any time, is right."""
    world = World(4, seed)
    world.fill(40)
    for _ in range(12):
        world.network.add([world.choose.choice(world.live[:4])])
    names = list(world.values)
    for _ in range(120):
        world.network.run(0.05)
        active = [node for node in world.live if node.core.active]
        search = world.start_get(world.choose.choice(active), world.choose.choice(names))
        world.network.run_until(lambda s=search: s.ended is not None, 15)  # type: ignore[misc]
        world.assert_right(search)
    world.repair(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_when_all_holders_die_their_data_returns_with_them(seed: int) -> None:
    world = World(10, seed)
    names = world.fill(40)
    victims = world.replicas(names[0])
    world.crash(victims)
    world.network.run(20)
    search = world.get(world.live[0], names[0])
    assert not isinstance(search.result, Object)
    for victim in victims:
        world.network.restart(victim, [world.live[0]])
    world.network.run_until(world.network.is_consistent, 20)
    world.repair(20)
    world.assert_readable()


@pytest.mark.parametrize("replicas", [1, 3])
def test_nodes_that_leave_one_after_the_other_leave_everything_behind(replicas: int) -> None:
    world = World(10, 5, replace(Config.lan(), replicas=replicas))
    world.fill(60)
    network = world.network
    while len(world.live) > 3:
        leaver = world.live[1]
        leave(world, leaver)
        world.assert_readable(world.live[:1])
    network.run_until(network.is_consistent, 20)
    world.repair(20)


@pytest.mark.parametrize("size", [3, 4, 8, 12])
@pytest.mark.parametrize("seed", SEEDS)
def test_two_neighbours_that_leave_at_once_do_not_wait_for_each_other(seed: int, size: int) -> None:
    """Found by the soak: each wanted the other to confirm its copies, until both timed out."""
    world = World(size, seed)
    world.fill(40)
    network = world.network
    ordered = sorted(world.live, key=lambda node: node.core.identity.id)
    gone: list[float] = []
    began = network.now
    for leaver in ordered[:2]:

        def left(now: float, leaver: VirtualNode = leaver) -> None:
            gone.append(now)
            network.at(now, lambda: network.crash(leaver))

        network.step(leaver, lambda leaver=leaver, left=left: leaver.core.leave(network.now, left))  # type: ignore[misc]
    network.run_until(lambda: len(gone) == 2, 20)
    assert max(gone) - began < 5.0
    network.run_until(network.is_consistent, 20)
    world.repair(20)
    world.assert_readable()


def test_a_leave_is_logged_once_by_each_node_and_again_after_a_restart() -> None:
    """Who leaves tells each that hands something over to it, and is taken back meanwhile."""
    world = World(8, 1)
    world.fill(100, 3000)
    network = world.network
    nodes = sorted(world.live, key=lambda node: node.core.identity.id)
    for _ in range(2):
        gone: list[float] = []
        for node in nodes[:4]:
            network.step(node, partial(node.core.leave, network.now, gone.append))
        network.run_until(lambda gone=gone: len(gone) == 4, 20)  # type: ignore[misc]
        network.run(1)
        heard = Counter(
            (node.endpoint, event.fields["peer"])
            for node in nodes
            for _, event in node.logged
            if event.event == "peer_left"
        )
        assert len(heard) >= 4 * 4
        assert set(heard.values()) == {1}
        nodes[:4] = [network.restart(node, nodes[4:5]) for node in nodes[:4]]
        network.run_until(network.is_consistent, 20)
        for node in nodes:
            node.logged.clear()


def leave(world: World, leaver: VirtualNode) -> None:
    gone: list[float] = []
    world.network.step(leaver, lambda: leaver.core.leave(world.network.now, gone.append))
    world.network.run_until(lambda: bool(gone), 20)
    world.network.crash(leaver)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_both_halves_of_a_split_took_in_is_everywhere_after_it(seed: int) -> None:
    world = World(10, seed)
    world.fill(30)
    network = world.network
    halves = world.live[:5], world.live[5:]
    network.split(*halves)
    network.run(15)
    for half in halves:
        for i in range(10):
            value = world.choose.randbytes(500)
            result = world.put(half[i % 5], value)
            assert result.copies == 3
    network.split()
    network.run_until(network.is_consistent, 60)
    world.repair(30)
    world.assert_readable()
    network.run_until(world.is_tidy, 120)


@pytest.mark.parametrize("size", [300, 200_000])
@pytest.mark.parametrize("seed", SEEDS)
def test_gets_are_quick_while_two_of_three_holders_hang(seed: int, size: int) -> None:
    """SIGSTOP: at first nobody knows; the third holder must be reached within a second."""
    world = World(12, seed)
    names = world.fill(5, size)
    for name in names:
        reader = next(node for node in world.live if node not in world.replicas(name))
        hung = world.choose.sample(world.replicas(name), 2)
        for node in hung:
            world.network.hang(node)
        search = world.get(reader, name)
        world.assert_right(search)
        assert search.took_s < 1.0
        for node in hung:
            world.network.resume(node)
        world.network.run_until(world.network.is_consistent, 20)


@pytest.mark.parametrize("seed", SEEDS)
def test_puts_succeed_while_a_quarter_hangs_and_nothing_is_lost_afterwards(seed: int) -> None:
    world = World(16, seed)
    world.fill(20)
    hung = world.choose.sample(world.live[1:], 4)
    for node in hung:
        world.network.hang(node)
    for _ in range(20):
        began = world.network.now
        result = world.put(world.live[0], world.choose.randbytes(400))
        assert result.copies == 3
        assert world.network.now - began < 5.0
    for node in hung:
        world.network.resume(node)
    world.network.run_until(world.network.is_consistent, 30)
    world.repair(30)
    world.assert_readable()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_replica_that_is_heard_and_does_not_hear_is_soon_replaced(seed: int) -> None:
    """One direction of one path is cut: nobody is dead, for all others vouch for both ends."""
    world = World(7, seed)
    access, deaf = world.live[:2]
    world.network.cut(access, deaf)
    for _ in range(40):
        began = world.network.now
        result = world.put(access, world.choose.randbytes(300))
        assert result.status is AnswerStatus.OK and result.copies >= 3
        assert world.network.now - began < 3.0
        world.network.run(0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_come_and_go_while_blobs_are_put_and_got(seed: int) -> None:
    """Never more than two away at a time, and time to repair between: nothing is lost."""
    world = World(12, seed)
    network = world.network
    for _ in range(6):
        world.fill(5)
        away = world.choose.sample(world.live[1:], 2)
        world.crash(away)
        world.fill_through(world.live[0], 3)
        world.assert_readable([world.choose.choice(world.live)])
        world.repair(20)
        for node in away:
            network.restart(node, [world.live[0]])
        network.run_until(network.is_consistent, 20)
        world.repair(20)
    world.assert_readable()
