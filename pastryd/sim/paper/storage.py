"""Utilisation and rejected inserts as stores fill (PAST: Rowstron & Druschel 2001, SOSP, sec. 5).

Running nodes put items into small virtual disks until far more was offered than fits; the rules
alone (`sim/placing.py`) do the same at the size of PAST's experiment, beside PAST's own rules.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import exp, log, sqrt
from pathlib import Path
from random import Random

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.protocol.items import CHUNK_BYTES, name_of
from pastryd.protocol.put_state import PutResult
from pastryd.protocol.search_state import FindResult, Object
from pastryd.sim.direct import DirectRing, random_key, settled_world
from pastryd.sim.latency import Sphere
from pastryd.sim.placing import PlaceRule, Stores, all_or_nothing, diverting, next_closest
from pastryd.sim.results import Curve, Figure, Grid, Panel, Table

OFFERED = 1.5
"""Bytes offered, with all copies, over the capacity; PAST's trace: 1.53."""
REJECTED_OF_INTEREST = 0.007
INSERTS_MIN = 300
"""Before so many a part says nothing."""
PAST_K, PAST_CAPACITY = 5, 27_000_000
PUTS_PER_S = 25.0
ITEM_BYTES = 1_000
PAST_MEDIAN_BYTES, PAST_MEAN_BYTES = 1_312, 10_517
"""Of PAST's web trace; sizes here are log-normal with this median and mean."""
PUBLISHED_NO_DIVERSION = (0.608, 0.511)
"""PAST's utilisation in the end, and the part of the inserts that was rejected."""
PUBLISHED_DIVERSION = 0.982
"""PAST's utilisation in the end with t_pri .1 and t_div .05, and 0.7 % rejected."""
NOTHING = (None, None)
COLUMNS = (
    "what",
    "utilisation at the first rejection",
    "at 0.7 % rejected",
    "in the end",
    "rejected in the end",
)
Capacities = Callable[[Random, int, int], list[int]]
"""(rng, nodes, mean bytes) -> the bytes of each."""


def equal(rng: Random, nodes: int, mean: int) -> list[int]:
    """All alike."""
    return [mean] * nodes


def normal(rng: Random, nodes: int, mean: int) -> list[int]:
    """PAST's d1: deviation 0.4 of the mean, cut off at 0.07 and 1.9 of it."""
    return [int(mean * min(1.9, max(0.07, rng.gauss(1.0, 0.4)))) for _ in range(nodes)]


def skewed(rng: Random, nodes: int, mean: int) -> list[int]:
    """Of ten machines seven have a third of the mean, two the mean, one 5.7 times the mean."""
    parts = [5.7 if n % 10 == 0 else 1.0 if n % 10 < 3 else 1 / 3 for n in range(nodes)]
    rng.shuffle(parts)
    scale = nodes / sum(parts)
    return [int(mean * part * scale) for part in parts]


DISTRIBUTIONS: dict[str, Capacities] = {"equal": equal, "normal": normal, "skewed": skewed}


@dataclass(slots=True)
class Filling:
    """How full the stores were, and which part was rejected, insert by insert."""

    inserts: int = 0
    rejected: int = 0
    first: float | None = None
    interesting: float | None = None
    utilisation: float = 0.0
    points: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])

    def add(self, accepted: bool, utilisation: float) -> None:
        """Count one insert, after which the stores are so full."""
        self.inserts += 1
        self.rejected += not accepted
        self.utilisation = utilisation
        if self.rejected and self.first is None:
            self.first = utilisation
        many = self.inserts >= INSERTS_MIN
        if many and self.rejected >= REJECTED_OF_INTEREST * self.inserts:
            self.interesting = self.interesting or utilisation
        if utilisation >= self.points[-1][0] + 0.01:
            self.points.append((utilisation, self.rejected / self.inserts))

    @property
    def rejected_part(self) -> float:
        """The part of all inserts that was rejected."""
        return self.rejected / self.inserts


def storage(
    seed: int = 1,
    _matrix: Path | None = None,
    nodes: int = 40,
    items_each: int = 150,
    rule_nodes: int = 200,
    past_nodes: int = 500,
    files_each: int = PAST_CAPACITY // PAST_MEAN_BYTES,
    rest_s: float = 120.0,
) -> Table:
    """Fill running nodes, and the rules alone; equal, similar and very different capacities."""
    table = Table(
        "storage",
        "Utilisation and rejected inserts as stores fill",
        seed,
        {
            "running nodes": nodes,
            "items that one of them has room for": items_each,
            "nodes of rules alone": f"{rule_nodes} (k = 3) and {past_nodes} (k = {PAST_K})",
            "files that one of them has room for": files_each,
            "offered over capacity": OFFERED,
            "seconds at rest": rest_s,
        },
        grid=Grid(COLUMNS),
        axes=("utilisation", "rejected of all inserts so far"),
    )
    past: list[Curve] = []
    mean = PAST_MEAN_BYTES * files_each
    for name, distribution in DISTRIBUTIONS.items():
        capacities = distribution(Random(seed), nodes, ITEM_BYTES * items_each)
        run = _Run(seed, capacities, items_each, rest_s)
        _add(table, f"running nodes, {name}", "", run.fill(), table.curves)
        table.figures += run.rest(f"running nodes, {name}: ")
    for name, distribution in DISTRIBUTIONS.items():
        filling = _model(seed, rule_nodes, 3, distribution, mean, next_closest, CHUNK_BYTES)
        _add(table, f"our rule alone, {name}", ", k = 3, chunks", filling, table.curves)
    for label, rule, end, at in (
        ("our rule alone", next_closest, PUBLISHED_NO_DIVERSION, PUBLISHED_DIVERSION),
        ("PAST's rule, no diversion", all_or_nothing, PUBLISHED_NO_DIVERSION, None),
        ("PAST's rule, diversion", diverting(32, 3, Random(seed)), NOTHING, PUBLISHED_DIVERSION),
    ):
        filling = _model(seed, past_nodes, PAST_K, normal, mean, rule, None)
        _add(table, f"{label}, normal", f", k = {PAST_K}, whole files", filling, past)
        early = filling.interesting or filling.utilisation
        table.figures += [
            Figure(f"{label}: utilisation in the end", filling.utilisation, end[0]),
            Figure(f"{label}: rejected in the end", filling.rejected_part, end[1]),
            Figure(f"{label}: utilisation at 0.7 % rejected", early, at),
        ]
    table.panels = [Panel(table.axes, past)]
    table.notes.append(_NOTE)
    return table


