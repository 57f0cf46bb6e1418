"""What a churn run is made under: all of it follows from this, and a command line repeats it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from pastryd.config import Config
from pastryd.errors import ConfigError
from pastryd.sim.latency import LatencyModel, Matrix, TransitStub
from pastryd.sim.sessions import DISTRIBUTIONS, TRACES, Session, read_trace, steady

DELIVERED_WITHIN_S = 60.0
"""A lookup that nobody has delivered by then is lost."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Who is up when, on which network, and what is asked of them."""

    sessions: str
    """A name of `TRACES` or `DISTRIBUTIONS`, or else a file to replay."""
    nodes: int = 200
    """How many are up on the mean; a file says so itself."""
    median_s: float = 3_600.0
    """Of the sessions of a distribution."""
    settling_s: float = 3_600.0
    """How long the ring churns before anything is counted. Its tables begin as they should be."""
    measured_s: float = 3_600.0
    """How long lookups and messages are counted."""
    loss: float = 0.0
    """Chance that a datagram is lost."""
    lookups_per_s: float = 0.01
    """Of each node; MSPastry's."""
    seed: int = 1
    matrix: Path | None = None
    """Round-trip times; none: a transit-stub network, as in MSPastry 2004."""
    config: Config = field(default_factory=Config.wan)

    @property
    def is_replay(self) -> bool:
        """Whether the sessions are those of a file."""
        return self.sessions not in TRACES and self.sessions not in DISTRIBUTIONS

    def to_the_end(self) -> "Conditions":
        """Return the same, measured until the last session ends. Raises `ConfigError`."""
        end_s = max(session.end_s for session in self.draw_sessions())
        if end_s <= self.settling_s:
            raise ConfigError(
                f"{self.sessions} ends after {end_s:g} s, before anything is counted: "
                "give a smaller --settle"
            )
        return replace(self, measured_s=end_s - self.settling_s)

    def draw_sessions(self) -> list[Session]:
        """Return the sessions, by start. Raises `ConfigError` for a file that is none."""
        rng = Random(self.seed)
        duration_s = self.settling_s + self.measured_s + DELIVERED_WITHIN_S
        if self.sessions in TRACES:
            return TRACES[self.sessions].sessions(self.nodes, duration_s, rng)
        if self.sessions in DISTRIBUTIONS:
            lengths = DISTRIBUTIONS[self.sessions](self.median_s)
            return steady(lengths, self.nodes, duration_s, rng)
        return read_trace(Path(self.sessions))

    def latency(self) -> LatencyModel:
        """Return the network; each call gives an equal one."""
        rng = Random(self.seed)
        return TransitStub(rng) if self.matrix is None else Matrix.read(self.matrix, rng)

    def command(self) -> str:
        """Return the command that runs it again."""
        words = [f"pastryd sim churn --sessions {self.sessions}"]
        if not self.is_replay:
            words.append(f"--nodes {self.nodes}")
        if self.sessions in DISTRIBUTIONS:
            words.append(f"--median {self.median_s / 60:g}")
        words += [
            f"--settle {self.settling_s / 60:g}",
            f"--minutes {self.measured_s / 60:g}",
            f"--loss {self.loss:g}",
            f"--lookups {self.lookups_per_s:g}",
            f"--seed {self.seed}",
        ]
        if self.matrix is not None:
            words.append(f"--latency {self.matrix}")
        return " ".join(words)
