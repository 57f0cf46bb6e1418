"""The virtual network of the tests: a `World` with one delay for all links, and two knobs."""

from pastryd.config import Config
from pastryd.sim.disk import VirtualDisk
from pastryd.sim.latency import Constant
from pastryd.sim.world import SimNode, World

VirtualNode = SimNode

__all__ = ["VirtualDisk", "VirtualNetwork", "VirtualNode"]


class VirtualNetwork(World):
    """Many nodes under one clock; invariants are checked after every step."""

    def __init__(
        self,
        seed: int = 1,
        config: Config | None = None,
        delay_s: float = 0.001,
        loss: float = 0.0,
        duplication: float = 0.0,
        write_s: float = 0.001,
    ) -> None:
        super().__init__(seed, config, Constant(delay_s), write_s=write_s)
        self.loss = loss
        self.duplication = duplication

    @property
    def loss(self) -> float:
        """Chance that a datagram is lost."""
        return self.links.loss

    @loss.setter
    def loss(self, chance: float) -> None:
        self.links.loss = chance

    @property
    def duplication(self) -> float:
        """Chance that a datagram arrives twice."""
        return self.links.duplication

    @duplication.setter
    def duplication(self, chance: float) -> None:
        self.links.duplication = chance
