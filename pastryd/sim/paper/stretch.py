"""Route stretch versus the number of nodes (Pastry 2001, sec. 4.2; Castro et al. 2004).

Settled tables are arrays (numpy, the extra `sim`); beside them is a ring that joined.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from pastryd.config import Config
from pastryd.sim.latency import LatencyModel, Matrix, Plane, Sphere, TransitStub
from pastryd.sim.paper.routes import stretch_of
from pastryd.sim.results import Curve, Figure, Table
from pastryd.sim.vector import VectorRing, ids_at, random_ids, random_nodes
from pastryd.sim.vector_delays import Model, delays_of
from pastryd.sim.world import World

PUBLISHED_STRETCH = {"sphere": 1.4, "plane": 1.4, "transit-stub": 1.8}
"""Pastry 2001 on its plane (the upper end of 1.3 to 1.4), MSPastry 2004 on transit-stub."""


def stretch(
    seed: int = 1,
    matrix: Path | None = None,
    sizes: Sequence[int] = (1_000, 3_000, 10_000, 30_000, 100_000),
    largest: int = 1_000_000,
    lookups: int = 100_000,
    built: int = 500,
) -> Table:
    """How much longer the way along a route takes than the direct one.

    `largest`: a last size for the first network, which costs minutes. `built`: the same for so many
    nodes that joined by the protocol, whose tables know less.
    """
    models: dict[str, Callable[[Random], Model]] = {
        "sphere": Sphere,
        "plane": Plane,
        "transit-stub": TransitStub,
    }
    table = Table(
        "stretch",
        "Route stretch: delay along the routes over the direct delay",
        seed,
        {"bits per digit": 4, "leaf set": 16, "lookups": lookups},
        axes=("nodes", "stretch"),
    )
    if matrix is None:
        table.notes.append(
            "Real latencies: skipped, no matrix was given (--latency FILE or PASTRYD_LATENCY)."
        )
    else:
        models = {"real latencies": lambda rng: Matrix.read(matrix, rng), **models}
    for name, model in models.items():
        points: list[tuple[float, float]] = []
        last = (largest,) if name == next(iter(models)) and largest else ()
        for size in (*sizes, *last):
            value = _stretch(model(Random(seed)), size, seed, lookups)
            table.figures.append(
                Figure(f"{name}, {size} nodes", value, PUBLISHED_STRETCH.get(name))
            )
            points.append((size, value))
        table.curves.append(Curve(name, points))
    if built:
        name, model = next(iter(models.items()))
        table.figures += _built_stretch(f"{name}, {built} nodes", built, model(Random(seed)), seed)
    table.notes.append(
        "Sum of all routes' delays over the sum of the direct ones, one way, without queues. "
        "Each slot holds the nearest of 32 sampled nodes that fit, "
        "except where it says that the nodes joined by the protocol (wan preset)."
    )
    return table


def _stretch(latency: Model, size: int, seed: int, lookups: int) -> float:
    """Stretch in a ring whose tables are as near as samples of 32 make them."""
    for _ in range(size):
        latency.place()
    delays = delays_of(latency)
    ring = VectorRing(random_ids(size, Random(seed)), seed, delays=delays)
    starts, goals = random_nodes(size, lookups, seed), random_nodes(size, lookups, seed + 1)
    travelled_s = ring.walk(starts, ids_at(ring.ids, goals)).travelled_s
    elsewhere = starts != goals
    direct_s = delays(starts[elsewhere], goals[elsewhere])
    return float(travelled_s.sum() / direct_s.sum())


def _built_stretch(label: str, size: int, latency: LatencyModel, seed: int) -> list[Figure]:
    """Stretch among nodes that joined one by one: when they have settled, and an hour later."""
    world = World(seed, Config.wan(), latency, checked=False, keep_log=False)
    world.ring(size, settle_s=200.0, gap_s=0.3)
    places = {node.id: node.number for node in world.nodes}
    figures: list[Figure] = []
    for when in ("joined by the protocol", "an hour later"):
        rng = Random(seed)
        paths: list[list[int]] = []
        for _ in range(5_000):
            at, goal = rng.choice(world.nodes), rng.choice(world.nodes)
            path = [at.number]
            while (hop := world.nodes[path[-1]].core.router.next_hop(goal.id)) is not None:
                path.append(places[hop.id])
            paths.append(path)
        figures.append(Figure(f"{label}, {when}", stretch_of(paths, latency)))
        if len(figures) < 2:
            world.run(3_600.0)
    return figures
