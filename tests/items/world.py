"""A virtual ring with items in it, and the oracle that says where every copy ought to be."""

from collections.abc import Iterable, Sequence
from random import Random

from pastryd.config import Config
from pastryd.ids import Name, position_of
from pastryd.protocol.items import name_of
from pastryd.protocol.put_state import PutResult
from pastryd.protocol.search_state import FindResult, Object
from pastryd.wire.verbs import AnswerStatus
from tests.support.network import VirtualNetwork, VirtualNode
from tests.support.oracle import replica_ids

SLOW_S = 60.0


class Search:
    """A get under way, and how it ended."""

    def __init__(self, name: Name, node: VirtualNode, began: float) -> None:
        self.name = name
        self.node = node
        self.began = began
        self.ended: float | None = None
        self.result: FindResult | None = None

    @property
    def took_s(self) -> float:
        """How long it took."""
        assert self.ended is not None
        return self.ended - self.began


class World:
    """Nodes, the items that were acknowledged, and what is true of them."""

    def __init__(self, size: int, seed: int = 1, config: Config | None = None) -> None:
        self.network = VirtualNetwork(seed, config)
        self.network.ring(size)
        self.values: dict[Name, bytes] = {}
        self.choose = Random(seed)

    @property
    def live(self) -> list[VirtualNode]:
        """The nodes that run."""
        return self.network.live

    @property
    def copies(self) -> int:
        """How many copies there should be: k, or one for each node."""
        return min(self.network.config.replicas, len(self.live))

    # -- commands --

    def put(self, node: VirtualNode, value: bytes, name: Name | None = None) -> PutResult:
        """Put an item, an object if it has no other name, and wait for the end."""
        results: list[PutResult] = []
        name = name or name_of(value)
        network = self.network

        def ended(result: PutResult, now: float) -> None:
            results.append(result)

        blobs = node.core.items.blobs
        network.step(node, lambda: blobs.put(name, len(value), value, None, ended, network.now))
        network.run_until(lambda: bool(results), SLOW_S, 0.005)
        if results[0].status is AnswerStatus.OK:
            self.values[name] = value
        return results[0]

    def fill(self, count: int, size: int = 300) -> list[Name]:
        """Put random items through random nodes; every put must end well."""
        names = []
        for _ in range(count):
            value = self.choose.randbytes(size)
            result = self.put(self.choose.choice(self.live), value)
            # More, when old copies lay near and the new ones were not known to be there.
            assert result.status is AnswerStatus.OK and result.copies >= self.copies
            names.append(name_of(value))
        return names

    def fill_through(self, node: VirtualNode, count: int, size: int = 300) -> None:
        """Put random items through one node; right after a fault fewer copies may do."""
        for _ in range(count):
            assert self.put(node, self.choose.randbytes(size)).status is AnswerStatus.OK

    def start_get(self, node: VirtualNode, name: Name) -> Search:
        """Begin to get an item."""
        network = self.network
        search = Search(name, node, network.now)

        def ended(result: FindResult, now: float) -> None:
            search.ended, search.result = now, result

        network.step(node, lambda: node.core.items.blobs.find(name, ended, network.now))
        return search

    def get(self, node: VirtualNode, name: Name) -> Search:
        """Get an item and wait for the end."""
        search = self.start_get(node, name)
        self.network.run_until(lambda: search.ended is not None, SLOW_S, 0.005)
        return search

    def assert_right(self, search: Search) -> None:
        """A get must have brought the very bytes that were put."""
        assert isinstance(search.result, Object), (search.result, search.took_s)
        assert search.result.value == self.values[search.name]

    def assert_readable(self, nodes: Iterable[VirtualNode] | None = None) -> float:
        """Everything can be got through these nodes (all); return how long the slowest took."""
        slowest = 0.0
        for node in nodes or self.live:
            searches = [self.start_get(node, name) for name in self.values]
            self.network.run_until(lambda s=searches: all(i.ended for i in s), SLOW_S)  # type: ignore[misc]
            for search in searches:
                self.assert_right(search)
                slowest = max(slowest, search.took_s)
        return slowest

    # -- the oracle --

    def replicas(self, name: Name) -> list[VirtualNode]:
        """Return the nodes that ought to hold an item, root first."""
        by_id = {int(node.core.identity.id): node for node in self.live}
        return [by_id[i] for i in replica_ids(position_of(name), by_id, self.copies)]

    def holders(self, name: Name) -> list[VirtualNode]:
        """Return the live nodes that hold an item, whole and right."""
        return [node for node in self.live if node.disk.items.get(name) == self.values[name]]

    def is_replicated(self) -> bool:
        """Every item is on the k closest live nodes."""
        return not any(
            node.disk.items.get(name) != self.values[name]
            for name in self.values
            for node in self.replicas(name)
        )

    def is_tidy(self) -> bool:
        """And nowhere else."""
        return self.is_replicated() and all(
            len(self.holders(name)) == self.copies for name in self.values
        )

    def repair(self, within_s: float) -> float:
        """Run until every item is where it belongs; return how long it took."""
        began = self.network.now
        self.network.run_until(self.is_replicated, within_s)
        return self.network.now - began

    def crash(self, nodes: Sequence[VirtualNode]) -> None:
        """Kill -9 several at once."""
        for node in nodes:
            self.network.crash(node)

    def sent_per_node_and_s(self, seconds: float) -> float:
        """Return how many datagrams a node sends per second, measured from now on."""
        before = sum(node.sent for node in self.live)
        self.network.run(seconds)
        return (sum(node.sent for node in self.live) - before) / seconds / len(self.live)
