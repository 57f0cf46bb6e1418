"""Small gets beside a bulk put, and a burst of puts: who is disturbed, and is anybody suspected?"""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256
from itertools import cycle
from pathlib import Path

from bench.cluster import environment
from bench.compare import tell
from bench.contestant import value_of
from bench.ours import Pastryd
from bench.timing import latencies_ms, summary
from pastryd.errors import PastryError

MIB = 1 << 20
VALUES = 6000
"""Few enough for the ring, too many to be answered from the cache of an access node."""
PACE_S = 0.01
"""Between two gets: a user who looks things up, not a second load."""
BULK_TIMEOUT_S = 900.0
_SUSPECTED = re.compile(r"peer_liveness.*now[='\": ]+(suspect|dead)")


def suspicions(directory: Path) -> int:
    """Return how often a node of a devcluster took another for suspect or dead."""
    return sum(
        len(_SUSPECTED.findall(log.read_text(errors="replace")))
        for log in directory.glob("node-*.log")
    )


def write_bulk(path: Path, mib: int) -> None:
    """Write a file of which each MiB is another one, at the speed of the disk."""
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(mib):
            file.write(number.to_bytes(8, "big") + block[8:])


async def stalls(ours: Pastryd) -> int:
    """Return how often a loop of the ring stood still."""
    ring = await ours.clients[0].ring()
    counted = 0
    for node in ring.nodes:
        status = await ours.clients[0].status(node.id)
        counted += status["counters"].get("stalls", 0)
    return counted


async def bulk(directory: Path, nodes: int, mib: int, lone: int) -> dict[str, object]:
    """Get 1 KB values one by one, while a process of its own puts a large file and alone.

    Alone half before the put and half after it: the speed of a machine drifts.
    """
    ours = Pastryd(nodes)
    ring = directory / "ring"
    await ours.start(ring)
    try:
        write_bulk(directory / "bulk", mib)
        await ours.in_flight("put", range(VALUES))
        client = ours.clients[-1]

        numbers = cycle(range(VALUES))

        async def gets(count: int) -> list[float]:
            taken = []
            for _ in range(count):
                taken += await latencies_ms([ours.operation("get", next(numbers), client)])
                await asyncio.sleep(PACE_S)
            return taken

        await gets(100)
        alone = await gets(lone // 2)
        suspected, stood = suspicions(ring), await stalls(ours)
        tell(f"putting {mib} MiB")
        began = time.perf_counter()
        putting = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pastryd.cli.tool", "put", str(directory / "bulk")),
            *("--node", ours.nodes[0].address),
            stdout=subprocess.PIPE,
            env=environment(),
        )
        beside: list[float] = []
        async with asyncio.timeout(BULK_TIMEOUT_S):
            ended = asyncio.create_task(putting.communicate())
            while not ended.done():
                beside += await gets(10)
            key, _ = await ended
        spent = time.perf_counter() - began
        alone += await gets(lone - lone // 2)
        assert putting.returncode == 0, f"the put ended with status {putting.returncode}"
        return {
            "nodes": nodes,
            "bulk_mib": mib,
            "bulk_put_mb_per_s": round(mib * MIB / spent / 1e6, 1),
            "key_is_the_hash": key.decode().strip() == _sha256_of(directory / "bulk"),
            "gets_alone": {"count": len(alone), **summary(alone)},
            "gets_beside_it": {
                "count": len(beside),
                **summary(beside),
                "max_ms": round(max(beside), 1),
            },
            "p99_factor": round(summary(beside)["p99_ms"] / summary(alone)["p99_ms"], 2),
            "suspicions": suspicions(ring) - suspected,
            "stalls": await stalls(ours) - stood,
        }
    finally:
        await ours.stop()


def _sha256_of(path: Path) -> str:
    whole = sha256()
    with path.open("rb") as file:
        while piece := file.read(MIB):
            whole.update(piece)
    return whole.hexdigest()


async def burst(directory: Path, nodes: int, count: int, lone: int) -> dict[str, object]:
    """Begin `count` puts of 1 KB at one moment; each must end; then get as before."""
    ours = Pastryd(nodes)
    await ours.start(directory)
    try:
        warm_up = 2 * lone
        await ours.in_flight("put", range(warm_up))
        await ours.in_flight("get", range(warm_up))
        before = await ours.one_by_one("get", range(lone))
        suspected, stood = suspicions(directory), await stalls(ours)
        ended: Counter[str] = Counter()
        stored: list[int] = []

        async def put(number: int) -> None:
            client = ours.clients[number % len(ours.clients)]
            try:
                await ours.operation("put", number, client)()
            except PastryError as error:
                ended[type(error).__name__] += 1
            else:
                ended["done"] += 1
                stored.append(number)

        values = range(warm_up, warm_up + count)
        for number in values:
            value_of(number)  # the same work as in the burst, before it
        began = time.perf_counter()
        await asyncio.gather(*(put(number) for number in values))
        spent = time.perf_counter() - began
        after = await ours.one_by_one("get", range(lone, 2 * lone))
        for number in stored[:: max(1, count // 500)]:
            await ours.operation("get", number, ours.clients[1])()
        return {
            "nodes": nodes,
            "puts_at_once": count,
            "seconds": round(spent, 2),
            "ended": dict(ended),
            "first_get_after_ms": round(after[0], 2),
            "gets_before": summary(before),
            "gets_after": summary(after),
            "suspicions": suspicions(directory) - suspected,
            "stalls": await stalls(ours) - stood,
        }
    finally:
        await ours.stop()
