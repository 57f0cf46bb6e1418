"""The world: unmodified `PastryNode`s, one virtual clock, one seed (DESIGN sec. 9).

Each node is driven exactly as the daemon's driver drives it: a step, then a drain of its outbox,
then one timer. Real encoded bytes travel; sealing is left out, since what arrives here is from whom
it says. Everything follows from the seed: the same seed gives the same `trace`, in any process.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random
from struct import Struct

from pastryd.config import Config
from pastryd.ids import NodeId
from pastryd.node import PastryNode
from pastryd.protocol.outbox import Completion, Logged, StoreRequest, Superseded
from pastryd.sim.disk import VirtualDisk
from pastryd.sim.events import Events
from pastryd.sim.latency import Constant, LatencyModel
from pastryd.sim.links import Links
from pastryd.sim.oracle import RingOracle
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.handles import intern_handle, keep_handles

EPOCH_S = 1000.0
"""When worlds begin; incarnations are milliseconds of this clock."""
STALLED_INBOX_MAX = 256
"""Datagrams that a socket buffer keeps while nobody reads it."""
NEVER = float("inf")
UNTRACED_BYTES_MAX = 32_768
"""Hashing pays in larger pieces."""
_TRACED = Struct("<dII")


class SimNode:
    """A node and what surrounds it: place, disk, clock, whether it runs."""

    __slots__ = (
        "_identity",
        "_told",
        "clock_rate",
        "core",
        "disk",
        "endpoint",
        "id",
        "inbox",
        "logged",
        "number",
        "place",
        "received",
        "results",
        "running",
        "sent",
        "stalled_since",
        "started_at",
        "superseded_by",
        "timer_at",
    )

    def __init__(
        self,
        number: int,
        core: PastryNode,
        endpoint: Endpoint,
        place: int,
        disk: VirtualDisk,
        now: float,
    ) -> None:
        self.number = number
        self.place = place
        """Where in the network (`World.place_of`)."""
        self.core = core
        self.id: NodeId = core.identity.id
        self.endpoint = endpoint
        self.disk = disk
        self.started_at = now
        self.clock_rate = 1.0
        """How fast its clock runs; set before anything is scheduled."""
        self.running = True
        self.stalled_since: float | None = None
        self.inbox: list[tuple[bytes, Handle, Handle | None]] = []
        self.timer_at = NEVER
        self.logged: list[tuple[float, Logged]] = []
        self.results: dict[int, object] = {}
        self.superseded_by: Handle | None = None
        """Who made it stop: a later life of it that runs elsewhere."""
        self.sent = 0
        self.received = 0
        self._identity: Handle | None = None
        self._told: Handle | None = None

    @property
    def handle(self) -> Handle:
        """Who it is and where; the same object until its identity changes."""
        identity = self.core.context.identity
        if identity is not self._identity or self._told is None:
            self._identity = identity
            same = identity.endpoint == self.endpoint
            self._told = intern_handle(identity if same else identity.at(self.endpoint))
        return self._told

    @property
    def hung_since(self) -> float | None:
        """When it was stopped, if it is."""
        return self.stalled_since

    def local(self, now: float) -> float:
        """Return what its own clock shows."""
        if self.clock_rate == 1.0:
            return now
        return self.started_at + (now - self.started_at) * self.clock_rate

    def world_time(self, local: float) -> float:
        """Return when its clock will show `local`."""
        if self.clock_rate == 1.0:
            return local
        # Rounded up: woken a hair too early, a node would ask to be woken again at the same time.
        return self.started_at + (local - self.started_at) / self.clock_rate + 1e-9


class World:
    """Many nodes under one clock."""

    def __init__(
        self,
        seed: int = 1,
        config: Config | None = None,
        latency: LatencyModel | None = None,
        *,
        checked: bool = True,
        keep_log: bool = True,
        write_s: float = 0.001,
    ) -> None:
        """`checked`: assert invariants after each step. `keep_log`: keep the nodes' events."""
        self.seed = seed
        self.rng = Random(seed)
        self.config = config or Config.lan()
        self.links = Links(latency or Constant(0.001), Random(self.rng.getrandbits(64)))
        self._node_rng = Random(self.rng.getrandbits(64))
        """Shared by all nodes: the order of events is given, and one takes 2.5 KB."""
        self.checked = checked
        self.keep_log = keep_log
        self.write_s = write_s
        self.now = EPOCH_S
        self.nodes: list[SimNode] = []
        self.by_endpoint: dict[Endpoint, SimNode] = {}
        self.others: dict[Endpoint, Callable[[bytes, Handle, float], None]] = {}
        """Who is no node of ours, clients for example: called with what arrives there."""
        self.on_datagram: Callable[[int, Endpoint, bytes], None] | None = None
        """Told of each datagram sent: from which place, to where, what."""
        self.on_logged: Callable[[SimNode, Logged], None] | None = None
        """Told of each event of a node."""
        self.datagrams = 0
        self.bytes_sent = 0
        self._added = 0
        self._places: dict[Endpoint, int] = {}
        self._placed = 0
        self._events = Events()
        self._trace = blake2b(digest_size=8)
        self._untraced = bytearray()

    @property
    def trace(self) -> str:
        """A hash over all that was sent so far: when, by whom, to whom, what."""
        self._trace.update(self._untraced)
        self._untraced.clear()
        return self._trace.hexdigest()

    # -- nodes --

    def add(
        self,
        seeds: Sequence[SimNode] = (),
        *,
        disk: VirtualDisk | None = None,
        public_key: bytes | None = None,
        endpoint: Endpoint | None = None,
        start: bool = True,
        clock_rate: float = 1.0,
    ) -> SimNode:
        """Start a node that joins through the seeds (none: a new ring)."""
        number = self._added
        self._added += 1
        if endpoint is None:
            host = number + 1
            endpoint = (f"10.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}", 4160)
        identity = Handle(public_key or self.rng.randbytes(32), "", 0, int(self.now * 1000))
        disk = disk or VirtualDisk(self.write_s)
        core = PastryNode(identity, self.config, self._node_rng, sorted(disk.items))
        node = SimNode(number, core, endpoint, self.place_of(endpoint), disk, self.now)
        node.clock_rate = clock_rate
        self.nodes.append(node)
        keep_handles(len(self.nodes))
        self.by_endpoint[endpoint] = node
        if start:
            core.start([s.endpoint for s in seeds], self.now)
            self._drain(node)
        return node

    def ring(self, size: int, settle_s: float = 10.0, gap_s: float = 0.05) -> list[SimNode]:
        """Build a ring of `size` nodes, joining one after the other, and let it settle."""
        nodes = [self.add()]
        for _ in range(size - 1):
            nodes.append(self.add([self.rng.choice(nodes)]))
            self.run(gap_s)
        self.run(settle_s)
        return nodes

    @property
    def live(self) -> list[SimNode]:
        """The nodes that run, stalled ones included."""
        return [n for n in self.nodes if n.running]

    def crash(self, node: SimNode) -> None:
        """Kill -9: it says nothing more; its disk stays."""
        node.running = False
        if self.by_endpoint.get(node.endpoint) is node:
            del self.by_endpoint[node.endpoint]

    def forget(self, node: SimNode) -> None:
        """Let go of a node that has died: under long churn there are more of them than living."""
        assert not node.running
        self.nodes.remove(node)

    def restart(self, node: SimNode, seeds: Sequence[SimNode]) -> SimNode:
        """Start it again with its old identity and disk."""
        self.crash(node)
        return self.add(
            seeds,
            disk=node.disk,
            public_key=node.core.identity.public_key,
            endpoint=node.endpoint,
            clock_rate=node.clock_rate,
        )

    def leave(self, node: SimNode) -> None:
        """SIGTERM: it hands over and goes when that is done."""
        self.step(node, lambda: node.core.leave(node.local(self.now), lambda _: self.crash(node)))

    def hang(self, node: SimNode) -> None:
        """SIGSTOP: datagrams queue up, nobody answers."""
        node.stalled_since = self.now

    def resume(self, node: SimNode) -> None:
        """SIGCONT: the stall is noticed before anything else is."""
        if not node.running or node.stalled_since is None:
            return
        lag_s = (self.now - node.stalled_since) * node.clock_rate
        node.stalled_since = None
        node.core.report_stall(lag_s, node.local(self.now))
        self._drain(node)
        inbox, node.inbox = node.inbox, []
        for data, sender, wanted in inbox:
            self._arrive(node, node.endpoint, data, sender, wanted)

    def split(self, *sides: Sequence[SimNode]) -> None:
        """Let only nodes of the same side hear each other; no side given: heal."""
        self.links.split([[self.place_of(node.endpoint) for node in side] for side in sides])

    def cut(self, sender: SimNode, receiver: SimNode) -> None:
        """Lose everything that goes one way between two nodes."""
        self.links.cuts.add((self.place_of(sender.endpoint), self.place_of(receiver.endpoint)))

    def place_of(self, endpoint: Endpoint) -> int:
        """Return the number of a place in the network; who restarts there is as near as before."""
        place = self._places.get(endpoint)
        if place is None:
            self._places[endpoint] = place = self._placed
            self._placed += 1
            self.links.latency.place()
        return place

    def place_beside(self, endpoint: Endpoint, other: Endpoint) -> None:
        """Put who is no node of ours where a node is: on the same machine, as links see it."""
        self._places[endpoint] = self.place_of(other)

    # -- time --

    def run(self, seconds: float) -> None:
        """Advance the clock."""
        end = self.now + seconds
        due = self._events.due(end)
        while due:
            while due and due[-1][0] <= end:
                self.now, _, action, arguments = due.pop()
                action(*arguments)
            if due:
                break
            due = self._events.due(end)
        self.now = end

    def run_until(
        self, condition: Callable[[], bool], limit_s: float, step_s: float = 0.05
    ) -> None:
        """Advance until a condition holds; it must within `limit_s`."""
        end = self.now + limit_s
        while not condition():
            assert self.now < end, f"not within {limit_s} s"
            self.run(step_s)

    def at(self, when: float, action: Callable[..., None], *arguments: object) -> None:
        """Have something done at a time."""
        self._events.add(when, action, arguments)

    def step(self, node: SimNode, action: Callable[[], object]) -> object:
        """Do something with a node's core now, and carry out what it wants done."""
        result = action()
        self._drain(node)
        return result

    # -- the drain, as in the driver --

    def _drain(self, node: SimNode) -> None:
        context = node.core.context
        outbox = context.outbox
        if outbox.datagrams:
            sender, transmit = node.handle, self.transmit
            node.sent += len(outbox.datagrams)
            for data, destination in outbox.datagrams:
                transmit(data, sender, destination)
            outbox.datagrams.clear()
        if outbox.store:
            for request in outbox.store:
                self.at(node.disk.done_at(request, self.now), self._perform, node, request)
            outbox.store.clear()
        if outbox.events:
            for event in outbox.events:
                if type(event) is Completion:
                    node.results[event.request_id] = event.result
                elif type(event) is Superseded:
                    node.superseded_by = event.by
                    self.crash(node)
                elif self.keep_log:
                    assert type(event) is Logged
                    node.logged.append((self.now, event))
                    if self.on_logged is not None:
                        self.on_logged(node, event)
            outbox.events.clear()
        if self.checked:
            node.core.check_invariants()
        due = context.deadlines.earliest
        if node.clock_rate != 1.0:
            due = node.world_time(due)
        if due < node.timer_at:
            node.timer_at = due
            self._events.add(max(due, self.now), self._fire, (node, due))

    def _fire(self, node: SimNode, due: float) -> None:
        if not node.running or node.timer_at != due:
            return
        if node.stalled_since is not None:
            node.timer_at = due = self.now + 0.05
            self.at(due, self._fire, node, due)
            return
        node.timer_at = NEVER
        node.core.handle_timer(node.local(self.now))
        self._drain(node)

    def _perform(self, node: SimNode, request: StoreRequest) -> None:
        if node.stalled_since is not None:
            self.at(self.now + 0.05, self._perform, node, request)
        elif node.running:
            node.core.store_completed(node.disk.perform(request), node.local(self.now))
            self._drain(node)

    def transmit(self, data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        """Carry a datagram from where `sender` is. To a handle: sealed for that node alone."""
        size = len(data)
        assert size <= self.config.payload_bytes_max, f"a datagram of {size} bytes"
        self.datagrams += 1
        self.bytes_sent += size
        wanted: Handle | None = None
        if isinstance(destination, Handle):
            wanted = destination
            endpoint = destination.endpoint
        else:
            endpoint = destination
        source = self._places.get(sender.endpoint)
        if source is None:
            source = self.place_of(sender.endpoint)
        now, untraced = self.now, self._untraced
        untraced += _TRACED.pack(now, source, size)
        untraced += data
        if len(untraced) >= UNTRACED_BYTES_MAX:
            self._trace.update(untraced)
            untraced.clear()
        if self.on_datagram is not None:
            self.on_datagram(source, endpoint, data)
        receiver = self.by_endpoint.get(endpoint)
        if receiver is not None or endpoint in self.others:
            place = self.place_of(endpoint) if receiver is None else receiver.place
            arguments = (receiver, endpoint, data, sender, wanted)
            for when in self.links.arrivals(source, place, size, now):
                self._events.add(when, self._arrive, arguments)

    def _arrive(
        self,
        node: SimNode | None,
        endpoint: Endpoint,
        data: bytes,
        sender: Handle,
        wanted: Handle | None,
    ) -> None:
        """A datagram is here; `wanted` is for whom it was sealed (None: under the network key).

        `node` was there when it was sent.
        """
        if node is None or not node.running:
            node = self.by_endpoint.get(endpoint)
            if node is None:
                other = self.others.get(endpoint)
                if other is not None:
                    other(data, sender, self.now)
                return
        if wanted is not None and wanted.id != node.id:
            return
        if node.stalled_since is not None:
            if len(node.inbox) < STALLED_INBOX_MAX:
                node.inbox.append((data, sender, wanted))
            return
        node.received += 1
        now = self.now if node.clock_rate == 1.0 else node.local(self.now)
        if wanted is None:
            node.core.receive_hello(data, sender, now)
        elif sender.id == node.id:
            if sender.incarnation > node.core.identity.incarnation:
                node.core.receive_twin(data, sender, now)
        else:
            node.core.receive_datagram(data, sender, now)
        self._drain(node)

    # -- the oracle --

    def is_consistent(self) -> bool:
        """Tell whether every live node is active and its leaf set is what it should be."""
        return RingOracle(self.live, self.config.leaf_set_size).settled()
