#!/usr/bin/env python3
"""What a loopback cluster of real nodes does for a client; prints JSON.

Starts `pastryd devcluster`, puts and gets with the public client, and reads memory and CPU of the
nodes from /proc. All copies are durable before a put is acknowledged. p50 and p99 are one client's,
one operation after the other, never a get through the node that the blob was put through; "per_s"
has 24 operations in flight over 4 clients at 4 access nodes. Idle datagrams are the kernel's count
for the whole machine: run nothing else meanwhile. `python scripts/bench --help`: the other
benchmarks, beside other systems and as curves.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench.cluster import cpu_s, datagrams_sent, memory
from bench.ours import Pastryd
from bench.timing import latencies_ms, run, summary, sync_p50_ms

MIB = 1 << 20
WARM_UP = 20
"""The first contact of each pair of nodes costs a handshake."""


async def small(ours: Pastryd, verb: str, lone: range, many: range) -> dict[str, float]:
    """Put or get 1 KB one by one, then with 24 in flight."""
    report = summary(await ours.one_by_one(verb, lone))
    before = cpu_s(ours.pids)
    spent = await ours.in_flight(verb, many)
    report["per_s"] = round(len(many) / spent, 1)
    report["cluster_cpu_ms"] = round((cpu_s(ours.pids) - before) / len(many) * 1e3, 3)
    return report


async def large(ours: Pastryd, mib: int) -> dict[str, float]:
    """Put a blob through one access node, get it through another."""
    blob = Random(1).randbytes(mib * MIB)
    before, started = cpu_s(ours.pids), perf_counter()
    await ours.put_blob("large", blob)
    put_s, put_cpu = perf_counter() - started, cpu_s(ours.pids) - before
    before, started = cpu_s(ours.pids), perf_counter()
    got = await ours.get_blob("large")
    get_s, get_cpu = perf_counter() - started, cpu_s(ours.pids) - before
    assert got == blob, "what comes back is what was put"
    return {
        "put_mb_per_s": round(len(blob) / put_s / 1e6, 1),
        "get_mb_per_s": round(len(blob) / get_s / 1e6, 1),
        "put_cluster_cpu_s": round(put_cpu, 2),
        "get_cluster_cpu_s": round(get_cpu, 2),
    }


async def measure(
    directory: Path, count: int, values: int, mib: int, idle_s: float
) -> dict[str, object]:
    """Run the benchmark on a ring of its own."""
    ours = Pastryd(count)
    report: dict[str, object] = {"nodes": count}
    try:
        await ours.start(directory / "ring")
        # The floors of this machine at this time: one round trip to an access node, one sync.
        report["ping"] = summary(await latencies_ms([ours.clients[0].ping] * 300))
        report["disk_sync_p50_ms"] = sync_p50_ms(directory)
        lone = values // 6
        await ours.one_by_one("put", range(WARM_UP))
        report["put_1k"] = await small(ours, "put", range(WARM_UP, lone), range(lone, values))
        report["get_1k"] = await small(ours, "get", range(lone), range(values))
        report[f"blob_{mib}_mib"] = await large(ours, mib)
        await asyncio.sleep(5)
        before, sent, started = cpu_s(ours.pids), datagrams_sent(), perf_counter()
        await asyncio.sleep(idle_s)
        spent = perf_counter() - started
        report["idle"] = {
            "datagrams_per_s_per_node": round((datagrams_sent() - sent) / spent / count, 2),
            "cpu_percent_per_node": round((cpu_s(ours.pids) - before) / spent / count * 100, 2),
        }
        report["memory_mib_per_node"] = memory(ours.pids)
    finally:
        await ours.stop()
    return report


def main() -> None:
    """Parse arguments, run, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--small", type=int, default=3000, help="how many 1 KB blobs")
    parser.add_argument("--mib", type=int, default=64, help="size of the large blob")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to watch it idle")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="pastryd-bench-") as directory:
        work = measure(Path(directory), options.nodes, options.small, options.mib, options.idle)
        json.dump(run(work), sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    main()
