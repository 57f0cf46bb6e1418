"""Everything that can go wrong, as values: written in a scenario or drawn from a seed.

A fault that lasts has `seconds`, after which it ends by itself; `Scenario.heal` ends all at once.
Machines are named by their number, which a restart keeps. What a fault does is said here alone;
whom it hits and when is up to whoever applies it.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pastryd.sim.links import Uplink

if TYPE_CHECKING:
    from pastryd.sim.scenario import Scenario

FOREVER = float("inf")
"""Until `Scenario.heal`."""


class Fault(Protocol):
    """Something that happens to a swarm."""

    def apply(self, scenario: "Scenario") -> None:
        """Let it happen now."""


@dataclass(frozen=True, slots=True)
class Crash:
    """kill -9, or the power is gone; the disk stays."""

    machines: tuple[int, ...]

    def apply(self, scenario: "Scenario") -> None:
        """All of them at the same moment."""
        for machine in self.machines:
            scenario.crash(machine)


@dataclass(frozen=True, slots=True)
class Restart:
    """Start a machine that is down: old identity, old disk, a new life."""

    machine: int

    def apply(self, scenario: "Scenario") -> None:
        """Do it."""
        scenario.restart(self.machine)


@dataclass(frozen=True, slots=True)
class Outage:
    """All machines lose power at once and are back a while later, in order."""

    seconds: float

    def apply(self, scenario: "Scenario") -> None:
        """Crash all that run, start them again later, each knowing all others."""
        machines = [m for m, node in enumerate(scenario.machines) if node.running]
        for machine in machines:
            scenario.crash(machine)
        for machine in machines:
            scenario.later(self.seconds, partial(scenario.restart, machine))


@dataclass(frozen=True, slots=True)
class Join:
    """A new machine; its clock may run fast or slow, its disk may be slow."""

    clock_rate: float = 1.0
    write_s: float | None = None

    def apply(self, scenario: "Scenario") -> None:
        """Add one."""
        scenario.join(1, clock_rate=self.clock_rate, write_s=self.write_s)


@dataclass(frozen=True, slots=True)
class Leave:
    """SIGTERM: hand over, say so, go."""

    machine: int

    def apply(self, scenario: "Scenario") -> None:
        """Begin; it ends when the node has handed over."""
        scenario.leave(self.machine)


@dataclass(frozen=True, slots=True)
class Stall:
    """SIGSTOP: a node stands still and then goes on as if nothing had been."""

    machine: int
    seconds: float

    def apply(self, scenario: "Scenario") -> None:
        """Stop it now, wake it later."""
        world, node = scenario.world, scenario.machines[self.machine]
        if node.running and node.stalled_since is None:
            world.hang(node)
            scenario.later(self.seconds, lambda: world.resume(node))


@dataclass(frozen=True, slots=True)
class Partition:
    """Two sides that do not hear each other: some machines, and all others."""

    side: tuple[int, ...]
    seconds: float

    def apply(self, scenario: "Scenario") -> None:
        """One at a time: while the network is split, another partition does nothing."""
        links = scenario.world.links
        if links.is_split:
            return
        links.split([list(self.side)])
        scenario.hinder(self.seconds, lambda: links.split([]), parts_network=True)


@dataclass(frozen=True, slots=True)
class OneWayCut:
    """What `senders` send does not reach `receivers`; the other direction works."""

    senders: tuple[int, ...]
    receivers: tuple[int, ...]
    seconds: float

    def apply(self, scenario: "Scenario") -> None:
        """Cut every pair that is not cut already."""
        cuts = scenario.world.links.cuts
        pairs = {(a, b) for a in self.senders for b in self.receivers if a != b} - cuts
        cuts |= pairs
        scenario.hinder(self.seconds, lambda: cuts.difference_update(pairs), parts_network=True)


@dataclass(frozen=True, slots=True)
class Weather:
    """How all paths are: chances of loss, duplication and being held up."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    reordering_s: float = 0.05
    seconds: float = FOREVER

    def apply(self, scenario: "Scenario") -> None:
        """Replace the weather until then; afterwards it is fine."""
        links = scenario.world.links
        links.loss, links.duplication = self.loss, self.duplication
        links.reordering, links.reordering_s = self.reordering, self.reordering_s

        def clear() -> None:
            links.loss = links.duplication = links.reordering = 0.0

        if self.loss > 0.02:
            scenario.hinder(self.seconds, clear)
        else:
            scenario.later(self.seconds, clear)


@dataclass(frozen=True, slots=True)
class ThinUplink:
    """A machine sends so many bytes per second, and only so many may wait."""

    machine: int
    bytes_per_s: float
    queue_bytes: int
    seconds: float

    def apply(self, scenario: "Scenario") -> None:
        """Do it."""
        uplinks = scenario.world.links.uplinks
        uplinks[self.machine] = Uplink(self.bytes_per_s, self.queue_bytes)
        scenario.hinder(self.seconds, lambda: uplinks.pop(self.machine, None))


@dataclass(frozen=True, slots=True)
class SlowDisk:
    """Every write takes so long."""

    machine: int
    write_s: float
    seconds: float

    def apply(self, scenario: "Scenario") -> None:
        """Do it; afterwards the disk is as fast as any."""
        disk, usual_s = scenario.machines[self.machine].disk, scenario.world.write_s
        disk.write_s = self.write_s
        scenario.hinder(self.seconds, lambda: setattr(disk, "write_s", usual_s))


@dataclass(frozen=True, slots=True)
class FailingDisk:
    """Every write fails; what is there can be read."""

    machine: int
    seconds: float

    def apply(self, scenario: "Scenario") -> None:
        """Do it."""
        disk = scenario.machines[self.machine].disk
        disk.failing = True
        scenario.hinder(self.seconds, lambda: setattr(disk, "failing", False))


@dataclass(frozen=True, slots=True)
class FullDisk:
    """Nothing more fits."""

    machine: int
    seconds: float

    def apply(self, scenario: "Scenario") -> None:
        """Do it."""
        disk = scenario.machines[self.machine].disk
        disk.full = True
        scenario.hinder(self.seconds, lambda: setattr(disk, "full", False))


@dataclass(frozen=True, slots=True)
class BitRot:
    """One bit of one item flips; a scrubber comes by `found_after_s` later."""

    machine: int
    found_after_s: float

    def apply(self, scenario: "Scenario") -> None:
        """Do it."""
        scenario.rot(self.machine)
        scenario.later(self.found_after_s, lambda: scenario.scrub(self.machine))
