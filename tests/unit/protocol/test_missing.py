"""The queue of what a node lacks is fair to those who announce, and forgets what is made up."""

from random import Random

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.protocol import missing as module
from pastryd.protocol.context import Context
from pastryd.protocol.missing import FAILURES_MAX, QUEUE_MAX, Missing
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer

PULLS = 4


def handle(number: int) -> Handle:
    return Handle(bytes([number]) * 32, "127.0.0.1", number, 1)


def fresh(members: int) -> tuple[Missing, list[Peer], list[Peer]]:
    """Return the queue, members of the leaf set and as many strangers."""
    context = Context(handle(1), Config(), Random(1))
    peers = [context.peers.of(handle(10 + i)) for i in range(2 * members)]
    for peer in peers[:members]:
        context.leaf_set.add(peer.handle)
    return Missing(context), peers[:members], peers[members:]


def names(count: int, seed: int) -> list[Name]:
    rng = Random(seed)
    return [Name(rng.randbytes(32)) for _ in range(count)]


def announce(missing: Missing, peer: Peer, count: int, seed: int) -> list[Name]:
    announced = names(count, seed)
    for name in announced:
        missing.add(name, peer)
    missing.check_invariants()
    return announced


def take_all(missing: Missing) -> list[Name]:
    taken = []
    while (took := missing.take(PULLS)) is not None:
        taken.append(took[0])
        missing.check_invariants()
    return taken


def end(missing: Missing, name: Name, came: bool) -> None:
    missing.note_result(name, came)
    missing.ended(name)
    missing.check_invariants()


def test_as_many_pulls_as_wanted_are_made_of_what_one_node_announced() -> None:
    missing, (member,), _ = fresh(1)
    announced = announce(missing, member, 10, 1)
    taken = take_all(missing)
    assert len(taken) == PULLS
    while taken:
        end(missing, taken.pop(0), True)
        taken += take_all(missing)
    assert not missing and announced


def test_the_pulls_of_one_hang_and_another_has_one_all_the_same() -> None:
    missing, (liar, honest), _ = fresh(2)
    announce(missing, liar, 100, 1)
    hanging = take_all(missing)
    assert len(hanging) == PULLS
    wanted = announce(missing, honest, 10, 2)
    brought = []
    while taken := take_all(missing):
        assert len(taken) == 1
        brought += taken
        end(missing, taken[0], True)
    assert sorted(brought) == sorted(wanted)


def test_pulls_that_end_are_followed_by_those_of_who_has_fewest() -> None:
    missing, (liar, honest), _ = fresh(2)
    announce(missing, liar, 100, 1)
    hanging = take_all(missing)
    wanted = announce(missing, honest, 10, 2)
    end(missing, hanging.pop(), True)
    taken = take_all(missing)
    assert len(taken) == 1 and taken[0] in wanted
    end(missing, hanging.pop(), True)
    assert take_all(missing)[0] in wanted


def test_all_strangers_share_one_account() -> None:
    missing, _, strangers = fresh(8)
    for i, stranger in enumerate(strangers):
        announce(missing, stranger, 10, i)
    assert len(take_all(missing)) == PULLS
    assert not missing.from_members


def test_what_one_node_alone_announced_is_dropped_after_some_failures() -> None:
    missing, (liar, honest), _ = fresh(2)
    made_up = announce(missing, liar, 100, 1)
    shared = made_up[:20]
    for name in shared:
        missing.add(name, honest)
    failed = 0
    while failed < FAILURES_MAX:
        took = missing.take(1)
        assert took is not None
        failed += took[0] not in shared
        end(missing, took[0], took[0] in shared)
    left = []
    while (took := missing.take(1)) is not None:
        left.append(took[0])
        end(missing, took[0], True)
    assert set(left) <= set(shared)
    assert not missing


def test_a_name_that_a_second_node_announces_survives_the_first_ones_failures() -> None:
    missing, (liar, honest), _ = fresh(2)
    made_up = announce(missing, liar, FAILURES_MAX, 1)
    hanging = [took[0] for took in (missing.take(FAILURES_MAX) for _ in made_up) if took]
    real = announce(missing, liar, 5, 2)
    for name in real:
        missing.add(name, honest)
    for name in hanging:
        end(missing, name, False)
    assert missing.queued == len(real)
    took = missing.take(1)
    assert took is not None and took[1] == [honest]


def test_who_announced_most_makes_room(monkeypatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX", 100)
    missing, (liar, honest), _ = fresh(2)
    announce(missing, liar, 150, 1)
    assert missing.queued == 100 < QUEUE_MAX
    announce(missing, honest, 150, 2)
    assert missing.queued == 100
    of = [took[1][0] for took in (missing.take(200) for _ in range(100)) if took]
    assert 49 <= of.count(honest) <= 51


def test_an_announcer_that_left_the_leaf_set_leaves_nothing_behind(monkeypatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX", 100)
    missing, (gone, member), (stranger, _) = fresh(2)
    announce(missing, gone, 80, 1)
    missing._context.leaf_set.discard(gone.id)
    announce(missing, gone, 80, 1)
    announce(missing, member, 60, 2)
    announce(missing, stranger, 60, 3)
    while (took := missing.take(PULLS)) is not None:
        end(missing, took[0], False)
    assert not missing


def test_what_another_one_had_pulled_in_vain_is_not_kept_for_who_announced_it_too(
    monkeypatch,
) -> None:
    monkeypatch.setattr(module, "HEAP_MAX", 1000)
    missing, (liar,), (helper,) = fresh(1)
    announce(missing, liar, 2 * PULLS, 1)
    hanging = take_all(missing)  # and the liar's nearest names wait in front of all that follow
    assert len(hanging) == PULLS
    announced, most = 0, 0
    while announced < 10_000:
        for name in announce(missing, helper, 100, announced):
            missing.add(name, liar)
            announced += 1
        while (took := missing.take(PULLS)) is not None:
            missing.note_result(took[0], False)
            missing.ended(took[0])
        most = max(most, sum(map(len, missing._heaps.values())))
    assert most <= 1000


def test_something_is_due_to_a_member_until_all_that_it_announced_was_tried() -> None:
    missing, (first, second), _ = fresh(2)
    announced = announce(missing, first, 2, 1)
    assert missing.from_members
    assert missing.is_due_to(first.id) and not missing.is_due_to(second.id)
    for _ in announced:
        taken = missing.take(1)
        assert taken is not None and missing.is_due_to(first.id)
        end(missing, taken[0], True)
    assert not missing.is_due_to(first.id) and not missing.from_members
