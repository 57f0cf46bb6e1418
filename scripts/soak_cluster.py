"""Soak a cluster of real processes: a very large blob, then random faults for as long as one likes.

    scripts/soak_cluster.py [--nodes 16] [--gigabytes 5] [--minutes 10] [--seed N]

Prints what it measures as JSON lines. Faults: kill -9 and restart, SIGSTOP and SIGCONT, SIGTERM and
restart, never so many at once that three copies of anything could be among them. Ends with status 1
when a blob is lost or wrong, or the ring does not become consistent again.
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
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pastryd.client import Client
from pastryd.errors import PastryError
from tests.support.cluster import (
    MIB,
    Cluster,
    MemoryWatch,
    cluster_of,
    gather_limited,
    wait_replicated,
    write_random,
)
from tests.support.processes import environment, tool_command

SMALL = 200
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


async def torment(cluster: Cluster, minutes: float, repair_s: float) -> None:
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
        rounds = 0
        while time.monotonic() < end:
            rounds += 1
            fault = choose.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM))
            hurt = choose.sample(cluster.nodes[1:], 2)
            began = time.monotonic()
            for node in hurt:
                node.signal(fault)
            if fault is signal.SIGSTOP:
                await asyncio.sleep(choose.choice((0.3, LET_GO_S, 10.0)))
                for node in hurt:
                    node.signal(signal.SIGCONT)
            else:
                for node in hurt:
                    node.wait()
                if choose.random() < 0.5:
                    await wait_replicated(client, cluster.blobs, within_s=repair_s)
                for node in hurt:
                    node.start(cluster.nodes[0].address)
            await asyncio.to_thread(cluster.wait_for_ring)
            await read_all(cluster)
            waited = await wait_replicated(client, cluster.blobs, within_s=repair_s)
            tell(
                "fault",
                round=rounds,
                fault=fault.name,
                seconds=round(time.monotonic() - began, 2),
                copies_after_s=round(waited, 2),
                node_mib=round(max(n.private_bytes() for n in cluster.running) / MIB, 1),
            )


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--minutes", type=float, default=10.0)
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
                asyncio.run(torment(cluster, options.minutes, repair_s))
        except (AssertionError, PastryError) as error:
            tell("failed", error=str(error)[:500])
            for node in cluster.nodes:
                print(node.address, *node.log().splitlines()[-3:], sep="\n  ")
            raise SystemExit(1) from error


if __name__ == "__main__":
    main()
