"""How the simulator and the join scale: N nodes join by the real protocol, and settle.

Joins overlap: each second of virtual time a small part of the ring joins, so that time and idle
traffic grow with log N and not with N. Each size runs in a process of its own, whose memory and
CPU time are then those of that ring alone.
"""

import gc
import os
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from random import Random
from threading import Thread
from time import process_time

from pastryd.config import Config
from pastryd.ids import RING, Position
from pastryd.sim.large_pages import use_large_pages
from pastryd.sim.latency import Sphere
from pastryd.sim.oracle import RingOracle
from pastryd.sim.world import World

GROWTH_PER_S = 0.02
"""Part of the ring that joins within a second. A join takes some seconds (`wan`)."""
JOINS_PER_S_MIN = 5.0
"""While the ring is small."""
SETTLE_S_MAX = 900.0
ROUTES = 2_000
PROGRESS_S = 5.0
LARGE_PAGES_EVERY = 500
"""So many nodes, some 30 MB, are put into large pages at a time."""
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """What building one ring took. Seconds are of CPU, except `settle_s`: virtual."""

    nodes: int
    messages: int
    seconds: float
    bytes_per_node: float
    peak_bytes: int
    settle_s: float | None
    """From the last join until every leaf set was right; None: they were not within the limit."""
    hops: float
    wrong_routes: int
    virtual_s: float


def grow(world: World, nodes: int, progress: Progress) -> None:
    """Have nodes join through random active ones, until there are so many."""
    if not world.nodes:
        world.add()
    report = _Reporter(world, nodes, progress)
    while len(world.nodes) < nodes:
        world.run(1 / max(JOINS_PER_S_MIN, GROWTH_PER_S * len(world.nodes)))
        seed = world.rng.choice(world.nodes)
        while not seed.core.active:
            seed = world.rng.choice(world.nodes)
        world.add([seed])
        if not len(world.nodes) % LARGE_PAGES_EVERY:
            use_large_pages()
        report.now_and_then()


def settle(world: World, progress: Progress, limit_s: float = SETTLE_S_MAX) -> float | None:
    """Wait until all leaf sets are right; return how long that took, None: they are not."""
    oracle, began = RingOracle(world.live, world.config.leaf_set_size), world.now
    report = _Reporter(world, len(world.nodes), progress)
    while not oracle.settled():
        if world.now - began >= limit_s:
            return None
        world.run(1.0)
        report.now_and_then()
    return world.now - began


def routes(world: World, count: int, rng: Random) -> tuple[float, int]:
    """Route from random nodes to random keys by the nodes' tables: average hops, how many wrong."""
    oracle = RingOracle(world.live, world.config.leaf_set_size)
    by_id = {node.id: node for node in world.live}
    live = world.live
    hops = wrong = 0
    for _ in range(count):
        key, node = Position(rng.randrange(RING)), rng.choice(live)
        for _ in range(world.config.hops_max):
            hop = node.core.router.next_hop(key)
            if hop is None:
                break
            node = by_id[hop.id]
            hops += 1
        wrong += node is not oracle.root_of(key)
    return hops / count, wrong


def measure(nodes: int, seed: int, config: Config, progress: Progress) -> Scale:
    """Build one ring in this process, and say what that took."""
    before = resident_bytes()
    world = World(seed, config, Sphere(Random(seed)), checked=False, keep_log=False)
    started, began = process_time(), world.now
    grow(world, nodes, progress)
    settle_s = settle(world, progress)
    seconds, virtual_s = process_time() - started, world.now - began
    grown = resident_bytes() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    hops, wrong = routes(world, ROUTES, Random(seed))
    return Scale(
        nodes,
        world.datagrams,
        seconds,
        grown / nodes,
        peak,
        settle_s,
        hops,
        wrong,
        virtual_s,
    )


def measure_alone(nodes: int, seed: int, config: Config, progress: Progress) -> Scale:
    """Do the same in a fresh process, to which `progress` must be able to go (pickle)."""
    with ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent) as fresh:
        return fresh.submit(_measure_uncollected, nodes, seed, config, progress).result()


def _end_with_parent() -> None:
    """Have this process end when the one that wants its result has, however that ended."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _measure_uncollected(nodes: int, seed: int, config: Config, progress: Progress) -> Scale:
    """Measure in a process that ends with the world: looking for garbage in it takes minutes."""
    gc.disable()
    measured = measure(nodes, seed, config, progress)
    gc.freeze()
    return measured


def resident_bytes() -> int:
    """Return how much memory this process holds; where the system does not tell, its peak."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(statm.read_text("ascii").split()[1]) * resource.getpagesize()


class _Reporter:
    """Says how far a ring is."""

    def __init__(self, world: World, nodes: int, progress: Progress) -> None:
        self._world = world
        self._nodes = nodes
        self._progress = progress
        self._said_at = process_time()

    def now_and_then(self) -> None:
        """Say it, if the last time was `PROGRESS_S` of CPU ago."""
        if process_time() - self._said_at < PROGRESS_S:
            return
        self._said_at = process_time()
        nodes = self._world.nodes
        active = sum(node.core.active for node in nodes)
        self._progress(
            f"{len(nodes)} of {self._nodes} nodes started, {active} active, "
            f"{self._world.datagrams} messages, {self._said_at:.0f} s of CPU, "
            f"{resident_bytes() >> 20} MiB"
        )
