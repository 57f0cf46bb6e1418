"""Tables built directly from sorted ids beside those that the same nodes build by the protocol.

What the tables of rings too large to join one by one rest on. Needs numpy (the extra `sim`).
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from pastryd.config import Config
from pastryd.sim.latency import Matrix, Sphere
from pastryd.sim.results import Curve, Grid, Panel, Table
from pastryd.sim.scale import grow, settle
from pastryd.sim.vector import (
    NOBODY,
    DelayFunction,
    Floats,
    Ints,
    Routes,
    VectorRing,
    ids_at,
    ids_of,
    random_nodes,
)
from pastryd.sim.vector_delays import delays_of
from pastryd.sim.world import SimNode, World

COLUMNS = (
    "tables",
    "leaf sets that differ",
    "slots filled",
    "of which no node fits",
    "slots for which a node exists",
    "hops",
    "stretch",
)


def direct(
    seed: int = 1,
    matrix: Path | None = None,
    size: int = 10_000,
    lookups: int = 50_000,
    progress: Callable[[str], None] = lambda line: None,
) -> Table:
    """Compare leaf sets, filled slots, hops and stretch as soon as the ring has settled."""
    latency = Sphere(Random(seed)) if matrix is None else Matrix.read(matrix, Random(seed))
    world = World(seed, Config.wan(), latency, checked=False, keep_log=False)
    grow(world, size, progress)
    settled_s = settle(world, progress)
    nodes = sorted(world.nodes, key=lambda node: node.id)
    places = np.array([node.number for node in nodes], np.int32)
    of_places = delays_of(latency)

    def delays(a: Ints, b: Ints) -> Floats:
        return of_places(places[a], places[b])

    ring = VectorRing(ids_of([node.id for node in nodes]), seed, delays=delays)
    starts, goals = random_nodes(size, lookups, seed), random_nodes(size, lookups, seed + 1)
    table = Table(
        "direct",
        f"{size} nodes: tables built directly and by the protocol",
        seed,
        {
            "preset": "wan",
            "network": "sphere" if matrix is None else "real latencies",
            "lookups": lookups,
        },
        axes=("hops", "part of the routes"),
        grid=Grid(COLUMNS),
    )
    rows: list[Curve] = []
    comparison = _Comparison(table, rows, starts, goals, delays)
    built = ring.walk(starts, ids_at(ring.ids, goals))
    comparison.add("built directly", 0, _slots(ring), _slots(ring), built)
    label = "joined, not settled" if settled_s is None else "joined by the protocol"
    differing = _differing_leaf_sets(ring, nodes)
    walked = _walk(nodes, starts, goals, delays)
    comparison.add(label, differing, _slots_of(ring, nodes), _slots(ring), walked)
    table.panels = [Panel(("row", "slots filled per node"), rows)]
    table.notes.append(
        "Both tables are of the same ids. Directly built, a slot is filled if and only if the ring "
        "has a node for it, with the nearest of 32 sampled ones; the protocol's hold who was heard "
        "of. Routes of joined nodes are by their own routers and tables. "
        f"All ended at the root. Settled {settled_s or 0:g} virtual s after the last join."
    )
    return table


class _Comparison:
    """Adds one kind of tables after the other to the results."""

    def __init__(
        self, table: Table, rows: list[Curve], starts: Ints, goals: Ints, delays: DelayFunction
    ) -> None:
        self._table = table
        self._rows = rows
        self._goals = goals
        elsewhere = starts != goals
        self._direct_s = float(delays(starts[elsewhere], goals[elsewhere]).sum())

    def add(
        self, name: str, differing: int, filled: list[Ints], possible: list[Ints], routes: Routes
    ) -> None:
        """`filled`, `possible`: for each row of the tables, which slots; N x columns of 0 and 1."""
        assert (routes.ends == self._goals).all(), "a route did not end at the root"
        wrong = sum(int((f > p).sum()) for f, p in zip(filled, possible, strict=True))
        assert self._table.grid is not None
        self._table.grid.rows.append(
            (
                name,
                differing,
                sum(int(row.sum()) for row in filled),
                wrong,
                sum(int(row.sum()) for row in possible),
                float(routes.hops.mean()),
                float(routes.travelled_s.sum()) / self._direct_s,
            )
        )
        size = len(filled[0])
        counts = np.bincount(routes.hops) / len(routes.hops)
        self._table.curves.append(Curve(name, [(float(n), float(c)) for n, c in enumerate(counts)]))
        per_node = [(float(index), int(row.sum()) / size) for index, row in enumerate(filled)]
        self._rows.append(Curve(name, per_node))


def _slots(ring: VectorRing) -> list[Ints]:
    """Return which slots are filled, by row."""
    nodes = np.arange(ring.size, dtype=np.int32)
    return [(ring.row(index, nodes) != NOBODY).astype(np.int32) for index in range(len(ring.rows))]


def _slots_of(ring: VectorRing, nodes: list[SimNode]) -> list[Ints]:
    """Return which slots of running nodes are filled, by row; as many rows as the ring has."""
    filled = [np.zeros((ring.size, 1 << ring.bits), np.int32) for _ in ring.rows]
    for number, node in enumerate(nodes):
        table = node.core.context.table
        for handle in table.entries():
            row, column = table.slot_of(handle.id)
            filled[row][number, column] = 1
    return filled


def _differing_leaf_sets(ring: VectorRing, nodes: list[SimNode]) -> int:
    ids = [node.id for node in nodes]
    members = ring.leaf_sets(np.arange(ring.size, dtype=np.int32)).tolist()
    return sum(
        {handle.id for handle in node.core.context.leaf_set.members()}
        != {ids[member] for member in expected}
        for node, expected in zip(nodes, members, strict=True)
    )


def _walk(nodes: list[SimNode], starts: Ints, goals: Ints, delays: DelayFunction) -> Routes:
    """Route by the running nodes' routers."""
    number = {node.id: index for index, node in enumerate(nodes)}
    hops, ends = np.zeros(len(starts), np.int32), starts.copy()
    froms: list[int] = []
    tos: list[int] = []
    of_route: list[int] = []
    for route, goal in enumerate(goals):
        key = nodes[goal].id
        at = int(starts[route])
        while (hop := nodes[at].core.router.next_hop(key)) is not None:
            froms.append(at)
            at = number[hop.id]
            tos.append(at)
            of_route.append(route)
        ends[route] = at
    taken = delays(np.array(froms, np.int32), np.array(tos, np.int32))
    np.add.at(hops, of_route, 1)
    travelled_s = np.zeros(len(starts))
    np.add.at(travelled_s, of_route, taken)
    return Routes(hops, ends, travelled_s)
