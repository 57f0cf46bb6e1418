"""What a swarm is like, drawn from its seed before anything happens in it.

Some kinds of faults are off and others extreme, so that a run with few kinds goes deep.
"""

from dataclasses import dataclass, fields
from random import Random

from pastryd.config import Config
from pastryd.sim.latency import Constant, LatencyModel, Plane, Sphere, TransitStub

KINDS = (
    "crash",
    "restart",
    "join",
    "leave",
    "stall",
    "partition",
    "one_way",
    "weather",
    "uplink",
    "slow_disk",
    "failing_disk",
    "full_disk",
    "bit_rot",
    "outage",
)
WAN_SCALE = 8.0
"""How much slower everything is with the `wan` preset."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a seed's swarm is like."""

    preset: str
    replicas: int
    size: int
    latency: str
    loss: float
    duplication: float
    reordering: float
    write_s: float
    clock_spread: float
    """Clock rates differ by so much to either side."""
    wild: bool
    """Nodes die without regard to how many copies are left."""
    large: int
    """Large blobs that are put in all, about; a mebibyte each costs as much as a small run."""
    clients: float
    """Which part of puts and gets comes from clients, the rest from nodes."""
    steps: int
    fault_chance: float
    kinds: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Random) -> "Options":
        """Draw them."""
        wan = rng.random() < 0.2
        latency = ["sphere", "plane", "transit-stub"] if wan else ["0.0003", "0.001", "0.02"]
        return cls(
            preset="wan" if wan else "lan",
            replicas=rng.choice([2, 3, 3, 3, 4]),
            size=rng.choice([3, 5, 8, 12, 20, 30]),
            latency=rng.choice(latency),
            loss=rng.choice([0.0, 0.0, 0.01, 0.05, 0.2]),
            duplication=rng.choice([0.0, 0.0, 0.05]),
            reordering=rng.choice([0.0, 0.0, 0.1]),
            write_s=rng.choice([0.0005, 0.01, 0.1]),
            clock_spread=rng.choice([0.0, 0.0, 0.001, 0.05]),
            wild=rng.random() < 0.25,
            large=rng.choice([0, 0, 0, 1, 2]),
            clients=rng.choice([0.0, 0.5, 0.5, 1.0]),
            steps=rng.choice([20, 40, 60]),
            fault_chance=rng.choice([0.1, 0.3, 0.3, 0.6]),
            kinds=tuple(kind for kind in KINDS if rng.random() < 0.5),
        )

    @property
    def scale(self) -> float:
        """How many times slower than on a LAN things happen."""
        return WAN_SCALE if self.preset == "wan" else 1.0

    def config(self) -> Config:
        """Return the nodes' parameters."""
        return (Config.wan if self.preset == "wan" else Config.lan)(replicas=self.replicas)

    def latency_model(self, rng: Random) -> LatencyModel:
        """Return the paths."""
        match self.latency:
            case "sphere":
                return Sphere(rng)
            case "plane":
                return Plane(rng)
            case "transit-stub":
                return TransitStub(rng)
            case delay:
                return Constant(float(delay))

    def __str__(self) -> str:
        return " ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self)).replace("'", "")
