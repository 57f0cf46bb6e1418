"""Soak a cluster of real processes: a very large blob, then random faults for as long as one likes.

    scripts/soak_cluster.py [--nodes 16] [--gigabytes 5] [--minutes 10] [--clients 3] [--seed N]

Prints what it measures as JSON lines. Faults: kill -9 and restart, SIGSTOP and SIGCONT, SIGTERM and
restart, never so many at once that three copies of anything could be among them. Clients put and
get all the time, through whichever node is not being hurt. Ends with status 1 when a blob that was
acknowledged is lost, not found or wrong, a node does not come back, or the ring does not become
consistent again.
"""

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pastryd.client import Client
from pastryd.errors import CorruptError, NotFoundError, PastryError
from tests.support.cluster import (
    MIB,
    Cluster,
    ClusterNode,
    MemoryWatch,
    cluster_of,
    gather_limited,
    wait_replicated,
    write_random,
)
from tests.support.processes import environment, tool_command

SMALL = 200
SIZES = (0, 1, 1_000, 1_100, 50_000, 1_500_000, *range(100, 2_000, 100))
PUTS = 0.3
PAUSE_S = 0.02
LET_GO_S = 3.0
REPAIR_S_PER_GB = 120.0
"""Two of eight nodes hold 750 MB of copies for each; all of them share two cores here."""


def tell(what: str, **figures: object) -> None:
    """Print one line."""
    print(json.dumps({"what": what, **figures}), flush=True)


def run_command(cluster: Cluster, what: str, size: int, *arguments: str, node: str) -> None:
    """Run `pastry` and tell its speed and everybody's private memory."""
    began = time.monotonic()
    process = subprocess.Popen(
        tool_command(*arguments), env=environment(PASTRY_NODE=node), stdout=subprocess.DEVNULL
    )
    pids = [n.pid for n in cluster.running]
    with MemoryWatch(lambda: [process.pid, *pids]) as watch:
        status = process.wait()
    seconds = time.monotonic() - began
    tell(
        what,
        status=status,
        seconds=round(seconds, 1),
        mb_per_s=round(size / 1e6 / seconds, 1),
        client_mib=round(watch.most.get(process.pid, 0) / MIB, 1),
        node_mib=round(max(watch.most.get(pid, 0) for pid in pids) / MIB, 1),
    )
    if status:
        raise SystemExit(1)


def put_and_get_large(cluster: Cluster, size: int) -> None:
    """Put one large blob at one node and get it at another."""
    path = cluster.directory / "large"
    back = cluster.directory / "back"
    key = write_random(path, size)[0]
    run_command(cluster, "put", size, "put", str(path), node=cluster.nodes[1].address)
    path.unlink()
    run_command(cluster, "get", size, "get", key, "-o", str(back), node=cluster.nodes[-1].address)
    back.unlink()


async def read_all(cluster: Cluster) -> None:
    """Get every small blob through a random node."""
    async with Client(cluster.random.choice(cluster.running).address) as client:
        values = await gather_limited(client.get(key) for key in cluster.blobs)
    assert values == list(cluster.blobs.values())