_NOTE = (
    "Rejected: fewer than k copies. Items of running nodes are 1 kB each; those of the rules have "
    "the sizes of PAST's trace. Nothing is given back by a put of ours that was rejected: there is "
    "no deletion. Capacities: normal as PAST's d1; skewed: 70 % of the nodes have a third of the "
    "mean, 10 % have 5.7 times the mean. At rest nobody asks for anything."
)


def _add(table: Table, name: str, more: str, filling: Filling, curves: list[Curve]) -> None:
    assert table.grid is not None
    table.grid.rows.append(
        (
            name + more,
            "none" if filling.first is None else filling.first,
            "none" if filling.interesting is None else filling.interesting,
            filling.utilisation,
            filling.rejected_part,
        )
    )
    curves.append(Curve(name, filling.points))


def _model(
    seed: int,
    nodes: int,
    k: int,
    distribution: Capacities,
    mean: int,
    rule: PlaceRule,
    piece_bytes_max: int | None,
) -> Filling:
    """Fill stores by a rule with files of PAST's sizes, cut in pieces if they are larger."""
    rng = Random(seed)
    ids = sorted(random_key(rng) for _ in range(nodes))
    stores = Stores(ids, distribution(rng, nodes, mean), k)
    deviation = sqrt(2 * log(PAST_MEAN_BYTES / PAST_MEDIAN_BYTES))
    filling = Filling()
    left = OFFERED * stores.capacity / k
    while left > 0:
        size = max(1, int(PAST_MEDIAN_BYTES * exp(deviation * rng.gauss(0.0, 1.0))))
        left -= size
        for piece in _pieces(size, piece_bytes_max or size):
            filling.add(rule(stores, random_key(rng), piece), stores.utilisation)
    return filling


def _pieces(size: int, largest: int) -> Sequence[int]:
    whole, rest = divmod(size, largest)
    return [largest] * whole + [rest] * (rest > 0)


class _Run:
    """A settled ring of running nodes with bounded disks."""

    def __init__(self, seed: int, capacities: list[int], items_each: int, rest_s: float) -> None:
        self._rest_s = rest_s
        nodes = len(capacities)
        self._rng = Random(seed)
        config = Config.wan()
        ring = DirectRing(nodes, seed, config, Sphere(Random(seed)))
        self._world = settled_world(ring, seed, Sphere(Random(seed)))
        for node, capacity in zip(self._world.nodes, capacities, strict=True):
            node.disk.capacity_bytes = capacity
        self._capacity = sum(capacities)
        self._puts = int(OFFERED * nodes * items_each / config.replicas)
        self._whole: list[Name] = []
        self._filling = Filling()
        self._empty_per_s = self._per_node_second()[0]

    def fill(self) -> Filling:
        """Put items at a steady rate."""
        world = self._world
        for _ in range(self._puts):
            value = self._rng.randbytes(ITEM_BYTES)
            name, node = name_of(value), self._rng.choice(world.nodes)
            ended = partial(self._put_ended, name)
            put = partial(
                node.core.items.blobs.put, name, len(value), value, None, ended, world.now
            )
            world.step(node, put)
            world.run(1 / PUTS_PER_S)
        world.run(world.config.put_timeout_s)
        assert self._filling.inserts == self._puts, "a put never ended"
        return self._filling

    def _put_ended(self, name: Name, result: PutResult, now: float) -> None:
        accepted = result.copies >= self._world.config.replicas
        if accepted:
            self._whole.append(name)
        used = sum(node.disk.used_bytes for node in self._world.nodes)
        self._filling.add(accepted, used / self._capacity)

    def rest(self, label: str) -> list[Figure]:
        """What the full ring does when nobody asks for anything, and whether gets work."""
        per_s, bytes_per_s = self._per_node_second()
        asked = self._rng.sample(self._whole, min(300, len(self._whole)))
        found: list[bool] = []

        def ended(result: FindResult, now: float) -> None:
            found.append(isinstance(result, Object))

        world = self._world
        for name in asked:
            node = self._rng.choice(world.nodes)
            world.step(node, partial(node.core.items.blobs.find, name, ended, world.now))
            world.run(0.1)
        world.run(world.config.get_timeout_s)
        return [
            Figure(label + "gets that worked", sum(found) / len(asked)),
            Figure(label + "messages/s/node at rest, empty", self._empty_per_s),
            Figure(label + "messages/s/node at rest, full", per_s),
            Figure(label + "kB/s/node at rest, full", bytes_per_s / 1e3),
        ]

    def _per_node_second(self) -> tuple[float, float]:
        """Messages and bytes that a node sends in a second in which nobody asks for anything."""
        world = self._world
        datagrams, sent = world.datagrams, world.bytes_sent
        world.run(self._rest_s)
        seconds = self._rest_s * len(world.nodes)
        return (world.datagrams - datagrams) / seconds, (world.bytes_sent - sent) / seconds
