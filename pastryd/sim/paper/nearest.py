"""Which of the k holders of an item answers a get (Rowstron & Druschel 2001, sec. 4.4).

Real puts and gets of running nodes; beside them the paper's own method, routes that end at the
first holder which they meet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from pastryd.config import Config
from pastryd.errors import ConfigError
from pastryd.ids import Name, position_of
from pastryd.protocol.items import name_of
from pastryd.protocol.put_state import PutResult
from pastryd.protocol.search_state import FindResult, Object
from pastryd.sim.direct import DirectRing, random_key, settled_world, walk
from pastryd.sim.latency import LatencyModel, Matrix, Plane, Sphere
from pastryd.sim.oracle import RingOracle
from pastryd.sim.results import Figure, Grid, Panel, Table
from pastryd.sim.scale import grow, settle
from pastryd.sim.world import SimNode, World
from pastryd.state.handle import Endpoint
from pastryd.wire.codec import decode
from pastryd.wire.messages import Found

REPLICAS = 5
NEAREST, TWO_NEAREST = "the nearest", "one of the two nearest"
PUBLISHED = {NEAREST: 0.76, TWO_NEAREST: 0.92}
"""Of lookups reached the nearest, one of the two nearest, of 5 holders among 10,000 nodes (b = 3):
the upper ends of 0.68 to 0.76 and 0.87 to 0.92."""
OPERATIONS_PER_S = 200.0
COLUMNS = ("what", NEAREST, TWO_NEAREST, "delay to who answered / to the nearest", "answered")

Model = Callable[[Random], LatencyModel]


@dataclass(slots=True)
class Reached:
    """How near the holders were that lookups reached: 0 is the nearest of all."""

    ranks: list[int] = field(default_factory=list)
    taken_s: float = 0.0
    nearest_s: float = 0.0
    asked: int = 0

    def add(self, reached: int, holders: Sequence[int], origin: int, latency: LatencyModel) -> None:
        """Count one lookup; all are numbers of places."""
        delays = sorted(latency.delay_s(origin, holder) for holder in holders)
        taken_s = latency.delay_s(origin, reached)
        self.ranks.append(delays.index(taken_s))
        self.taken_s += taken_s
        self.nearest_s += delays[0]

    def within(self, count: int) -> float:
        """Return the part that reached one of the `count` nearest holders."""
        return sum(rank < count for rank in self.ranks) / len(self.ranks)


def nearest(
    seed: int = 1,
    matrix: Path | None = None,
    size: int = 10_000,
    joined: int = 1_000,
    items: int = 2_000,
    routed: int = 20_000,
) -> Table:
    """Gets in a ring that joined by the protocol and in one built directly; and routes alone."""
    models: dict[str, Model] = {"plane": Plane, "sphere": Sphere}
    if matrix is not None:
        models["real latencies"] = lambda rng: Matrix.read(matrix, rng)
    table = Table(
        "nearest",
        f"Which of the {REPLICAS} holders of an item is reached",
        seed,
        {"leaf set": 16, "preset": "wan", "items": items, "routes": routed},
        grid=Grid(COLUMNS),
    )
    labels: dict[str, dict[str, str]] = {NEAREST: {}, TWO_NEAREST: {}}
    config = Config.wan(replicas=REPLICAS)
    for name, model in models.items():
        for bits in (2, 4):
            ring = DirectRing(size, seed, replace(config, bits_per_digit=bits), model(Random(seed)))
            reached = _routes(ring, Random(seed), routed)
            _add(table, labels, f"routes alone, {size} nodes, {name}, b = {bits}", reached)
        ring = DirectRing(size, seed, config, model(Random(seed)))
        gets = _Gets(settled_world(ring, seed, model(Random(seed))), items)
        _add(table, labels, f"gets, {size} nodes, {name}", gets.run())
    name, model = list(models.items())[-1]
    world = World(seed, config, model(Random(seed)), checked=False, keep_log=False)
    grow(world, joined, lambda line: None)
    settle(world, lambda line: None)
    reached = _Gets(world, items).run()
    _add(table, labels, f"gets, {joined} nodes joined by the protocol, {name}", reached)
    table.panels = [
        Panel(("part of the lookups", ""), bars=bars, title=f"reached {which}")
        for which, bars in labels.items()
    ]
    table.notes.append(
        "Routes alone end at the first holder that they meet, as in the paper, but its b = 3 does "
        "not divide 128 bits. Gets are the nodes' own, through random nodes that hold no copy. "
        "Published: the upper ends of 68 to 76 % and 87 to 92 %."
    )
    return table


def _add(table: Table, labels: dict[str, dict[str, str]], name: str, reached: Reached) -> None:
    """Add what was reached to the table, and the labels of its figures for a picture."""
    assert table.grid is not None
    parts = {NEAREST: reached.within(1), TWO_NEAREST: reached.within(2)}
    table.grid.rows.append(
        (
            name,
            *parts.values(),
            reached.taken_s / reached.nearest_s,
            f"{len(reached.ranks)} of {reached.asked}",
        )
    )
    for which, part in parts.items():
        figure = Figure(f"{name}: {which}", part, PUBLISHED[which])
        table.figures.append(figure)
        labels[which][name] = figure.label


def _routes(ring: DirectRing, rng: Random, count: int) -> Reached:
    """Route to random keys; each route ends at the first of the k closest that it meets."""
    assert ring.latency is not None
    found = Reached()
    while found.asked < count:
        key, start = random_key(rng), rng.randrange(len(ring))
        root = ring.root_of(key)
        closest = ring.tables(root)[0].replica_set(key, REPLICAS)
        holders = [root if handle is None else ring.index_of[handle.id] for handle in closest]
        if start in holders:
            continue
        path = walk(ring, start, key)
        if path is None:
            raise ConfigError("a route went in circles")
        found.asked += 1
        met = next(index for index in path if index in holders)
        found.add(met, holders, start, ring.latency)
    return found


class _Gets:
    """Puts items, then gets each once through a node that does not hold it."""

    def __init__(self, world: World, items: int) -> None:
        self._world = world
        self._items = items
        self._rng = Random(world.seed)
        self._reached = Reached()
        self._answers: dict[Endpoint, list[tuple[float, int]]] = {}
        """To those who are getting: when a holder's answer arrives, and from which place."""

    def run(self) -> Reached:
        """Do it all; return which holders answered."""
        world = self._world
        names: list[Name] = []
        for _ in range(self._items):
            names.append(self._put(self._rng.randbytes(100)))
            world.run(1 / OPERATIONS_PER_S)
        world.run(30.0)
        world.on_datagram = self._on_datagram
        oracle = RingOracle(world.live, world.config.leaf_set_size)
        for name in names:
            self._get(name, oracle.closest(position_of(name), REPLICAS))
            world.run(1 / OPERATIONS_PER_S)
        world.run(30.0)
        return self._reached

    def _put(self, value: bytes) -> Name:
        name, node = name_of(value), self._rng.choice(self._world.nodes)

        def ended(result: PutResult, now: float) -> None:
            assert result.copies >= REPLICAS, "a put of a settled ring failed"

        blobs, now = node.core.items.blobs, self._world.now
        self._world.step(node, lambda: blobs.put(name, len(value), value, None, ended, now))
        return name

    def _get(self, name: Name, holders: list[SimNode]) -> None:
        origin = self._rng.choice(self._world.nodes)
        while origin in holders or origin.endpoint in self._answers:
            origin = self._rng.choice(self._world.nodes)
        answers = self._answers[origin.endpoint] = []
        self._reached.asked += 1
        places = [self._world.place_of(holder.endpoint) for holder in holders]

        def ended(result: FindResult, now: float) -> None:
            del self._answers[origin.endpoint]
            if not isinstance(result, Object) or not answers:
                return
            place = min(answers)[1]
            if place in places:  # else a cache on the way
                latency = self._world.links.latency
                self._reached.add(place, places, self._world.place_of(origin.endpoint), latency)

        blobs, now = origin.core.items.blobs, self._world.now
        self._world.step(origin, lambda: blobs.find(name, ended, now))

    def _on_datagram(self, place: int, endpoint: Endpoint, data: bytes) -> None:
        answers = self._answers.get(endpoint)
        if answers is None or not isinstance(decode(data), Found):
            return
        delay_s = self._world.links.latency.delay_s(place, self._world.place_of(endpoint))
        answers.append((self._world.now + delay_s, place))