class Clients:
    """Put and get while nodes are hurt; what was acknowledged must come back as it was."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        self._cluster = cluster
        self.hurt: list[ClusterNode] = []
        """Nobody asks these: that they do not answer is what was done to them."""
        self.counts: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._stopping = False
        seeds = [cluster.random.randrange(1 << 31) for _ in range(count)]
        self._workers = [asyncio.create_task(self._work(random.Random(seed))) for seed in seeds]

    async def stop(self) -> None:
        """Let each finish what it does. Raises what was wrong."""
        self._stopping = True
        await asyncio.gather(*self._workers)

    def check(self) -> None:
        """Raise what was wrong so far."""
        for worker in self._workers:
            if worker.done():
                worker.result()

    async def _work(self, choose: random.Random) -> None:
        while not self._stopping:
            node = choose.choice([n for n in self._cluster.running if n not in self.hurt])
            try:
                async with Client(node.address) as client:
                    for _ in range(choose.randrange(1, 40)):
                        began = time.monotonic()
                        await self._put_or_get(client, choose)
                        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                        await asyncio.sleep(PAUSE_S)
                        if self._stopping:
                            return
            except (NotFoundError, CorruptError) as error:
                raise AssertionError(f"through {node.address}: {error}") from error
            except PastryError as error:
                # Its access node was hurt meanwhile, or too many holders: told, not lost.
                self.counts[type(error).__name__] += 1

    async def _put_or_get(self, client: Client, choose: random.Random) -> None:
        blobs = self._cluster.blobs
        if choose.random() < PUTS:
            value = choose.randbytes(choose.choice(SIZES))
            key = (await client.put(value)).key
            blobs[key] = value
            self.counts["put"] += 1
        else:
            key = choose.choice(list(blobs))
            assert await client.get(key) == blobs[key], key
            self.counts["get"] += 1


async def torment(cluster: Cluster, clients: int, minutes: float, repair_s: float) -> None:
    """Hurt two nodes at a time; after each time everything must be as it was.

    `repair_s`: within which time all copies must be back, the large blob's before them.
    """
    choose = cluster.random
    end = time.monotonic() + 60 * minutes
    async with Client(cluster.nodes[0].address) as client:
        values = [choose.randbytes(choose.randrange(1, 300_000)) for _ in range(SMALL)]
        for result in await gather_limited(client.put(value) for value in values):
            assert result.copies == 3
        cluster.blobs = {sha256(value).hexdigest(): value for value in values}
        work = Clients(cluster, clients)
        rounds = 0
        while time.monotonic() < end:
            rounds += 1
            fault = choose.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM))
            hurt = work.hurt = choose.sample(cluster.nodes[1:], 2)
            began = time.monotonic()
            for node in hurt:
                node.signal(fault)
            if fault is signal.SIGSTOP:
                await asyncio.sleep(choose.choice((0.3, LET_GO_S, 10.0)))
                for node in hurt:
                    node.signal(signal.SIGCONT)
            else:
                for node in hurt:
                    await asyncio.to_thread(node.wait)
                if choose.random() < 0.5:
                    await wait_replicated(client, sample(cluster), within_s=repair_s)
                for node in hurt:
                    node.start(cluster.nodes[0].address)
            await asyncio.to_thread(cluster.wait_for_ring)
            work.hurt = []
            waited = await wait_replicated(client, sample(cluster), within_s=repair_s)
            work.check()
            tell(
                "fault",
                round=rounds,
                fault=fault.name,
                seconds=round(time.monotonic() - began, 2),
                copies_after_s=round(waited, 2),
                node_mib=round(max(n.private_bytes() for n in cluster.running) / MIB, 1),
                slowest_s=round(work.slowest_s, 2),
                clients=dict(work.counts),
            )
            work.slowest_s = 0.0
        await work.stop()
        await read_all(cluster)
        waited = await wait_replicated(client, cluster.blobs, within_s=repair_s)
        tell("all read", blobs=len(cluster.blobs), copies_after_s=round(waited, 2))


def sample(cluster: Cluster) -> dict[str, bytes]:
    """Return some of the blobs: to look for the copies of all after each fault would take long."""
    keys = cluster.random.sample(list(cluster.blobs), SMALL)
    return {key: cluster.blobs[key] for key in keys}


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    options = parser.parse_args()
    tell("options", **vars(options))
    with (
        tempfile.TemporaryDirectory(prefix="pastryd-soak-") as directory,
        cluster_of(options.nodes, Path(directory) / "cluster") as cluster,
    ):
        cluster.random = random.Random(options.seed)
        try:
            if options.gigabytes:
                put_and_get_large(cluster, int(options.gigabytes * 1e9))
            if options.minutes:
                repair_s = 60.0 + REPAIR_S_PER_GB * options.gigabytes
                asyncio.run(torment(cluster, options.clients, options.minutes, repair_s))
        except (AssertionError, PastryError) as error:
            tell("failed", error=str(error)[:500])
            for node in cluster.nodes:
                print(node.address, *node.log().splitlines()[-5:], sep="\n  ")
            raise SystemExit(1) from error


if __name__ == "__main__":
    main()
