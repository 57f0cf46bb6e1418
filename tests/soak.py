"""Random faults from a seed, then peace: is everything that was acknowledged still there?

`python -m tests.soak --seeds 100` runs many and prints the failing ones with the line that replays
each. A safety phase (joins, crashes, restarts, hangs, splits, loss) checks the invariants of every
node after every step; a liveness phase without faults must end with a true ring and every
acknowledged blob on its k closest nodes, unless all its holders died within one repair window.
"""

import argparse
import sys
import time
from hashlib import sha256
from random import Random

from pastryd.config import Config
from pastryd.ids import Name, position_of
from pastryd.protocol.blobs_find import Failure, FindResult, Object
from pastryd.protocol.blobs_put import PutResult
from tests.support.network import VirtualNetwork, VirtualNode
from tests.support.oracle import replica_ids

REPAIR_WINDOW_S = 12.0
LIVENESS_S = 120.0


class SoakError(AssertionError):
    """A checker failed."""


class Soak:
    """One run from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.network = VirtualNetwork(
            seed,
            Config.lan(replicas=random.choice([2, 3, 3, 4])),
            delay_s=random.choice([0.0003, 0.001, 0.02]),
            loss=random.choice([0.0, 0.0, 0.01, 0.05, 0.2]),
            duplication=random.choice([0.0, 0.0, 0.05]),
            write_s=random.choice([0.0005, 0.01, 0.1]),
        )
        self.size = random.choice([3, 5, 8, 12, 20, 30])
        faults = [self.crash, self.restart, self.join, self.hang, self.split]
        self.faults = [f for f in faults if random.random() < 0.7]
        self.acknowledged: dict[Name, bytes] = {}
        self.lost_times: list[float] = []
        self.down: list[VirtualNode] = []
        self.gets = 0
        self.wrong: list[str] = []

    # -- what happens --

    @property
    def up(self) -> list[VirtualNode]:
        """Nodes that run and are not hung."""
        return [n for n in self.network.live if n.hung_since is None]

    def put(self) -> None:
        """Put a blob through a random node."""
        node = self.random.choice(self.up)
        size = self.random.choice([0, 1, 100, 1000, 5000, 40_000])
        value = self.random.randbytes(size)
        name = Name(sha256(value).digest())

        def then(result: PutResult, now: float) -> None:
            if result.copies >= self.network.config.replicas:
                self.acknowledged[name] = value

        network = self.network
        network.step(
            node, lambda: node.core.items.blobs.put(name, size, value, None, then, network.now)
        )

    def get(self) -> None:
        """Get an acknowledged blob; wrong bytes are never right, whatever else happens."""
        if not self.acknowledged:
            return
        name = self.random.choice(list(self.acknowledged))
        self.find(self.random.choice(self.up), name, lambda result: None)

    def find(self, node: VirtualNode, name: Name, then) -> None:  # type: ignore[no-untyped-def]
        """Start a search and check what it brings."""
        self.gets += 1

        def found(result: FindResult, now: float) -> None:
            if isinstance(result, Object) and bytes(result.value) != self.acknowledged[name]:
                self.wrong.append(name.hex())
            then(result)

        network = self.network
        network.step(node, lambda: node.core.items.blobs.find(name, found, network.now))

    def crash(self) -> None:
        """Kill a node, if enough live on and the last death is long enough ago."""
        now = self.network.now
        recent = [t for t in self.lost_times if t > now - REPAIR_WINDOW_S]
        if len(self.up) > 2 and len(recent) < self.network.config.replicas - 1:
            node = self.random.choice(self.up)
            self.network.crash(node)
            self.down.append(node)
            self.lost_times.append(now)

    def restart(self) -> None:
        """Bring a dead node back with its disk."""
        if self.down:
            node = self.down.pop(self.random.randrange(len(self.down)))
            self.network.restart(node, self.up)

    def join(self) -> None:
        """Add a node."""
        if len(self.up) < 40:
            self.network.add(self.up)

    def hang(self) -> None:
        """SIGSTOP for a while; counts as a death."""
        now = self.network.now
        recent = [t for t in self.lost_times if t > now - REPAIR_WINDOW_S]
        if len(self.up) > 2 and len(recent) < self.network.config.replicas - 1:
            node = self.random.choice(self.up)
            self.network.hang(node)
            duration = self.random.choice([0.2, 1.0, 5.0, 20.0])
            self.lost_times.append(now + duration)
            self.network.at(now + duration, lambda: self.network.resume(node))

    def split(self) -> None:
        """Cut the network in two for a while."""
        if self.network.links.is_split:
            return
        nodes = list(self.network.live)
        self.random.shuffle(nodes)
        cut = self.random.randrange(1, len(nodes)) if len(nodes) > 1 else 0
        self.network.split(nodes[:cut], nodes[cut:])
        duration = self.random.choice([1.0, 5.0, 15.0])
        self.network.at(self.network.now + duration, self.network.split)

    # -- the run --

    def run(self) -> None:
        """Do it all. Raises `SoakError`."""
        network = self.network
        first = network.add()
        for _ in range(self.size - 1):
            network.add([first])
        network.run(15)
        for _ in range(self.random.choice([20, 60])):
            for action in (self.put, self.get):
                if self.up and self.random.random() < 0.8:
                    action()
            if self.faults and self.random.random() < 0.3:
                self.random.choice(self.faults)()
            network.run(self.random.choice([0.1, 0.5, 2.0]))
        network.loss = network.duplication = 0.0
        network.run(25)
        network.split()
        self.check_liveness()

    def check_liveness(self) -> None:
        """Faults have stopped: what must become true, and when."""
        network = self.network
        end = network.now + LIVENESS_S
        while not (network.is_consistent() and self.misplaced() == []):
            if network.now >= end:
                if not network.is_consistent():
                    raise SoakError("the ring is not what the oracle says")
                raise SoakError(f"misplaced: {self.misplaced()[:3]}")
            network.run(1)
        failures: list[str] = []
        for name in list(self.acknowledged):
            self.find(
                self.random.choice(self.up),
                name,
                lambda result, name=name: (
                    failures.append(f"{name.hex()}: {result}")
                    if isinstance(result, Failure)
                    else None
                ),
            )
        network.run(20)
        if failures:
            raise SoakError(f"{len(failures)} acknowledged blobs not found: {failures[0]}")
        if self.wrong:
            raise SoakError(f"wrong bytes: {self.wrong[0]}")

    def misplaced(self) -> list[str]:
        """Return what is wrong about where acknowledged blobs lie."""
        wrong = []
        by_id = {n.core.identity.id: n for n in self.network.live}
        for name in self.acknowledged:
            should = replica_ids(position_of(name), by_id, self.network.config.replicas)
            holders = [i for i, n in by_id.items() if name in n.disk.items]
            if not holders:
                wrong.append(f"{name.hex()} is lost")
            elif sorted(holders) != sorted(should):
                wrong.append(f"{name.hex()} on {len(holders)} nodes, should be {len(should)}")
        return wrong


def main() -> None:
    """Run many seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--from", dest="first", type=int, default=0)
    options = parser.parse_args()
    seeds = (
        [options.seed]
        if options.seed is not None
        else range(options.first, options.first + options.seeds)
    )
    failed = 0
    started = time.monotonic()
    for seed in seeds:
        soak = Soak(seed)
        try:
            soak.run()
        except Exception as error:  # a harness reports whatever broke
            failed += 1
            kind = type(error).__name__
            print(f"seed {seed}: {kind}: {error}; python -m tests.soak --seed {seed}")
            if options.seed is not None:
                raise
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - started:.0f} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
