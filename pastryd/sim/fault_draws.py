"""Draws faults for a swarm: whom they hit, how bad they get and how long they last.

Owns how many copies may be lost at a time: in a swarm that is not wild, fewer than k within one
repair window. What a fault does is said in `faults.py`.
"""

from random import Random

from pastryd.sim import faults
from pastryd.sim.options import Options
from pastryd.sim.scenario import Scenario

REPAIR_WINDOW_S = 12.0
SIZE_MAX = 40


class FaultDraws:
    """The misfortunes of one swarm."""

    def __init__(self, scenario: Scenario, options: Options, rng: Random) -> None:
        self._scenario = scenario
        self._options = options
        self._rng = rng
        self._weak_until: list[float] = []

    def draw(self, kind: str) -> faults.Fault | None:
        """Return a fault of a kind (`options.KINDS`) for some node that is up; None: not now."""
        seconds = self._rng.choice([0.2, 1.0, 5.0, 15.0]) * self._options.scale
        fault: faults.Fault | None = getattr(self, f"_draw_{kind}")(seconds)
        return fault

    def clock_rate(self) -> float:
        """Return how fast the clock of a new machine shall run."""
        return 1.0 + self._options.clock_spread * self._rng.uniform(-1, 1)

    def _may_weaken(self, seconds: float) -> bool:
        """Tell whether one more copy of everything may be lost now, for so long; note it.

        Unless the swarm is a wild one, fewer than k copies are lost within one repair window.
        """
        now = self._scenario.world.now
        self._weak_until = [t for t in self._weak_until if t > now]
        # Not all may leave at once: somebody has to be there in the end.
        staying = [n for n in self._scenario.up if not n.core.items.replication.leaving]
        enough = len(staying) > 2
        if self._options.wild:
            return enough
        if not enough or len(self._weak_until) >= self._options.replicas - 1:
            return False
        self._weak_until.append(now + seconds + REPAIR_WINDOW_S * self._options.scale)
        return True

    def _machine(self) -> int:
        return self._scenario.machine_of(self._rng.choice(self._scenario.up))

    def _some(self) -> tuple[int, ...]:
        machines = [self._scenario.machine_of(n) for n in self._scenario.live]
        self._rng.shuffle(machines)
        return tuple(sorted(machines[: self._rng.randrange(len(machines) + 1)]))

    def _draw_crash(self, seconds: float) -> faults.Fault | None:
        if not self._may_weaken(0.0):
            return None
        count = self._rng.choice([1, 1, 2, 3]) if self._options.wild else 1
        nodes = self._rng.sample(self._scenario.up, min(count, len(self._scenario.up) - 1))
        return faults.Crash(tuple(self._scenario.machine_of(n) for n in nodes))

    def _draw_restart(self, seconds: float) -> faults.Fault | None:
        down = self._scenario.down
        return faults.Restart(self._rng.choice(down)) if down else None

    def _draw_join(self, seconds: float) -> faults.Fault | None:
        if len(self._scenario.live) >= SIZE_MAX:
            return None
        return faults.Join(self.clock_rate(), self._rng.choice([None, 0.0005, 0.2]))

    def _draw_leave(self, seconds: float) -> faults.Fault | None:
        leave_s = self._options.config().leave_timeout_s
        return faults.Leave(self._machine()) if self._may_weaken(leave_s) else None

    def _draw_stall(self, seconds: float) -> faults.Fault | None:
        return faults.Stall(self._machine(), seconds) if self._may_weaken(seconds) else None

    def _draw_partition(self, seconds: float) -> faults.Fault | None:
        return faults.Partition(self._some(), seconds) if self._scenario.live else None

    def _draw_one_way(self, seconds: float) -> faults.Fault | None:
        if not self._scenario.live:
            return None
        return faults.OneWayCut(self._some(), self._some(), seconds)

    def _draw_weather(self, seconds: float) -> faults.Fault | None:
        return faults.Weather(
            self._rng.choice([0.0, 0.1, 0.3]),
            self._rng.choice([0.0, 0.1]),
            self._rng.choice([0.0, 0.3]),
            seconds=seconds,
        )

    def _draw_uplink(self, seconds: float) -> faults.Fault | None:
        if not self._may_weaken(seconds):
            return None
        rate = self._rng.choice([20e3, 200e3, 2e6])
        return faults.ThinUplink(
            self._machine(), rate, self._rng.choice([10_000, 200_000]), seconds
        )

    def _draw_slow_disk(self, seconds: float) -> faults.Fault | None:
        if not self._may_weaken(seconds):
            return None
        return faults.SlowDisk(self._machine(), self._rng.choice([0.3, 2.0, 8.0]), seconds)

    def _draw_failing_disk(self, seconds: float) -> faults.Fault | None:
        return faults.FailingDisk(self._machine(), seconds) if self._may_weaken(seconds) else None

    def _draw_full_disk(self, seconds: float) -> faults.Fault | None:
        return faults.FullDisk(self._machine(), seconds) if self._may_weaken(seconds) else None

    def _draw_bit_rot(self, seconds: float) -> faults.Fault | None:
        return faults.BitRot(self._machine(), seconds) if self._may_weaken(seconds) else None

    def _draw_outage(self, seconds: float) -> faults.Fault | None:
        return faults.Outage(seconds) if self._options.wild else None
