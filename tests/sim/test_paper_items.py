"""Small versions of the tables about items: who answers, how full stores get, what is lost."""

from random import Random

import pytest

from pastryd.sim.direct import DirectRing, random_key
from pastryd.sim.paper.durability import durability, lost_part
from pastryd.sim.paper.nearest import nearest
from pastryd.sim.paper.storage import equal, normal, skewed, storage
from pastryd.sim.placing import Stores, all_or_nothing, diverting, next_closest


def test_gets_reach_near_holders_more_often_than_routes_alone() -> None:
    table = nearest(seed=1, size=300, joined=60, items=200, routed=1_000)
    assert table.grid is not None
    rows = {str(row["what"]): row for row in table.grid.document()}
    gets, routes = rows["gets, 300 nodes, sphere"], rows["routes alone, 300 nodes, sphere, b = 4"]
    for which in ("the nearest", "one of the two nearest"):
        assert float(gets[which]) > float(routes[which])
    # Without guesses who holds an item (decision 0031) 0.57 and 0.69.
    assert float(gets["the nearest"]) > 0.65 and float(gets["one of the two nearest"]) > 0.8
    assert gets["answered"] == "200 of 200"
    # Of 200 gets, 40 by chance: two deviations more are 51.
    assert all(float(row["the nearest"]) > 0.26 for row in rows.values()), "better than chance"


def test_running_nodes_fill_their_disks_as_the_rule_says() -> None:
    table = storage(
        seed=1, nodes=20, items_each=30, rule_nodes=30, past_nodes=60, files_each=100, rest_s=20.0
    )
    assert table.grid is not None
    rows = {str(row["what"]): row for row in table.grid.document()}
    config = DirectRing(20, 1).config
    for name, distribution in (("equal", equal), ("normal", normal), ("skewed", skewed)):
        stores = Stores(DirectRing(20, 1).ids, distribution(Random(1), 20, 30_000), config.replicas)
        rng, puts = Random(5), 20 * 30 // 2
        kept = sum(next_closest(stores, random_key(rng), 1_000) for _ in range(puts))
        row = rows[f"running nodes, {name}"]
        assert float(row["in the end"]) == pytest.approx(stores.utilisation, abs=0.1)
        assert float(row["rejected in the end"]) == pytest.approx(1 - kept / puts, abs=0.1)
        assert table.figure(f"running nodes, {name}: gets that worked").ours == 1
    assert float(rows["running nodes, skewed"]["utilisation at the first rejection"]) < 0.5
    without = table.figure("PAST's rule, no diversion: rejected in the end").ours
    assert table.figure("PAST's rule, diversion: rejected in the end").ours < 0.5 * without


def test_rules_never_overfill_a_store_nor_keep_two_copies_on_one() -> None:
    rng = Random(1)
    ids = sorted(random_key(rng) for _ in range(30))
    for rule in (next_closest, all_or_nothing, diverting(16, 1, Random(2))):
        stores = Stores(ids, skewed(rng, 30, 1_000), 3)
        for _ in range(2_000):
            free = list(stores.free)
            accepted = rule(stores, random_key(rng), rng.randrange(1, 50))
            changed = [b - a for a, b in zip(stores.free, free, strict=True) if a != b]
            assert len(set(changed)) <= 1, "every copy is as large as the item"
            assert len(changed) == 3 if accepted else len(changed) < 3
        assert min(stores.free) >= 0
        assert stores.used == stores.capacity - sum(stores.free)


def test_closest_stores_are_those_of_the_ring() -> None:
    ring = DirectRing(50, 1)
    stores, rng = Stores(ring.ids, [0] * 50, 3), Random(3)
    for _ in range(200):
        key = random_key(rng)
        root = ring.root_of(key)
        expected = ring.tables(root)[0].replica_set(key, 5)
        assert stores.closest(key, 5) == [
            root if handle is None else ring.index_of[handle.id] for handle in expected
        ]


def test_items_are_lost_as_often_as_all_their_copies_are_among_the_dead() -> None:
    table = durability(seed=1, nodes=60, items=200, replicas=(1, 3), draws=200, runs=1)
    assert table.grid is not None
    for row in table.grid.document():
        formula = float(row["formula"])
        assert float(row["lost at once"]) == pytest.approx(formula, rel=0.25, abs=0.004)
        assert float(row["lost with a region"]) == pytest.approx(formula, rel=0.5, abs=0.02)
        assert row["copies missing when the next batch died"] == 0
        if row["k"] == 3 and row["killed"] == "50%":
            assert float(row["lost with repair"]) < 0.5 * formula


def test_the_formula_is_the_hypergeometric_one() -> None:
    assert lost_part(10, 5, 1) == 0.5
    assert lost_part(10, 5, 2) == pytest.approx(5 / 10 * 4 / 9)
    assert lost_part(10, 2, 3) == 0
