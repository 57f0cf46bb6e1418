"""The virtual network of the tests: a `World` with one delay for all links, and two knobs."""

from pastryd.config import Config
from pastryd.sim.disk import VirtualDisk
from pastryd.sim.latency import Constant
from pastryd.sim.world import SimNode, World
from pastryd.state.handle import Endpoint, Handle

VirtualNode = SimNode

__all__ = ["SealedNetwork", "VirtualDisk", "VirtualNetwork", "VirtualNode"]


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


class SealedNetwork(VirtualNetwork):
    """One where nobody hears an earlier life of a node of which it has heard a later one.

    That is the seals' doing (`net/seal.py`), which a `World` leaves out.
    """

    def __init__(self, seed: int = 1, loss: float = 0.0) -> None:
        super().__init__(seed, loss=loss)
        self._heard: dict[tuple[Endpoint, bytes], int] = {}

    @property
    def superseded(self) -> list[VirtualNode]:
        """Who has stopped because a later life of it runs elsewhere."""
        return [node for node in self.nodes if node.superseded_by is not None]

    def _arrive(
        self,
        node: VirtualNode | None,
        endpoint: Endpoint,
        data: bytes,
        sender: Handle,
        wanted: Handle | None,
    ) -> None:
        if wanted is not None:
            place = endpoint, sender.public_key
            if sender.incarnation < self._heard.get(place, 0):
                return
            self._heard[place] = sender.incarnation
        super()._arrive(node, endpoint, data, sender, wanted)
