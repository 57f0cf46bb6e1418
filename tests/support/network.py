"""A small virtual network: unmodified `PastryNode`s, one virtual clock, one seed.

Real encoded bytes, delays, loss, duplication, cuts, crashes, hangs, disks that take time. Sealing
is left out: what arrives is from whom it says. Everything follows from the seed.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.node import PastryNode
from pastryd.protocol.outbox import (
    Completion,
    DeleteItem,
    Logged,
    ReadDone,
    ReadItem,
    StoreReply,
    StoreRequest,
    WriteDone,
    WriteItem,
    WriteStatus,
)
from pastryd.state.handle import Endpoint, Handle


class VirtualDisk:
    """The items of one node; survives its crash. Writes that were not answered are lost with it."""

    def __init__(self) -> None:
        self.items: dict[Name, bytes] = {}
        self.full = False

    def perform(self, request: StoreRequest) -> StoreReply:
        """Do what a store would do."""
        if isinstance(request, ReadItem):
            value = self.items.get(request.name)
            if value is None:
                return ReadDone(request.ticket, None, 0)
            end = len(value) if request.length < 0 else request.offset + request.length
            return ReadDone(request.ticket, memoryview(value)[request.offset : end], len(value))
        if isinstance(request, WriteItem):
            if self.full:
                return WriteDone(request.ticket, WriteStatus.FULL)
            self.items[request.name] = bytes(request.value)
        elif isinstance(request, DeleteItem):
            self.items.pop(request.name, None)
        return WriteDone(request.ticket, WriteStatus.OK)


class VirtualNode:
    """A node and what surrounds it: address, disk, whether it runs."""

    def __init__(self, core: PastryNode, endpoint: Endpoint, disk: VirtualDisk) -> None:
        self.core = core
        self.endpoint = endpoint
        self.disk = disk
        self.running = True
        self.hung_since: float | None = None
        self.inbox_while_hung: list[tuple[bytes, Handle, bool]] = []
        self.timer_at = float("inf")
        self.logged: list[tuple[float, Logged]] = []
        self.results: dict[int, object] = {}
        self.sent = 0

    @property
    def handle(self) -> Handle:
        """Who it is and where."""
        return self.core.identity.at(self.endpoint)


class VirtualNetwork:
    """Many nodes under one clock."""

    def __init__(
        self,
        seed: int = 1,
        config: Config | None = None,
        delay_s: float | Callable[[Endpoint, Endpoint], float] = 0.001,
        loss: float = 0.0,
        duplication: float = 0.0,
        write_s: float = 0.001,
    ) -> None:
        self.rng = Random(seed)
        self.config = config or Config.lan()
        self.delay_s = delay_s
        self.loss = loss
        self.duplication = duplication
        self.write_s = write_s
        self.now = 1000.0
        self.nodes: list[VirtualNode] = []
        self.by_endpoint: dict[Endpoint, VirtualNode] = {}
        self.others: dict[Endpoint, Callable[[bytes, Handle, float], None]] = {}
        self.sides: dict[Endpoint, int] = {}
        self.datagrams = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    # -- nodes --

    def add(
        self,
        seeds: Sequence[VirtualNode] = (),
        *,
        disk: VirtualDisk | None = None,
        public_key: bytes | None = None,
        start: bool = True,
        endpoint: Endpoint | None = None,
    ) -> VirtualNode:
        """Start a node that joins through the seeds (none: a new ring)."""
        number = len(self.nodes) + 1
        if endpoint is None:
            endpoint = (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 4160)
        key = public_key or self.rng.randbytes(32)
        identity = Handle(key, "", 0, int(self.now * 1000))
        disk = disk or VirtualDisk()
        core = PastryNode(
            identity, self.config, Random(self.rng.getrandbits(64)), sorted(disk.items)
        )
        node = VirtualNode(core, endpoint, disk)
        self.nodes.append(node)
        self.by_endpoint[endpoint] = node
        if start:
            core.start([s.endpoint for s in seeds], self.now)
            self._drain(node)
        return node

    def ring(self, size: int, settle_s: float = 10.0) -> list[VirtualNode]:
        """Build a ring of `size` nodes, joining one after the other, and let it settle."""
        first = self.add()
        nodes = [first]
        for _ in range(size - 1):
            nodes.append(self.add([self.rng.choice(nodes)]))
            self.run(0.05)
        self.run(settle_s)
        return nodes

    def crash(self, node: VirtualNode) -> None:
        """Kill -9: it says nothing more; its disk stays."""
        node.running = False
        self.by_endpoint.pop(node.endpoint, None)

    def restart(self, node: VirtualNode, seeds: Sequence[VirtualNode]) -> VirtualNode:
        """Start it again with its old identity and disk."""
        self.crash(node)
        return self.add(
            seeds,
            disk=node.disk,
            public_key=node.core.identity.public_key,
            endpoint=node.endpoint,
        )

    def hang(self, node: VirtualNode) -> None:
        """SIGSTOP: datagrams queue up, nobody answers."""
        node.hung_since = self.now

    def resume(self, node: VirtualNode) -> None:
        """SIGCONT."""
        assert node.hung_since is not None
        lag, node.hung_since = self.now - node.hung_since, None
        node.core.report_stall(lag, self.now)
        self._drain(node)
        inbox, node.inbox_while_hung = node.inbox_while_hung, []
        for data, sender, is_hello in inbox:
            self._receive(node, data, sender, is_hello)

    def split(self, *sides: Sequence[VirtualNode]) -> None:
        """Let only nodes of the same side hear each other; no side given: heal."""
        self.sides = {n.endpoint: i for i, side in enumerate(sides) for n in side}

    @property
    def live(self) -> list[VirtualNode]:
        """The nodes that run."""
        return [n for n in self.nodes if n.running]

    # -- time --

    def run(self, seconds: float) -> None:
        """Advance the clock."""
        end = self.now + seconds
        queue = self._queue
        while queue and queue[0][0] <= end:
            self.now, _, action = heappop(queue)
            action()
        self.now = end

    def run_until(
        self, condition: Callable[[], bool], limit_s: float, step_s: float = 0.05
    ) -> None:
        """Advance until a condition holds; it must within `limit_s`."""
        end = self.now + limit_s
        while not condition():
            assert self.now < end, f"not within {limit_s} s"
            self.run(step_s)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have something done at a time."""
        heappush(self._queue, (when, next(self._order), action))

    def step(self, node: VirtualNode, action: Callable[[], object]) -> object:
        """Do something with a node's core now, and carry out what it wants done."""
        result = action()
        self._drain(node)
        return result

    # -- the drain, as in the driver --

    def _drain(self, node: VirtualNode) -> None:
        outbox = node.core.outbox
        datagrams, outbox.datagrams = outbox.datagrams, []
        for data, destination in datagrams:
            node.sent += 1
            self.transmit(data, node.handle, destination)
        requests, outbox.store = outbox.store, []
        for request in requests:
            delay = 0.0 if isinstance(request, ReadItem) else self.write_s
            self.at(self.now + delay, self._store_action(node, request))
        events, outbox.events = outbox.events, []
        for event in events:
            if isinstance(event, Completion):
                node.results[event.request_id] = event.result
            else:
                node.logged.append((self.now, event))
        node.core.check_invariants()
        deadline = node.core.next_deadline()
        if deadline is not None and deadline < node.timer_at:
            node.timer_at = deadline
            self.at(max(deadline, self.now), lambda: self._fire(node, deadline))

    def _fire(self, node: VirtualNode, deadline: float) -> None:
        if not node.running or node.timer_at != deadline:
            return
        if node.hung_since is not None:
            self.at(self.now + 0.05, lambda: self._fire(node, deadline))
            return
        node.timer_at = float("inf")
        node.core.handle_timer(self.now)
        self._drain(node)

    def _store_action(self, node: VirtualNode, request: StoreRequest) -> Callable[[], None]:
        def perform() -> None:
            if node.running:
                node.core.store_completed(node.disk.perform(request), self.now)
                self._drain(node)

        return perform

    def transmit(self, data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        """Carry a datagram: `sender` is at its endpoint, whatever it says of itself."""
        is_hello = not isinstance(destination, Handle)
        endpoint = destination.endpoint if isinstance(destination, Handle) else destination
        self.datagrams += 1
        if len(data) > self.config.payload_bytes_max:
            raise AssertionError(f"datagram of {len(data)} bytes")
        if self.sides.get(sender.endpoint) != self.sides.get(endpoint):
            return
        copies = 1 + (self.rng.random() < self.duplication)
        for _ in range(copies):
            if self.loss and self.rng.random() < self.loss:
                continue
            delay = self.delay_s
            if callable(delay):
                delay = delay(sender.endpoint, endpoint)
            delay *= 0.9 + 0.2 * self.rng.random()
            self.at(self.now + delay, lambda: self._arrive(data, sender, destination, is_hello))

    def _arrive(
        self, data: bytes, sender: Handle, destination: Handle | Endpoint, is_hello: bool
    ) -> None:
        endpoint = destination.endpoint if isinstance(destination, Handle) else destination
        other = self.others.get(endpoint)
        if other is not None:
            other(data, sender, self.now)
            return
        node = self.by_endpoint.get(endpoint)
        if node is None or not node.running:
            return
        if isinstance(destination, Handle) and destination.id != node.core.identity.id:
            return  # sealed for somebody else
        if node.hung_since is not None:
            if len(node.inbox_while_hung) < 256:
                node.inbox_while_hung.append((data, sender, is_hello))
            return
        self._receive(node, data, sender, is_hello)

    def _receive(self, node: VirtualNode, data: bytes, sender: Handle, is_hello: bool) -> None:
        if is_hello:
            node.core.receive_hello(data, sender, self.now)
        else:
            node.core.receive_datagram(data, sender, self.now)
        self._drain(node)

    # -- the oracle --

    def is_consistent(self) -> bool:
        """Tell whether every live node is active and its leaf set is what it should be."""
        live = sorted(self.live, key=lambda n: n.core.identity.id)
        ids = [n.core.identity.id for n in live]
        half = self.config.leaf_set_size // 2
        for i, node in enumerate(live):
            leaf_set = node.core.context.leaf_set
            expect = {ids[(i + d) % len(ids)] for d in range(-half, half + 1)} - {ids[i]}
            if not node.core.active or {h.id for h in leaf_set.members()} != expect:
                return False
        return True
