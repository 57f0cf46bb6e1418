"""Inventory at size: splits, merges, memory."""

import tracemalloc
from random import Random

import pytest

from pastryd.ids import RING, Name
from pastryd.state.inventory import Inventory
from tests.support.builders import name_at
from tests.support.oracle import fold, names_on


def random_names(count: int, seed: int = 1) -> list[Name]:
    rng = Random(seed)
    return [Name(rng.randbytes(32)) for _ in range(count)]


def test_ten_thousand_come_and_go() -> None:
    names = random_names(10_000)
    inventory = Inventory()
    for name in names:
        inventory.add(name)
    inventory.check_invariants()
    assert inventory.fingerprint(0, 0) == (10_000, fold(names))
    low, high = RING // 3, RING // 5
    some = names_on(names, low, high)
    assert inventory.names_in(low, high) == some
    assert inventory.fingerprint(low, high) == (len(some), fold(some))
    for name in names[100:]:
        inventory.discard(name)
    inventory.check_invariants()
    assert inventory.names_in(0, 0) == sorted(names[:100])
    for name in names[:100]:
        inventory.discard(name)
    assert len(inventory) == 0 and inventory.fingerprint(7, 7) == (0, 0)
    assert inventory.names_in(0, 0) == [] and not inventory.discard(names[0])


def test_a_million_names_would_fit_into_45_mb() -> None:
    names = random_names(20_000)
    tracemalloc.start()
    inventory = Inventory()
    for name in names:
        inventory.add(name)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size / len(names) < 45


def test_bulk_load_refuses_what_does_not_ascend() -> None:
    with pytest.raises(AssertionError):
        Inventory().bulk_load([name_at(2), name_at(1)])
    with pytest.raises(AssertionError):
        Inventory().bulk_load([name_at(1), name_at(1)])


def test_a_changed_half_changes_the_fingerprint() -> None:
    one, other = Inventory(), Inventory()
    one.add(name_at(1, 2))
    other.add(name_at(1, 3))
    assert one.fingerprint(0, 0) != other.fingerprint(0, 0)


def test_sizes_add_up() -> None:
    inventory = Inventory()
    inventory.add(name_at(1), 100)
    inventory.add(name_at(1), 100)
    inventory.add(name_at(2), 5)
    inventory.discard(name_at(1), 100)
    assert inventory.bytes_held == 5
