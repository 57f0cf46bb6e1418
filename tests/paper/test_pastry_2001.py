"""Rowstron & Druschel 2001, what concerns the tables alone: state per node, and route lengths."""

from math import ceil, log
from random import Random

from pastryd.ids import NodeId, Position
from pastryd.state.handle import Handle
from pastryd.state.leaf_set import LeafSet
from pastryd.state.neighborhood import NeighborhoodSet
from pastryd.state.routing import next_hop
from pastryd.state.routing_table import RoutingTable
from tests.support.builders import handle_at
from tests.support.oracle import true_root

NODES = 600


class Ring:
    """Every node's tables, filled from full knowledge as the paper's evaluation has them."""

    def __init__(self, nodes: int, seed: int) -> None:
        rng = Random(seed)
        self.handles = [handle_at(rng.getrandbits(128)) for _ in range(nodes)]
        self.ids = sorted(handle.id for handle in self.handles)
        self.tables: dict[NodeId, tuple[LeafSet, RoutingTable, NeighborhoodSet]] = {}
        for handle in self.handles:
            leaf_set, table = LeafSet(handle.id, 16), RoutingTable(handle.id)
            for other in self.handles:
                leaf_set.add(other)
                table.consider(other, None)
            self.tables[handle.id] = leaf_set, table, NeighborhoodSet(handle.id, 16)

    def route(self, start: NodeId, key: int, dead: frozenset[int] = frozenset()) -> list[NodeId]:
        """Return the nodes that a message visits, with fresh suspicions of all dead ones."""
        path = [start]
        while True:
            hop: Handle | None = next_hop(key, *self.tables[path[-1]], lambda i: i not in dead)
            if hop is None:
                return path
            path.append(hop.id)
            assert len(path) < 30, "a loop"


RING = Ring(NODES, seed=4)


def test_section_2_1_a_node_knows_fifteen_nodes_per_level_of_the_ring() -> None:
    """Sec. 2.1: about log_16 N rows are populated, with at most 15 entries each."""
    for _, table, _ in RING.tables.values():
        table.check_invariants()
        assert len(table.row(0)) == 15
        assert all(len(table.row(i)) <= 15 for i in table.row_numbers)
        assert len(table) <= 15 * ceil(log(NODES, 16))


def test_section_2_3_a_message_arrives_at_the_numerically_closest_node() -> None:
    """Sec. 2.3: with intact tables in at most ceil(log_16 N) steps, on average log_16 N."""
    rng = Random(5)
    hops = []
    for _ in range(2_000):
        key, start = rng.getrandbits(128), rng.choice(RING.ids)
        path = RING.route(Position(start), key)
        assert path[-1] == true_root(key, RING.ids)
        hops.append(len(path) - 1)
    assert max(hops) <= ceil(log(NODES, 16)) + 1  # the last step may be one within the leaf set
    assert sum(hops) / len(hops) < log(NODES, 16)


def test_section_2_3_routes_go_around_dead_nodes_to_the_closest_live_one() -> None:
    """Sec. 2.3 and 4.4: a tenth of the nodes dead and nothing repaired, it still arrives."""
    rng = Random(6)
    dead = frozenset(rng.sample(RING.ids, NODES // 10))
    live = [node_id for node_id in RING.ids if node_id not in dead]
    hops = []
    for _ in range(1_000):
        key, start = rng.getrandbits(128), rng.choice(live)
        path = RING.route(Position(start), key, dead)
        assert path[-1] == true_root(key, live)
        hops.append(len(path) - 1)
    assert sum(hops) / len(hops) < log(NODES, 16) + 0.5
