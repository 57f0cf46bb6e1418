"""Hops versus the number of nodes, and their histogram (Rowstron & Druschel 2001, sec. 4.1).

Up to a million nodes: tables and routes are arrays. Needs numpy (the extra `sim`).
"""

from collections.abc import Sequence
from math import log
from pathlib import Path
from random import Random

from pastryd.sim.results import Curve, Figure, Table
from pastryd.sim.vector import Routes, VectorRing, ids_at, random_ids, random_nodes

PUBLISHED_HOPS = {1_000: 2.5, 100_000: 3.98}
"""Average hops with b = 4 and a leaf set of 16."""
PUBLISHED_SIZE = 100_000
PUBLISHED_HISTOGRAM = (0.0, 0.0006, 0.0156, 0.1643, 0.6449, 0.1745, 0.0)
SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)


def hops(
    seed: int = 1,
    _matrix: Path | None = None,
    sizes: Sequence[int] = SIZES,
    lookups: int = 200_000,
) -> Table:
    """Average hops between random nodes, for rings of several sizes."""
    table = Table(
        "hops",
        "Hops versus the number of nodes",
        seed,
        {"bits per digit": 4, "leaf set": 16, "lookups": lookups},
        axes=("nodes", "average hops"),
    )
    points: list[tuple[float, float]] = []
    for size in sizes:
        mean = float(_routes(size, seed, lookups).hops.mean())
        table.figures.append(Figure(f"{size} nodes", mean, PUBLISHED_HOPS.get(size)))
        points.append((size, mean))
    table.curves = [
        Curve("pastryd", points),
        Curve("log16 N", [(size, log(size, 16)) for size in sizes], reference=True),
    ]
    published = [(float(n), PUBLISHED_HOPS[n]) for n in sizes if n in PUBLISHED_HOPS]
    if published:
        table.curves.append(Curve("Pastry 2001", published, reference=True))
    return table


def histogram(
    seed: int = 1,
    _matrix: Path | None = None,
    sizes: Sequence[int] = (100_000, 1_000_000),
    lookups: int = 1_000_000,
) -> Table:
    """How many of the routes take 0, 1, 2, ... hops."""
    table = Table(
        "histogram",
        "Hops of routes, as parts of all routes",
        seed,
        {"bits per digit": 4, "leaf set": 16, "lookups": lookups},
        axes=("hops", "part of the routes"),
    )
    for size in sizes:
        taken = _routes(size, seed, lookups).hops
        published = PUBLISHED_HISTOGRAM if size == PUBLISHED_SIZE else ()
        parts: list[tuple[float, float]] = []
        for number in range(max(int(taken.max()), len(published) - 1) + 1):
            part = float((taken == number).mean())
            beside = published[number] if number < len(published) else None
            table.figures.append(Figure(f"{size} nodes, {number} hops", part, beside))
            parts.append((number, part))
        mean = float(taken.mean())
        table.figures.append(Figure(f"{size} nodes, average", mean, PUBLISHED_HOPS.get(size)))
        table.curves.append(Curve(f"pastryd, {size} nodes", parts))
        if published:
            label = f"Pastry 2001, {size} nodes"
            table.curves.append(Curve(label, list(enumerate(published)), reference=True))
    return table


def _routes(size: int, seed: int, lookups: int) -> Routes:
    """Route between random pairs of nodes, as the paper did."""
    ring = VectorRing(random_ids(size, Random(seed)), seed)
    starts, goals = random_nodes(size, lookups, seed), random_nodes(size, lookups, seed + 1)
    return ring.walk(starts, ids_at(ring.ids, goals))
