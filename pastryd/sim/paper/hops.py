"""Hops versus the number of nodes, and their histogram (Rowstron & Druschel 2001, sec. 4.1)."""

from collections import Counter
from collections.abc import Sequence
from math import log
from random import Random

from pastryd.sim.direct import DirectRing
from pastryd.sim.paper.routes import random_routes
from pastryd.sim.results import Curve, Figure, Table

PUBLISHED_HOPS = {1_000: 2.5, 100_000: 3.98}
"""Average hops with b = 4 and a leaf set of 16."""
PUBLISHED_HISTOGRAM = (0.0, 0.0006, 0.0156, 0.1643, 0.6449, 0.1745, 0.0)


def hops(
    seed: int = 1,
    sizes: Sequence[int] = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000),
    lookups: int = 20_000,
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
        paths = random_routes(DirectRing(size, seed), Random(seed), lookups)
        mean = sum(len(path) - 1 for path in paths) / len(paths)
        table.figures.append(Figure(f"{size} nodes", mean, PUBLISHED_HOPS.get(size)))
        points.append((size, mean))
    table.curves = [
        Curve("pastryd", points),
        Curve("log16 N", [(size, log(size, 16)) for size in sizes]),
        Curve("Pastry 2001", [(n, PUBLISHED_HOPS[n]) for n in sizes if n in PUBLISHED_HOPS]),
    ]
    table.curves = [curve for curve in table.curves if curve.points]
    return table


def histogram(seed: int = 1, size: int = 100_000, lookups: int = 50_000) -> Table:
    """How many of the routes take 0, 1, 2, ... hops."""
    counts = Counter(
        len(path) - 1 for path in random_routes(DirectRing(size, seed), Random(seed), lookups)
    )
    published = PUBLISHED_HISTOGRAM if size == 100_000 else ()
    table = Table(
        "histogram",
        f"Hops of routes among {size} nodes, as parts of all routes",
        seed,
        {"nodes": size, "bits per digit": 4, "leaf set": 16, "lookups": lookups},
        axes=("hops", "part of the routes"),
    )
    longest = max(*counts, len(published) - 1)
    for number in range(longest + 1):
        beside = published[number] if number < len(published) else None
        table.figures.append(Figure(f"{number} hops", counts[number] / lookups, beside))
    mean = sum(number * count for number, count in counts.items()) / lookups
    table.figures.append(Figure("average", mean, PUBLISHED_HOPS.get(size)))
    parts = [(float(n), counts[n] / lookups) for n in range(longest + 1)]
    table.curves = [Curve("pastryd", parts)]
    if published:
        table.curves.append(Curve("Pastry 2001", list(enumerate(published))))
    return table
