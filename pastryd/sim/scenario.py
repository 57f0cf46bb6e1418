"""A swarm of machines to which faults happen: what scenarios and the soak are written with.

A machine keeps its number, place, identity and disk; a node is one life of it. Owns who runs, what
ends when, and how long the network was calm. Knows nothing of what ought to be true (`checkers`).
"""

from collections.abc import Callable
from functools import partial
from random import Random

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.protocol.items import verify
from pastryd.sim.disk import VirtualDisk
from pastryd.sim.faults import FOREVER, Fault
from pastryd.sim.latency import LatencyModel
from pastryd.sim.world import SimNode, World
from pastryd.state.handle import Endpoint


class Scenario:
    """One swarm, its world, and the faults that are on."""

    def __init__(
        self,
        seed: int = 1,
        config: Config | None = None,
        latency: LatencyModel | None = None,
        *,
        write_s: float = 0.001,
    ) -> None:
        """Nobody is there yet: `join`."""
        self.world = World(seed, config, latency, write_s=write_s)
        self.rng = Random(seed)
        self.machines: list[SimNode] = []
        """The latest life of each machine."""
        self.on_start: list[Callable[[SimNode], None]] = []
        """Called with each new node before it starts."""
        self.on_copies_lost: list[Callable[[SimNode, Name | None], None]] = []
        """Called when a node's copies (None: all of them) are gone, for now or for good."""
        self.note: Callable[[str], None] = lambda text: None
        """Takes a line for the log."""
        self.parted_until = 0.0
        """When the network was last in parts; in the future while it is."""
        self._endings: dict[int, Callable[[], object]] = {}
        self._ending = 0
        self._hindrances = 0
        self._calm_s = 0.0
        self._calm_since = self.world.now

    # -- who is there --

    @property
    def live(self) -> list[SimNode]:
        """Nodes that run, stalled ones included, in the order of their machines."""
        return [node for node in self.machines if node.running]

    @property
    def up(self) -> list[SimNode]:
        """Nodes that run and are not stalled."""
        return [node for node in self.machines if node.running and node.stalled_since is None]

    @property
    def down(self) -> list[int]:
        """Machines that do not run."""
        return [number for number, node in enumerate(self.machines) if not node.running]

    def machine_of(self, node: SimNode) -> int:
        """Return the number of the machine that a node runs on."""
        return self.world.place_of(node.endpoint)

    # -- what happens --

    def apply(self, fault: Fault) -> None:
        """Let a fault happen."""
        self.note(f"fault {fault}")
        fault.apply(self)

    def join(
        self,
        count: int,
        gap_s: float = 0.0,
        *,
        clock_rate: float = 1.0,
        write_s: float | None = None,
    ) -> list[SimNode]:
        """Add machines; each joins through one that is up (the first ever: a new ring)."""
        joined = []
        for _ in range(count):
            disk = VirtualDisk(self.world.write_s if write_s is None else write_s)
            node = self.world.add(disk=disk, start=False, clock_rate=clock_rate)
            seeds = [self.rng.choice(self.up)] if self.up else list(self.machines)
            self.machines.append(node)
            self._start(node, seeds)
            joined.append(node)
            if gap_s:
                self.world.run(gap_s)
        return joined

    def restart(self, machine: int) -> SimNode:
        """Start a machine again that is down; it knows some of those that are up, else all."""
        old = self.machines[machine]
        if old.running:
            return old
        node = self.world.add(
            disk=old.disk,
            public_key=old.core.identity.public_key,
            endpoint=old.endpoint,
            start=False,
            clock_rate=old.clock_rate,
        )
        others = [other for other in self.machines if other is not old]
        up = self.up
        self.machines[machine] = node
        self._start(node, self.rng.sample(up, min(3, len(up))) if up else others)
        return node

    def _start(self, node: SimNode, seeds: list[SimNode]) -> None:
        for told in self.on_start:
            told(node)
        endpoints = [seed.endpoint for seed in seeds]
        self.step(node, lambda now: node.core.start(endpoints, now))

    def step(self, node: SimNode, action: Callable[[float], object]) -> None:
        """Do something with a node's core at its own time."""
        self.world.step(node, lambda: action(node.local(self.world.now)))

    def crash(self, machine: int) -> None:
        """kill -9."""
        node = self.machines[machine]
        if node.running:
            self._lost(node)
            self.world.crash(node)

    def leave(self, machine: int) -> None:
        """SIGTERM. Who could not hand over everything is as good as crashed.

        So is who leaves a ring that may be in parts: its part may have nobody to take a copy.
        """
        node = self.machines[machine]

        def gone(_: float) -> None:
            if node.running:
                if node.core.items.handover.unconfirmed or self._hindrances:
                    self._lost(node)
                self.world.at(self.world.now, self.world.crash, node)

        if node.running and node.stalled_since is None and not node.core.leaving:
            self.step(node, lambda now: node.core.leave(now, gone))

    def rot(self, machine: int) -> None:
        """Flip a bit on a machine's disk."""
        node = self.machines[machine]
        name = node.disk.rot(self.rng)
        if name is not None:
            self.note(f"rotten {name.hex()[:8]} on machine {machine}")
            self._lost(node, name)

    def scrub(self, machine: int) -> None:
        """Hash everything on a disk again, as `store/scrub.py` does; the core drops what is bad."""
        node = self.machines[machine]
        if not node.running or node.stalled_since is not None:
            return
        for name in [n for n, value in node.disk.items.items() if not verify(n, value)]:
            self.step(node, partial(node.core.forget, name))

    def _lost(self, node: SimNode, name: Name | None = None) -> None:
        for told in self.on_copies_lost:
            told(node, name)

    # -- when faults end --

    def later(self, seconds: float, ending: Callable[[], object]) -> None:
        """Have something done after a time, or when all is healed, whichever is first."""
        self._ending = number = self._ending + 1
        self._endings[number] = ending
        if seconds != FOREVER:
            self.world.at(self.world.now + seconds, self._end, number)

    def hinder(
        self, seconds: float, ending: Callable[[], object], parts_network: bool = False
    ) -> None:
        """As `later`, for what keeps repair from working: until then it is not calm."""
        if not self._hindrances:
            self._calm_s += self.world.now - self._calm_since
        self._hindrances += 1
        if parts_network:
            self.parted_until = max(self.parted_until, self.world.now + seconds)

        def over() -> None:
            ending()
            self._hindrances -= 1
            if not self._hindrances:
                self._calm_since = self.world.now

        self.later(seconds, over)

    def _end(self, number: int) -> None:
        ending = self._endings.pop(number, None)
        if ending is not None:
            ending()

    def heal(self) -> None:
        """End all faults that are on. Machines that are down stay down."""
        while self._endings:
            self._end(min(self._endings))
        self.parted_until = min(self.parted_until, self.world.now)
        self.note("healed")

    def reconnect(self) -> int:
        """Do what operators do after a disaster: tell who is still joining whom to join.

        Whoever has never been in the ring and whose only seeds are dead waits for them for ever, by
        design: it does not start a ring of its own. With nobody active, who is down comes back.

        Two rings may have met and all died who knew of both, before the others heard of each other.
        No protocol brings those together: nothing that anybody knows leads to the other side. Then
        one of them is told; how often is returned. A single live address that is known on either
        side, in whatever table, is enough to tell nobody and to ask for one ring.
        """
        if not any(node.core.active for node in self.live):
            for machine in self.down:
                self.restart(machine)
        for node in self.live:
            if not node.core.active:
                node.core.add_seeds([other.endpoint for other in self.live if other is not node])
        first, *others = self.acquainted() or [[]]
        for part in others:
            self.note(f"told of each other: nodes {part[0].number} and {first[0].number}")
            part[0].core.add_seeds([first[0].endpoint])
        return len(others)

    def acquainted(self) -> list[list[SimNode]]:
        """Return the live nodes in parts of which none knows the address of a node of another."""
        parts: list[list[SimNode]] = []
        known: list[set[Endpoint]] = []
        for node in self.live:
            context = node.core.context
            handles = (*context.leaf_set.members(), *context.table.entries(), *context.peers)
            knows = {h.endpoint for h in handles} | set(node.core.joiner.remembered.endpoints)
            part = [node]
            for i in reversed(range(len(parts))):
                if node.endpoint in known[i] or not knows.isdisjoint(n.endpoint for n in parts[i]):
                    part = parts.pop(i) + part
                    knows |= known.pop(i)
            parts.append(part)
            known.append(knows)
        return parts

    @property
    def calm_s(self) -> float:
        """For how long in all nothing kept repair from working."""
        if self._hindrances:
            return self._calm_s
        return self._calm_s + self.world.now - self._calm_since

    @property
    def calm_for_s(self) -> float:
        """For how long nothing has kept repair from working; 0 while something does."""
        return 0.0 if self._hindrances else self.world.now - self._calm_since

    # -- time --

    def run(self, seconds: float) -> None:
        """Advance the clock."""
        self.world.run(seconds)
