"""Routes through rings, as the tables measure them: random pairs, mean hops, stretch."""

from collections.abc import Collection, Sequence
from itertools import pairwise
from random import Random

from pastryd.errors import ConfigError
from pastryd.sim.direct import DirectRing, HopFunction, walk
from pastryd.sim.latency import LatencyModel


def random_routes(
    ring: DirectRing,
    rng: Random,
    lookups: int,
    dead: Collection[int] = (),
    hop: HopFunction | None = None,
) -> list[list[int]]:
    """Route between random pairs of live nodes, as the paper did."""
    live = [index for index in range(len(ring)) if index not in dead]
    paths: list[list[int]] = []
    for _ in range(lookups):
        start, goal = rng.choice(live), rng.choice(live)
        path = walk(ring, start, ring.ids[goal], hop, dead)
        if path is None:
            raise ConfigError("a route went in circles")
        paths.append(path)
    return paths


def mean_hops(paths: Sequence[Sequence[int]]) -> float:
    """Return the average number of hops."""
    return sum(len(path) - 1 for path in paths) / len(paths)


def stretch_of(paths: Sequence[Sequence[int]], latency: LatencyModel) -> float:
    """Return the delay along all routes over the direct delay between their ends."""
    travelled = direct = 0.0
    for path in paths:
        if len(path) > 1:
            travelled += sum(latency.delay_s(a, b) for a, b in pairwise(path))
            direct += latency.delay_s(path[0], path[-1])
    return travelled / direct
