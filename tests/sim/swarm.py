"""A small ring with blobs in it, for scenarios: what one of them has in common with another."""

from random import Random

from pastryd.config import Config
from pastryd.ids import Name, position_of
from pastryd.sim.checkers import Copies, closest, misplaced, wrong_leaf_sets
from pastryd.sim.scenario import Scenario
from pastryd.sim.workload import Workload


class Swarm(Scenario):
    """`size` machines on a LAN that have settled, with checkers that look on."""

    def __init__(self, size: int, seed: int = 1, config: Config | None = None) -> None:
        super().__init__(seed, config)
        self.workload = Workload(self, Random(seed))
        self.copies = Copies(self, self.workload, window_s=12.0, calm_only=False)
        self.join(size, gap_s=0.2)
        self.run(15)

    def fill(self, count: int, size: int = 1000) -> list[Name]:
        """Put blobs and see them acknowledged."""
        names = [self.workload.put(self.rng.choice(self.up), size) for _ in range(count)]
        self.run(5)
        assert all(name in self.workload.acknowledged for name in names)
        return names

    def holders(self, name: Name, count: int = 0) -> list[int]:
        """Return the machines that ought to have a blob (or `count` of them), closest first."""
        machines = {node.id: self.machine_of(node) for node in self.live}
        k = count or self.world.config.replicas
        return [machines[i] for i in closest(position_of(name), machines, k)]

    def wrong(self) -> list[str]:
        """Return what is not as it should be in peace."""
        acknowledged = self.workload.acknowledged
        return wrong_leaf_sets(self) + misplaced(self, self.copies, acknowledged)

    def settle(self, within_s: float) -> None:
        """Run until nothing is wrong, looking on every second."""
        end = self.world.now + within_s
        while found := self.wrong():
            assert self.world.now < end, found[:3]
            self.run(1)
            self.copies.check()
