"""Rings built directly from sorted ids: the tables that the protocol would settle on.

For sizes at which only the tables matter, and for experiments that begin with a settled ring.
`DirectRing` makes plain leaf sets and routing tables, each when it is first asked for;
`settled_world` puts them into running `PastryNode`s. Routing is the core's own `next_hop`.
A slot goes to the nearest of a bounded sample of those that fit in it (Pastry 2001, sec. 2.5).
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from random import Random

from pastryd.config import Config
from pastryd.ids import ID_BITS, RING, NodeId, rank
from pastryd.sim.latency import LatencyModel
from pastryd.sim.world import EPOCH_S, SimNode, World
from pastryd.state.handle import Handle
from pastryd.state.leaf_set import LeafSet
from pastryd.state.neighborhood import NeighborhoodSet
from pastryd.state.routing import next_hop
from pastryd.state.routing_table import RoutingTable

CANDIDATES = 32
"""Of so many nodes that fit in a slot the nearest gets it; 1: any node, distance is nothing."""

HopFunction = Callable[[int, int, Collection[int]], Handle | None]
"""(node index, key, excluded ids) -> next hop."""


def endpoint_of(index: int) -> tuple[str, int]:
    """Return an address for node number `index`."""
    return (f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}", 4160)


class DirectRing:
    """`size` nodes with random ids, numbered in the order of their ids."""

    def __init__(
        self,
        size: int,
        seed: int,
        config: Config | None = None,
        latency: LatencyModel | None = None,
        candidates: int = CANDIDATES,
        leaf_set_size: int | None = None,
    ) -> None:
        """Without a `latency` any node that fits in a slot is as good as another.

        `leaf_set_size`: of plain tables it may be larger than a running node's.
        """
        self.config = config or Config()
        self.latency = latency
        self._leaf_set_size = leaf_set_size or self.config.leaf_set_size
        self._seed = seed
        self._candidates = candidates if latency is not None else 1
        rng = Random(seed)
        keys = [rng.randbytes(32) for _ in range(size)]
        numbered = [Handle(key, *endpoint_of(i), int(EPOCH_S * 1000)) for i, key in enumerate(keys)]
        self.handles = sorted(numbered, key=lambda handle: handle.id)
        self.ids: list[NodeId] = [handle.id for handle in self.handles]
        self.index_of = {node_id: index for index, node_id in enumerate(self.ids)}
        self._tables: dict[int, tuple[LeafSet, RoutingTable, NeighborhoodSet]] = {}
        if latency is not None:
            for _ in range(size):
                latency.place()

    def __len__(self) -> int:
        return len(self.ids)

    def tables(self, index: int) -> tuple[LeafSet, RoutingTable, NeighborhoodSet]:
        """Return the leaf set, routing table and (empty) neighbourhood set of a node."""
        known = self._tables.get(index)
        if known is None:
            empty = NeighborhoodSet(self.ids[index], 0)
            known = self._tables[index] = (self._leaf_set(index), self._table(index), empty)
        return known

    def root_of(self, key: int, dead: Collection[int] = ()) -> int:
        """Return the index of the live node closest to a key."""
        size = len(self.ids)
        ahead = bisect_left(self.ids, key)
        back = ahead - 1
        while ahead % size in dead:
            ahead += 1
        while back % size in dead:
            back -= 1
        return min(ahead % size, back % size, key=lambda i: rank(key, self.ids[i]))

    def hop(self, index: int, key: int, excluded: Collection[int]) -> Handle | None:
        """Return the next hop from a node, as the core decides it."""
        leaf_set, table, neighborhood = self.tables(index)
        return next_hop(key, leaf_set, table, neighborhood, _anybody, excluded)

    def _leaf_set(self, index: int) -> LeafSet:
        leaf_set = LeafSet(self.ids[index], self._leaf_set_size)
        size, half = len(self.ids), self._leaf_set_size // 2
        for offset in range(1, half + 1):
            for neighbour in ((index + offset) % size, (index - offset) % size):
                if neighbour != index:
                    leaf_set.add(self.handles[neighbour])
        return leaf_set

    def _table(self, index: int) -> RoutingTable:
        """Fill every slot for which the ring has a node: its row by row narrower range of ids."""
        bits = self.config.bits_per_digit
        own_id, ids = self.ids[index], self.ids
        table = RoutingTable(own_id, bits)
        rng = Random(self._seed * 1_000_003 + index)
        low, high = 0, len(ids)
        shift = ID_BITS
        while high - low > 1:
            shift -= bits
            base = own_id >> (shift + bits) << (shift + bits)
            own_digit = (own_id >> shift) & ((1 << bits) - 1)
            own_range = (low, high)
            start = low
            for column in range(1 << bits):
                end = bisect_left(ids, base + ((column + 1) << shift), start, high)
                if column == own_digit:
                    own_range = (start, end)
                elif end > start:
                    self._fill(table, index, start, end, rng)
                start = end
            low, high = own_range
        return table

    def _fill(self, table: RoutingTable, index: int, start: int, end: int, rng: Random) -> None:
        if end - start <= self._candidates:
            chosen: Sequence[int] = range(start, end)
        elif self._candidates == 1:
            chosen = (start + int((end - start) * rng.random()),)
        else:
            chosen = rng.sample(range(start, end), self._candidates)
        latency = self.latency
        if latency is None:
            table.consider(self.handles[chosen[0]], None)
            return
        delay_s, best = min([(latency.delay_s(index, other), other) for other in chosen])
        table.consider(self.handles[best], 2 * delay_s)


def _anybody(node_id: NodeId) -> bool:
    return True


def walk(
    ring: DirectRing,
    start: int,
    key: int,
    hop: HopFunction | None = None,
    dead: Collection[int] = (),
) -> list[int] | None:
    """Route from node `start` to the root of `key`; return the nodes on the way, both included.

    A dead next hop is found silent and passed by, as the router does it. None: it went too far.
    """
    hop = hop or ring.hop
    path = [start]
    while len(path) <= ring.config.hops_max:
        excluded: list[NodeId] = []
        chosen = hop(path[-1], key, excluded)
        while chosen is not None and ring.index_of[chosen.id] in dead:
            excluded.append(chosen.id)
            chosen = hop(path[-1], key, excluded)
        if chosen is None:
            return path
        path.append(ring.index_of[chosen.id])
    return None


def settled_world(ring: DirectRing, seed: int, latency: LatencyModel) -> World:
    """Return a world whose nodes run, in the order of the ring's numbers, with its tables."""
    world = World(seed, ring.config, latency, checked=False, keep_log=False)
    for handle in ring.handles:
        world.add(public_key=handle.public_key, endpoint=handle.endpoint)
    for index, node in enumerate(world.nodes):
        _install(ring, index, node, world.now)
    return world


def _install(ring: DirectRing, index: int, node: SimNode, now: float) -> None:
    """Give a node its tables, and what it would believe of those in them."""
    context = node.core.context
    context.identity = context.identity.at(node.endpoint)
    rng = Random(index)
    leaf_set, table, _ = ring.tables(index)
    for handle in leaf_set.members():
        context.leaf_set.add(handle)
    for handle in table.entries():
        context.table.consider(handle, table.rtt_of(handle.id))
    for handle in (*leaf_set.members(), *table.entries()):
        peer = context.peers.of(handle)
        other = ring.index_of[handle.id]
        peer.unproven = None
        peer.active = True
        # Who is probed in turn was heard from at any time within a turn.
        in_turn = 0.0 if handle.id in context.leaf_set else ring.config.table_probe_max_s
        peer.last_heard = now - in_turn * rng.random()
        peer.holds_items = False
        if ring.latency is not None and peer.srtt_s is None:
            peer.sample_rtt(2 * ring.latency.delay_s(index, other))


def random_key(rng: Random) -> int:
    """Return a key, all equally likely."""
    return rng.randrange(RING)
