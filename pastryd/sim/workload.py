"""What clients do while things go wrong, and what they were told.

Puts and gets of single items, and routes, through random nodes; large blobs are made of these
(`large.py`). Owns what was acknowledged and what is under way; a result that can never be right
(other bytes) fails the run at once, all others are handed on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from pastryd.ids import Name, Position, rank
from pastryd.protocol.application import Application
from pastryd.protocol.items import name_of
from pastryd.protocol.search_state import Entries, Failure, FindResult, Object
from pastryd.sim.checkers import CheckError
from pastryd.sim.client import Client
from pastryd.sim.scenario import Scenario
from pastryd.sim.world import SimNode
from pastryd.state.handle import Handle
from pastryd.wire.messages import Hop

SIZES = (0, 1, 100, 1000, 5000, 40_000)

ThenPut = Callable[[bool], None]


@dataclass(slots=True)
class Get:
    """A get under way, and how it ended."""

    node: SimNode
    name: Name
    began: float
    result: FindResult | None = None
    ended: float = 0.0

    @property
    def brought_it(self) -> bool:
        """Whether it ended with the item; that its bytes are right was checked then."""
        return isinstance(self.result, Object | Entries)


class _Delivered(Application):
    """Tells which node a routed message reached."""

    name = "sim.probe"

    def __init__(self, node: SimNode, workload: "Workload") -> None:
        self._node = node
        self._workload = workload

    def deliver(
        self,
        key: Position,
        payload: bytes,
        source: Handle,
        trail: Sequence[Hop],
        now: float,
    ) -> None:
        """Note it."""
        self._workload.delivered(self._node, key, payload)


class Workload:
    """The clients of one scenario."""

    def __init__(
        self, scenario: Scenario, rng: Random, clients: float = 0.0, *, staying: bool = False
    ) -> None:
        """`clients`: which part of puts and gets clients ask for; the others begin on a node.

        `staying`: they are one client, which keeps its access node while that answers.
        """
        self._clients = clients
        self._staying = staying
        self._client: Client | None = None
        self._scenario = scenario
        self._rng = rng
        self.acknowledged: dict[Name, bytes] = {}
        self.key_of: dict[Name, Name] = {}
        """Of index entries: by what they are asked for."""
        self.on_acknowledged: Callable[[Name], None] = lambda name: None
        self.on_get: Callable[[Get], None] = lambda get: None
        self.on_wrong_delivery: Callable[[SimNode, SimNode], None] = lambda by, closer: None
        self.under_way: dict[int, tuple[SimNode, str, float]] = {}
        """Operations that have not ended: through whom, which, since when."""
        self.routes: dict[bytes, Position] = {}
        """Routed messages that have not arrived: payload to key."""
        self.counts: dict[str, int] = {}
        self._number = 0
        scenario.on_start.append(self._register)

    def _register(self, node: SimNode) -> None:
        node.core.register(_Delivered(node, self))

    def count(self, what: str) -> None:
        """Count something for the summary."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def _begin(self, node: SimNode, what: str) -> int:
        self._number += 1
        self.under_way[self._number] = (node, what, self._scenario.world.now)
        return self._number

    def _client_at(self, node: SimNode) -> Client | None:
        """Return a client to ask, at this node or staying elsewhere; None: the node itself."""
        if self._rng.random() >= self._clients:
            return None
        if not self._staying:
            return Client(self._scenario.world, node, self._rng)
        client = self._client
        if client is None or client.lost or not client.access.running:
            client = Client(self._scenario.world, node, self._rng, stays=True)
            self._client = client
        return client

    # -- operations --

    def put(self, node: SimNode, size: int | None = None) -> Name:
        """Put a blob of random bytes, which is one item, through a node."""
        value = self._rng.randbytes(self._rng.choice(SIZES) if size is None else size)
        name = name_of(value)
        self.put_item(node, name, value)
        return name

    def put_item(
        self, node: SimNode, name: Name, value: bytes, then: ThenPut = lambda full: None
    ) -> None:
        """Put an item through a node; `then` is told whether k copies were acknowledged."""
        scenario = self._scenario
        client = self._client_at(node)
        node = client.access if client else node
        number = self._begin(node, f"put {name.hex()[:8]}")
        replicas = scenario.world.config.replicas

        def ended(status: str, copies: int) -> None:
            self.under_way.pop(number, None)
            scenario.note(f"put {name.hex()[:8]} {status} {copies} copies")
            self.count("puts")
            full = copies >= replicas
            if full and name not in self.acknowledged:
                self.count("acknowledged")
                self.acknowledged[name] = value
                self.on_acknowledged(name)
            then(full)

        def put(now: float) -> None:
            node.core.items.blobs.put(
                name,
                len(value),
                value,
                None,
                lambda result, now: ended(result.status.name, result.copies),
                now,
            )

        if client is not None:
            client.put(name, value, ended)
        else:
            scenario.step(node, put)

    def get(self, node: SimNode, name: Name, then: Callable[[Get], None] = lambda get: None) -> Get:
        """Get an acknowledged item through a node, an index entry by the key that it is of."""
        scenario = self._scenario
        client = self._client_at(node)
        node = client.access if client else node
        get = Get(node, name, scenario.world.now)
        number = self._begin(node, f"get {name.hex()[:8]}")

        def ended(result: FindResult) -> None:
            self.under_way.pop(number, None)
            get.result, get.ended = result, scenario.world.now
            if get.brought_it and not _is_right(result, self.acknowledged[name]):
                raise CheckError("wrong bytes", f"{name.hex()[:8]} through node {node.number}")
            told = result.name if isinstance(result, Failure) else "ok"
            scenario.note(f"get {name.hex()[:8]} {told}")
            self.count(f"gets {told}")
            self.on_get(get)
            then(get)

        asked = self.key_of.get(name, name)
        if client is not None:
            client.get(asked, ended)
        else:
            find = node.core.items.blobs.find
            scenario.step(node, lambda now: find(asked, lambda result, now: ended(result), now))
        return get

    def route(self, node: SimNode) -> None:
        """Send a message towards a random key."""
        key = Position(self._rng.getrandbits(128))
        payload = self._rng.randbytes(12)
        self.routes[payload] = key
        self.count("routes")
        self._scenario.step(node, lambda now: node.core.route(key, payload, _Delivered.name, now))

    def delivered(self, node: SimNode, key: Position, payload: bytes) -> None:
        """A routed message is there: is it where it belongs, among those that answer?"""
        if self.routes.pop(payload, None) is None:
            self.count("routes delivered again")
            return
        own = rank(key, node.id)
        closer = [n for n in self._scenario.up if n.core.active and rank(key, n.id) < own]
        if closer:
            self.count("wrong deliveries")
            self.on_wrong_delivery(node, closer[0])
        else:
            self.count("right deliveries")


def _is_right(result: FindResult, value: bytes) -> bool:
    """Tell whether a get brought what was put; of index entries, one at least."""
    if isinstance(result, Entries):
        return value in result.records
    return isinstance(result, Object) and bytes(result.value) == value
