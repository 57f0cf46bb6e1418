"""The checkers find what they are there for: each is shown what must not be."""

from random import Random

import pytest

from pastryd.config import Config
from pastryd.ids import rank
from pastryd.protocol.items import IndexEntry, name_of
from pastryd.protocol.search_state import Failure
from pastryd.sim.checkers import CheckError, Load, misplaced, wrong_leaf_sets
from pastryd.sim.faults import FOREVER, Crash, Leave, Outage, Partition, Restart
from pastryd.sim.large import LargeBlobs
from pastryd.sim.soak import Soak
from pastryd.sim.world import SimNode
from tests.sim.swarm import Swarm


def test_a_blob_whose_copies_vanish_without_a_death_is_lost() -> None:
    swarm = Swarm(6)
    name = swarm.fill(3)[0]
    swarm.copies.check()
    for node in swarm.live:
        node.disk.items.pop(name, None)
    with pytest.raises(CheckError, match=r"^lost: .* none"):
        swarm.copies.check()


def test_holders_that_die_one_repair_window_apart_are_no_excuse() -> None:
    swarm = Swarm(6)
    name = swarm.fill(1)[0]
    for machine in swarm.holders(name):
        swarm.apply(Crash((machine,)))
        for node in swarm.live:
            node.disk.items.pop(name, None)  # as if nobody had repaired
        swarm.run(20)
    with pytest.raises(CheckError, match="lost"):
        swarm.copies.check()


def test_a_blob_whose_holders_die_at_once_is_excused_until_one_comes_back() -> None:
    swarm = Swarm(8)
    name = swarm.fill(3)[0]
    holders = swarm.holders(name)
    swarm.apply(Crash(tuple(holders)))
    swarm.copies.check()
    assert name in swarm.copies.excused
    swarm.apply(Restart(holders[0]))
    swarm.copies.check()
    assert name not in swarm.copies.excused
    swarm.settle(60)


def test_wrong_bytes_and_not_found_end_a_run_at_once() -> None:
    swarm = Swarm(5)
    name = swarm.fill(1)[0]
    swarm.run(15)
    get = swarm.workload.get(swarm.up[0], name)
    get.result = Failure.NOT_FOUND
    with pytest.raises(CheckError, match="not found"):
        swarm.workload.on_get(get)
    swarm.workload.acknowledged[name] = b"something else"
    with pytest.raises(CheckError, match="wrong bytes"):
        swarm.workload.get(swarm.machines[swarm.holders(name)[0]], name)
        swarm.run(1)


def test_a_large_blob_with_another_content_than_its_key_says_is_seen() -> None:
    swarm = Swarm(5)
    workload = swarm.workload
    large = LargeBlobs(swarm, workload, Random(3))
    large.put(swarm.up[0])
    swarm.run(5)
    record = IndexEntry.decode(workload.acknowledged[large.acknowledged[0]])
    lie = IndexEntry(name_of(b"another"), record.manifest, record.size)
    workload.key_of[lie.name] = lie.key
    workload.put_item(swarm.up[0], lie.name, lie.encode())
    swarm.run(5)
    with pytest.raises(CheckError, match="wrong bytes: large blob"):
        large.get(swarm.up[0], lie.name)
        swarm.run(2)


def test_a_missing_or_surplus_copy_and_a_stale_leaf_set_are_seen() -> None:
    swarm = Swarm(6)
    name = swarm.fill(1)[0]
    assert swarm.wrong() == []
    outsider = next(n for n in swarm.live if name not in n.disk.items)
    outsider.disk.items[name] = swarm.workload.acknowledged[name]
    assert len(misplaced(swarm, swarm.copies, [name])) == 1
    del outsider.disk.items[name]
    swarm.apply(Crash((0,)))
    assert len(wrong_leaf_sets(swarm)) == 5


def test_a_storm_is_one() -> None:
    swarm = Swarm(3)
    load = Load(swarm, 4000)
    load.check()
    swarm.machines[0].sent += 5000
    with pytest.raises(CheckError, match="storm: node 0"):
        load.check()


def test_a_delivery_by_another_than_the_root_is_wrong_only_in_a_whole_network() -> None:
    soak = Soak(0)
    soak.scenario.join(3, gap_s=0.2)
    soak.scenario.apply(Partition((0,), 5.0))
    soak.scenario.run(10)
    node = soak.scenario.machines[0]
    root = soak.scenario.machines[1].id
    for excused in (True, False):
        soak.workload.routes[b"payload"] = root
        if excused:
            soak.workload.delivered(node, root, b"payload")
            soak.scenario.run(10)
        else:
            with pytest.raises(CheckError, match="wrong delivery: by node 0; node 1 is closer"):
                soak.workload.delivered(node, root, b"payload")
    assert soak.workload.counts["wrong deliveries"] == 2


def test_rings_that_have_not_found_each_other_excuse_a_wrong_delivery_for_a_while() -> None:
    soak = Soak(0)
    soak.scenario.join(2, gap_s=0.2)
    node, closer = soak.scenario.machines
    for seconds, excused in ((30, True), (60, False)):
        soak.scenario.run(seconds)
        for one, other in ((node, closer), (closer, node)):
            one.core.context.leaf_set.discard(other.id)  # as a long partition leaves them
        soak.workload.routes[b"payload"] = closer.id
        if excused:
            soak.workload.delivered(node, closer.id, b"payload")
        else:
            with pytest.raises(CheckError, match="wrong delivery: by node 0; node 1 is closer"):
                soak.workload.delivered(node, closer.id, b"payload")


def test_both_nodes_of_a_ring_of_two_are_all_holders() -> None:
    swarm = Swarm(2)
    name = swarm.workload.put(swarm.up[0], 100)
    swarm.run(2)
    swarm.workload.acknowledged[name] = swarm.machines[0].disk.items[name]
    swarm.apply(Crash((0, 1)))
    swarm.copies.check()
    assert name in swarm.copies.excused


