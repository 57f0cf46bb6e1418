"""Inventory against a plain set of names; leaves and branches made tiny so that they split."""

from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given
from hypothesis import strategies as st

from pastryd.ids import Name, NodeId, position_of
from pastryd.state import inventory as module
from pastryd.state.inventory import Inventory
from tests.support.builders import name_at, positions
from tests.support.oracle import fold, in_any, names_on

names = st.builds(name_at, positions(), st.integers(0, 2))


@contextmanager
def tiny_leaves() -> Iterator[None]:
    """Four names a leaf, four leaves a branch: the same code, many more borders."""
    limits = {
        "LEAF_NAMES_MAX": 4,
        "LEAF_NAMES_MIN": 2,
        "LEAF_NAMES_LOADED": 3,
        "BRANCH_LEAVES_MAX": 4,
        "BRANCH_LEAVES_LOADED": 3,
    }
    before = {limit: getattr(module, limit) for limit in limits}
    try:
        for limit, value in limits.items():
            setattr(module, limit, value)
        yield
    finally:
        for limit, value in before.items():
            setattr(module, limit, value)


def check(inventory: Inventory, held: set[Name], start: NodeId, end: NodeId) -> None:
    inventory.check_invariants()
    assert len(inventory) == len(held)
    expected = names_on(held, start, end)
    assert inventory.names_in(start, end) == expected
    assert inventory.names_in(start, end, 3) == expected[:3]
    assert inventory.fingerprint(start, end) == (len(expected), fold(expected))
    there = sorted(name for name in held if position_of(name) == start)
    assert inventory.with_position(start) == there


@given(st.lists(st.tuples(st.booleans(), names), max_size=120), positions(), positions())
def test_adds_and_discards_equal_a_set(
    steps: list[tuple[bool, Name]], start: NodeId, end: NodeId
) -> None:
    with tiny_leaves():
        inventory, held = Inventory(), set[Name]()
        for adding, name in steps:
            assert (name in inventory) == (name in held)
            if adding:
                assert inventory.add(name, 10) == (name not in held)
                held.add(name)
            else:
                assert inventory.discard(name, 10) == (name in held)
                held.discard(name)
            inventory.check_invariants()
        assert inventory.bytes_held == 10 * len(held)
        check(inventory, held, start, end)
        check(inventory, held, start, start)


@given(st.sets(names, max_size=120), st.lists(names, max_size=30), positions(), positions())
def test_bulk_load_equals_adding_one_by_one(
    loaded: set[Name], more: list[Name], start: NodeId, end: NodeId
) -> None:
    with tiny_leaves():
        inventory = Inventory()
        inventory.bulk_load(sorted(loaded))
        check(inventory, loaded, start, end)
        for name in more:
            inventory.add(name)
        check(inventory, loaded | set(more), start, end)


@given(positions(), positions(), st.integers(1, 20), positions())
def test_split_cuts_the_arc_into_disjoint_pieces(
    start: NodeId, end: NodeId, parts: int, position: NodeId
) -> None:
    arcs = Inventory.split(start, end, parts)
    assert 1 <= len(arcs) <= parts
    assert (arcs[0][0], arcs[-1][1]) == (start, end)
    hits = sum(in_any([arc], position) for arc in arcs)
    assert hits == in_any([(start, end)], position)


@given(st.sets(names, max_size=60), positions(), positions())
def test_fingerprints_of_the_pieces_add_up(held: set[Name], start: NodeId, end: NodeId) -> None:
    inventory = Inventory()
    inventory.bulk_load(sorted(held))
    count, value = 0, 0
    for low, high in Inventory.split(start, end):
        piece = inventory.fingerprint(low, high)
        count += piece[0]
        value ^= piece[1]
    assert (count, value) == inventory.fingerprint(start, end)
