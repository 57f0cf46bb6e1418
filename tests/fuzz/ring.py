"""Invariant: whatever peers send, in whatever order, a node never raises and stays bounded.

A small virtual ring under operations drawn from a seed: messages of every type from members and
strangers, real ones replayed, altered or damaged, Hellos, puts and gets, bad copies, crashes,
stalls, time. The virtual network calls `check_invariants` after every step; here is what is bounded
over all, and that the ring still works when it is over.
"""

from collections.abc import Callable
from random import Random

from pastryd.errors import RemoteProtocolError
from pastryd.ids import Name
from pastryd.node import PastryNode
from pastryd.protocol.items import name_of
from pastryd.protocol.search_state import Object
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import Hello
from tests.fuzz.generate import Generator
from tests.support.network import VirtualNetwork, VirtualNode

RECENT_MAX = 64
ANSWERS_MAX = 400
"""Datagrams that one datagram may cause at once: a burst of segments, and everything held."""


class FuzzedRing:
    """A ring of four and those who torment it."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.network = network = VirtualNetwork(seed, loss=0.02, duplication=0.02)
        network.ring(4, settle_s=2.0)
        self.generator = Generator(self.rng)
        self.generator.handles += [node.handle for node in network.nodes]
        self.recent: list[tuple[bytes, Handle]] = []
        self.steps = 0
        transmit = network.transmit

        def overheard(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
            self._overhear(data, sender)
            transmit(data, sender, destination)

        network.transmit = overheard  # type: ignore[method-assign]
        operations: list[tuple[int, Callable[[], None]]] = [
            (30, self.send_made_up),
            (25, self.send_altered),
            (15, self.send_damaged),
            (8, self.replay),
            (4, self.send_hello),
            (6, self.put),
            (6, self.get),
            (15, self.advance),
            (1, self.stall),
            (1, self.restart),
            (1, self.forget),
            (1, self.break_disk),
        ]
        # Swarm: what is left out of a run makes room for the rest to go further.
        self.operations = [o for o in operations if self.rng.random() < 0.8] or operations
        self.stranger_share = self.rng.choice((0.0, 0.1, 0.1, 0.7))

    def run(self, steps: int) -> None:
        """Do so many operations."""
        weights = [weight for weight, _ in self.operations]
        for _ in range(steps):
            self.steps += 1
            self.rng.choices(self.operations, weights)[0][1]()

    # -- operations --

    def send_made_up(self) -> None:
        """A valid message out of nowhere."""
        self._deliver(encode(self.generator.message()))

    def send_altered(self) -> None:
        """A real message with one other field."""
        if not self.recent:
            return
        data, sender = self.rng.choice(self.recent)
        message = self.generator.hybrid(decode(data))
        self._deliver(encode(message), sender if self.rng.random() < 0.7 else None)

    def send_damaged(self) -> None:
        """Bytes that were a message once."""
        if self.recent and self.rng.random() < 0.5:
            data = self.rng.choice(self.recent)[0]
        else:
            data = encode(self.generator.message())
        self._deliver(self.generator.mutate(data))

    def replay(self) -> None:
        """A real message again, perhaps from somebody else."""
        if self.recent:
            data, sender = self.rng.choice(self.recent)
            self._deliver(data, sender if self.rng.random() < 0.7 else None)

    def send_hello(self) -> None:
        """Something that is sealed under the network key alone."""
        message = self.generator.message(Hello if self.rng.random() < 0.7 else None)
        data = encode(message)
        if self.rng.random() < 0.3:
            data = self.generator.mutate(data)
        node, sender = self._node(), self._sender()
        self._step(node, lambda: node.core.receive_hello(data, sender, self.network.now))

    def put(self) -> None:
        """A command of ours."""
        value = self.rng.randbytes(self.rng.choice((0, 100, 1079, 1080, 5000, 40_000)))
        self.generator.names.append(name_of(value))
        self._put_at(self._node(), value, [])

    def get(self) -> None:
        """Another."""
        name = self.rng.choice(self.generator.names[-64:])
        self._find_at(self._node(), Name(name), [])

    def forget(self) -> None:
        """The scrubber found a bad copy."""
        node = self._node()
        held = sorted(node.disk.items)
        if held:
            name = self.rng.choice(held)
            node.disk.items[name] = b"rotten"
            self._step(node, lambda: node.core.items.forget(name, self.network.now))

    def break_disk(self) -> None:
        """A disk is full, or has room again; or an item is gone from it, or rotten."""
        disk = self._node().disk
        roll = self.rng.random()
        if roll < 0.5 or not disk.items:
            disk.full = not disk.full
            return
        name = self.rng.choice(sorted(disk.items))
        if roll < 0.75:
            del disk.items[name]
        else:
            disk.items[name] = disk.items[name][::-1] + b"?" * (roll < 0.85)

    def advance(self) -> None:
        """Time passes."""
        self.network.run(self.rng.choice((0.001, 0.01, 0.05, 0.3, 1.0)))

    def stall(self) -> None:
        """A node stands still for a while."""
        node = self._node()
        self.network.hang(node)
        self.network.run(self.rng.choice((0.2, 1.0, 4.0)))
        self.network.resume(node)

    def restart(self) -> None:
        """A node dies and comes back."""
        node = self._node()
        self.network.crash(node)
        self.network.run(self.rng.choice((0.1, 2.0, 10.0)))
        self.network.restart(node, [n for n in self.network.live])

    # -- helpers --

    def _overhear(self, data: bytes, sender: Handle) -> None:
        try:
            message = decode(data)
        except RemoteProtocolError:
            return
        self.generator.learn(message)
        if len(self.recent) >= RECENT_MAX:
            self.recent[self.rng.randrange(RECENT_MAX)] = (data, sender)
        else:
            self.recent.append((data, sender))

    def _node(self) -> VirtualNode:
        return self.rng.choice(self.network.live)

    def _sender(self) -> Handle:
        handle = self.rng.choice(self.generator.handles)
        if self.rng.random() < self.stranger_share:
            handle = self.generator.new_handle()
        if self.rng.random() < 0.1:
            handle = handle.reborn(handle.incarnation + self.rng.choice((-1, 1, 1000)) & 2**64 - 1)
        return handle

    def _deliver(self, data: bytes, sender: Handle | None = None) -> None:
        node = self._node()
        origin = sender or self._sender()
        if origin.id == node.core.identity.id:
            return  # nobody else has its key, and it does not write to itself
        self._step(node, lambda: node.core.receive_datagram(data, origin, self.network.now))

    def _step(self, node: VirtualNode, action: Callable[[], object]) -> None:
        before = node.sent
        self.network.step(node, action)
        assert node.sent - before <= ANSWERS_MAX, "one datagram caused too many"
        assert (node.core.next_deadline() or self.network.now) > self.network.now - 60

    # -- what must hold at the end --

    def check_bounds(self, longest: int) -> None:
        """No container of any node is longer than `longest`, or than its inventory needs."""
        for node in self.network.live:
            for path, size in container_sizes(node.core):
                assert size <= longest + 4 * len(node.disk.items), f"{path}: {size}"

    def check_still_works(self) -> None:
        """The storm is over: the true nodes are a ring again, which keeps and gives."""
        network = self.network
        network.loss = network.duplication = 0.0
        for node in network.live:
            node.disk.full = False
        network.run(90)
        value = b"after the storm"
        done: list[object] = []
        for node in network.live:
            self._put_at(node, value, done)
        network.run_until(lambda: len(done) == len(network.live), 40)
        found: list[object] = []
        for node in network.live:
            self._find_at(node, name_of(value), found)
        network.run_until(lambda: len(found) == len(network.live), 40)
        assert all(isinstance(result, Object) for result in found), found

    def _put_at(self, node: VirtualNode, value: bytes, done: list[object]) -> None:
        name = name_of(value)

        def ended(result: object, now: float) -> None:
            done.append(result)

        self._step(
            node,
            lambda: node.core.items.blobs.put(
                name, len(value), value, None, ended, self.network.now
            ),
        )

    def _find_at(self, node: VirtualNode, name: Name, found: list[object]) -> None:
        def ended(result: object, now: float) -> None:
            found.append(result)

        self._step(node, lambda: node.core.items.blobs.find(name, ended, self.network.now))


def container_sizes(core: PastryNode) -> list[tuple[str, int]]:
    """Return the length of every container that belongs to a node."""
    seen: set[int] = set()
    sizes: list[tuple[str, int]] = []
    stack: list[tuple[str, object]] = [("node", core)]
    while stack:
        path, value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict | list | tuple | set) or hasattr(value, "popleft"):
            sizes.append((path, len(value)))  # type: ignore[arg-type]
            items = list(value.values()) if isinstance(value, dict) else list(value)  # type: ignore[call-overload]
            stack += [(f"{path}[]", item) for item in items]
        elif type(value).__module__.startswith("pastryd"):
            names = [n for kind in type(value).__mro__ for n in getattr(kind, "__slots__", ())]
            names += list(getattr(value, "__dict__", ()))
            stack += [(f"{path}.{n}", getattr(value, n, None)) for n in names]
        elif hasattr(value, "__self__"):
            stack.append((path, value.__self__))
    return sizes
