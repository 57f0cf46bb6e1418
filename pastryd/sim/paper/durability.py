"""Copies lost versus k when many nodes fail: at once, a whole region, and with repair in between.

Running nodes place the items and repair them. The k holders of an item are neighbours on the ring,
but ids are random: whoever dies, an item is lost with the chance that its k are among the dead.
"""

from collections.abc import Collection, Sequence
from functools import partial
from math import prod
from pathlib import Path
from random import Random

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.protocol.items import name_of
from pastryd.protocol.put_state import PutResult
from pastryd.sim.direct import DirectRing, settled_world
from pastryd.sim.latency import LatencyModel, Sphere
from pastryd.sim.results import Curve, Grid, Panel, Table
from pastryd.sim.world import World

PUTS_PER_S = 50.0
COLUMNS = (
    "k",
    "killed",
    "lost at once",
    "formula",
    "lost with a region",
    "draws in which any was lost",
    "lost with repair",
    "formula with repair",
    "copies missing when the next batch died",
)


def lost_part(nodes: int, killed: int, k: int) -> float:
    """Return the chance that k given nodes are among those killed (hypergeometric)."""
    return prod(max(0, killed - i) / (nodes - i) for i in range(k))


def durability(
    seed: int = 1,
    _matrix: Path | None = None,
    nodes: int = 500,
    items: int = 3_000,
    replicas: Sequence[int] = (1, 2, 3, 4, 5),
    batches: int = 5,
    draws: int = 300,
    repair_s: float = 60.0,
    runs: int = 3,
) -> Table:
    """Kill a tenth of the ring, a fifth and so on: at once, or a tenth at a time with repair."""
    table = Table(
        "durability",
        "Items lost when many nodes die, by the number of copies",
        seed,
        {
            "nodes": nodes,
            "items": items,
            "preset": "wan",
            "draws": draws,
            "runs with repair": runs,
            "seconds of repair between batches": repair_s,
        },
        grid=Grid(COLUMNS),
    )
    assert table.grid is not None
    batch = nodes // 10
    at_once: list[Curve] = []
    repaired: list[Curve] = []
    for k in replicas:
        rings = [_Ring(seed + run, nodes, items, k) for run in range(runs)]
        initial = rings[0].holders()
        after = [one.kill_and_repair(batch, batches, repair_s) for one in rings]
        curves = [Curve(f"k = {k}", []), Curve(f"k = {k}", [])]
        formulas = [Curve("", [], reference=True), Curve("", [], reference=True)]
        survived = 1.0
        for number in range(1, batches + 1):
            killed = number * batch
            dead = rings[0].dead_sets(killed, draws)
            lost = [_lost(initial, one) for one in dead]
            mean = sum(lost) / draws / items
            regions = rings[0].regions(killed, draws)
            regional = sum(_lost(initial, one) for one in regions) / draws / items
            later = sum(run[number - 1][0] for run in after) / runs / items
            missing = sum(run[number - 1][1] for run in after)
            expected = lost_part(nodes, killed, k)
            survived *= 1 - lost_part(nodes - killed + batch, batch, k)
            any_lost = f"{sum(one > 0 for one in lost)} of {draws}"
            part = f"{killed / nodes:.0%}"
            table.grid.rows.append(
                (k, part, mean, expected, regional, any_lost, later, 1 - survived, missing)
            )
            for curve, y in zip(
                (*curves, *formulas), (mean, later, expected, 1 - survived), strict=True
            ):
                curve.points.append((killed / nodes, y))
        at_once += [curves[0], formulas[0]]
        repaired += [curves[1], formulas[1]]
    axes = ("part of the nodes that died", "part of the items lost")
    table.panels = [
        Panel(axes, at_once, title="at once", logarithmic=True),
        Panel(axes, repaired, title="a tenth at a time, with repair in between", logarithmic=True),
    ]
    table.notes.append(_NOTE)
    return table


_NOTE = (
    "At once: the mean over random sets of dead nodes, of the placement that the nodes made. A "
    "region: those nearest in the network to some node. With repair: the mean of some runs, a "
    "tenth of the first ring at a time; copies missing: of items not lost, just before that "
    "batch died, in all runs. Formula: C(N - k, m - k) / C(N, m), for m dead of N; with "
    "repair, as if every batch met k whole copies; dashed in the picture."
)


def _lost(holders: dict[Name, frozenset[int]], dead: Collection[int]) -> int:
    return sum(places.issubset(dead) for places in holders.values())


class _Ring:
    """A settled ring that holds some items."""

    def __init__(self, seed: int, nodes: int, items: int, k: int) -> None:
        self._rng = Random(seed)
        self._latency: LatencyModel = Sphere(Random(seed))
        self._k = k
        ring = DirectRing(nodes, seed, Config.wan(replicas=k), Sphere(Random(seed)))
        self._world: World = settled_world(ring, seed, self._latency)
        self._names: list[Name] = []
        for _ in range(items):
            self._put(self._rng.randbytes(100))
            self._world.run(1 / PUTS_PER_S)
        self._world.run(self._world.config.reconcile_s)

    def _put(self, value: bytes) -> None:
        world, name = self._world, name_of(value)
        node = self._rng.choice(world.nodes)
        put = partial(node.core.items.blobs.put, name, len(value), value, None, self._put_ended)
        world.step(node, partial(put, world.now))
        self._names.append(name)

    def _put_ended(self, result: PutResult, now: float) -> None:
        assert result.copies >= self._k, "a put of a settled ring failed"

    def holders(self) -> dict[Name, frozenset[int]]:
        """Return which live nodes have each item on disk; items that nobody has are left out."""
        found: dict[Name, set[int]] = {}
        for node in self._world.live:
            for name in node.disk.items:
                found.setdefault(name, set()).add(node.number)
        return {name: frozenset(places) for name, places in found.items()}

    def dead_sets(self, killed: int, draws: int) -> list[set[int]]:
        """Return random sets of nodes."""
        numbers = range(len(self._world.nodes))
        return [set(self._rng.sample(numbers, killed)) for _ in range(draws)]

    def regions(self, killed: int, draws: int) -> list[set[int]]:
        """Return sets of nodes that are near each other in the network."""
        numbers = range(len(self._world.nodes))
        return [
            set(sorted(numbers, key=lambda n: self._latency.delay_s(centre, n))[:killed])
            for centre in self._rng.choices(numbers, k=draws)
        ]

    def kill_and_repair(self, batch: int, batches: int, repair_s: float) -> list[tuple[int, int]]:
        """Kill some and let the others repair, again and again.

        Return, for each batch, how many items are lost by then, and how many copies were missing
        just before it died.
        """
        found: list[tuple[int, int]] = []
        for _ in range(batches):
            missing = self._missing()
            for node in self._rng.sample(self._world.live, batch):
                self._world.crash(node)
            found.append((len(self._names) - len(self.holders()), missing))
            self._world.run(repair_s)
        return found

    def _missing(self) -> int:
        return sum(max(0, self._k - len(places)) for places in self.holders().values())