def test_the_two_that_stay_of_three_are_all_holders() -> None:
    swarm = Swarm(3)
    name = swarm.fill(1)[0]
    swarm.apply(Leave(0))
    swarm.run(5)
    assert not swarm.machines[0].running
    swarm.apply(Outage(5.0))
    swarm.copies.check()
    assert name in swarm.copies.excused


def test_who_has_just_joined_is_not_yet_a_holder_but_soon_ought_to_be() -> None:
    for ran_for_s, excused in ((0.0, True), (13.0, False)):
        swarm = Swarm(2)
        name = swarm.workload.put(swarm.up[0], 100)
        swarm.run(2)
        swarm.workload.acknowledged[name] = swarm.machines[0].disk.items[name]
        swarm.join(1)
        swarm.run(ran_for_s)
        swarm.machines[2].disk.items.pop(name, None)  # as if it had not been repaired
        swarm.apply(Crash((0, 1)))
        if excused:
            swarm.copies.check()
            assert name in swarm.copies.excused
        else:
            with pytest.raises(CheckError, match="lost"):
                swarm.copies.check()


def test_a_copy_that_vanishes_long_after_all_died_at_once_is_lost() -> None:
    swarm = Swarm(4)
    name = swarm.fill(1)[0]
    swarm.apply(Outage(1.0))
    swarm.run(20)
    for node in swarm.live:
        node.disk.items.pop(name, None)
    with pytest.raises(CheckError, match="lost"):
        swarm.copies.check()


def test_who_leaves_a_ring_in_parts_takes_a_copy_with_it() -> None:
    for whole in (False, True):
        swarm = Swarm(6, config=Config.lan(replicas=2))
        name = swarm.fill(1)[0]
        first, second = swarm.holders(name)
        if not whole:
            swarm.apply(Partition((first, second), 20.0))
        swarm.run(15)
        swarm.apply(Leave(second))
        swarm.run(5)
        assert not swarm.machines[second].running
        swarm.apply(Crash((first,)))
        for node in swarm.live:
            node.disk.items.pop(name, None)  # as if nobody had been given it
        if whole:
            with pytest.raises(CheckError, match="lost"):
                swarm.copies.check()
        else:
            swarm.copies.check()
            assert name in swarm.copies.excused


def two_rings() -> tuple[Swarm, SimNode]:
    """Two machines, and two that began without them; also who began their ring."""
    swarm = Swarm(2)
    first = swarm.world.add()
    swarm.machines += [first, swarm.world.add([first])]
    swarm.run(5)
    return swarm, first


def asked_in_a_ring_of_others(parted_ago_s: float) -> Swarm:
    """A get begins in a ring that has split off, of which no holder is a member."""
    swarm = Swarm(8)
    name = swarm.fill(1)[0]
    others = [m for m in range(8) if m not in swarm.holders(name)][:2]
    swarm.world.links.split([others])
    swarm.run(20)
    swarm.parted_until = swarm.world.now - parted_ago_s
    swarm.workload.get(swarm.machines[others[0]], name)
    return swarm


def test_rings_whose_common_nodes_died_at_once_are_told_of_each_other() -> None:
    """Found by seed 820619: all remembered addresses were those of dead nodes."""
    swarm, first = two_rings()
    one = min(swarm.machines[:2], key=lambda node: rank(first.id, node.id))
    swarm.step(first, lambda now: first.core.add_seeds([one.endpoint]))
    swarm.world.run_until(lambda: first.id in one.core.context.leaf_set, 60, 0.001)
    swarm.apply(Crash((swarm.machine_of(one), swarm.machine_of(first))))
    swarm.run(120)
    assert len(swarm.acquainted()) == 2
    assert len(wrong_leaf_sets(swarm)) == 2
    assert swarm.reconnect() == 1
    swarm.settle(60)


def test_one_address_that_one_side_knows_is_enough_to_ask_for_one_ring() -> None:
    swarm, first = two_rings()
    assert len(swarm.acquainted()) == 2
    swarm.step(first, lambda now: first.core.add_seeds([swarm.machines[1].endpoint]))
    assert len(swarm.acquainted()) == 1
    assert swarm.reconnect() == 0
    swarm.settle(60)


def test_the_parts_of_a_ring_that_was_split_know_of_each_other() -> None:
    swarm = Swarm(6)
    swarm.apply(Partition((0, 1, 2), FOREVER))
    swarm.run(120)
    assert len(wrong_leaf_sets(swarm)) == 6
    assert swarm.reconnect() == 0


def test_not_found_in_a_ring_that_has_yet_to_find_the_holders_is_excused() -> None:
    swarm = asked_in_a_ring_of_others(parted_ago_s=14.0)
    swarm.run(15)
    assert swarm.workload.counts == {"puts": 1, "acknowledged": 1, "gets NOT_FOUND": 1}


def test_not_found_in_a_ring_that_ought_to_have_found_the_holders_is_none() -> None:
    swarm = asked_in_a_ring_of_others(parted_ago_s=65.0)
    with pytest.raises(CheckError, match=r"^not found: .* has 3 holders"):
        swarm.run(15)


def test_not_found_is_wrong_while_a_holder_is_in_the_same_ring() -> None:
    swarm = Swarm(8)
    name = swarm.fill(1)[0]
    swarm.parted_until = swarm.world.now - 14.0
    for machine in swarm.holders(name):
        swarm.machines[machine].core.items.storage.inventory.discard(name)
    with pytest.raises(CheckError, match=r"^not found: .* has 3 holders"):
        swarm.workload.get(swarm.machines[0], name)
        swarm.run(15)
