#!/usr/bin/env python3
"""What a loopback cluster of real nodes does for a client; prints JSON.

Starts `pastryd devcluster`, puts and gets with the public client, and reads memory and CPU of the
nodes from /proc. All copies are durable before a put is acknowledged. p50 and p99 are one client's,
one operation after the other, never a get through the node that the blob was put through; "per_s"
has 24 operations in flight over 4 clients at 4 access nodes. Idle datagrams are the kernel's count
for the whole machine: run nothing else meanwhile.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random
from statistics import median

from pastryd.client import Client

CLIENTS = 4
IN_FLIGHT = 24
MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")

Node = dict[str, object]


@contextmanager
def cluster(count: int, directory: Path) -> Iterator[list[Node]]:
    """Run `pastryd devcluster` on free ports."""
    command = [sys.executable, "-m", "pastryd.cli.daemon", "devcluster", "-n", str(count)]
    command += ["--base-port", "0", "--json", "--data-dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["nodes"]
        finally:
            process.send_signal(signal.SIGINT)


def cpu_s(nodes: list[Node]) -> float:
    """Return the CPU seconds that the nodes have used."""
    ticks = 0
    for node in nodes:
        fields = Path(f"/proc/{node['pid']}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory_mib(node: Node, field: str) -> float:
    """Return a field of /proc/PID/status in MiB."""
    for line in Path(f"/proc/{node['pid']}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def datagrams_sent() -> int:
    """Return how many UDP datagrams this machine has sent."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    lines6 = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return int(values[names.index("OutDatagrams")]) + int(lines6.get("Udp6OutDatagrams", 0))


def sync_p50_ms(directory: Path, count: int = 200) -> float:
    """Return what writing and syncing 1 KB costs on a disk idle for 2 ms: a put's floor."""
    latencies = []
    with (directory / "sync-probe").open("wb", buffering=0) as file:
        file.write(bytes(MIB))
        os.fsync(file.fileno())
        for i in range(count):
            time.sleep(0.002)
            started = time.perf_counter()
            os.pwrite(file.fileno(), bytes(1024), i * 1024)
            os.fdatasync(file.fileno())
            latencies.append((time.perf_counter() - started) * 1e3)
    return round(median(latencies), 3)


async def one_by_one(operations: list[Callable[[], Awaitable[object]]]) -> dict[str, float]:
    """Run operations one after the other; return the latencies' p50 and p99 in ms."""
    latencies = []
    for operation in operations:
        started = time.perf_counter()
        await operation()
        latencies.append((time.perf_counter() - started) * 1e3)
    latencies.sort()
    return {
        "p50_ms": round(median(latencies), 3),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)], 3),
    }


async def in_flight(
    nodes: list[Node], operations: list[Callable[[], Awaitable[object]]]
) -> dict[str, float]:
    """Run operations with 24 under way; return ops/s and cluster CPU per operation."""
    queue = iter(operations)

    async def work() -> None:
        for operation in queue:
            await operation()

    before, started = cpu_s(nodes), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    spent = time.perf_counter() - started
    return {
        "per_s": round(len(operations) / spent, 1),
        "cluster_cpu_ms": round((cpu_s(nodes) - before) / len(operations) * 1e3, 3),
    }


async def measure(
    nodes: list[Node], directory: Path, small: int, big_mib: int, idle_s: float
) -> dict[str, object]:
    """Run the benchmark on a ring."""
    random = Random(1)
    report: dict[str, object] = {"nodes": len(nodes)}
    async with AsyncExitStack() as stack:
        step = max(1, len(nodes) // CLIENTS)
        clients = [
            await stack.enter_async_context(Client(str(node["address"])))
            for node in nodes[::step][:CLIENTS]
        ]
        for client in clients:
            await client.ping()
        values = [random.randbytes(1024) for _ in range(small)]
        keys: list[str] = []

        async def put(i: int, client: Client) -> None:
            keys.append((await client.put(values[i])).key)

        async def get(i: int, client: Client) -> None:
            assert await client.get(keys[i]) == values_by_key[keys[i]]

        # The floors of this machine at this time: one round trip to an access node, one sync.
        report["ping"] = await one_by_one([clients[0].ping for _ in range(300)])
        report["disk_sync_p50_ms"] = sync_p50_ms(directory)
        lone = small // 6
        for i in range(20):  # the first contact of each pair of nodes costs a handshake
            await put(i, clients[0])
        report["put_1k"] = await one_by_one(
            [lambda i=i: put(i, clients[0]) for i in range(20, lone)]
        )
        report["put_1k"] |= await in_flight(
            nodes, [lambda i=i: put(i, clients[i % CLIENTS]) for i in range(lone, small)]
        )
        values_by_key = {sha256(value).hexdigest(): value for value in values}
        report["get_1k"] = await one_by_one([lambda i=i: get(i, clients[1]) for i in range(lone)])
        report["get_1k"] |= await in_flight(
            nodes, [lambda i=i: get(i, clients[(i + 1) % CLIENTS]) for i in range(small)]
        )

        big = random.randbytes(big_mib * MIB)
        before, started = cpu_s(nodes), time.perf_counter()
        key = (await clients[0].put(big)).key
        put_s, put_cpu = time.perf_counter() - started, cpu_s(nodes) - before
        before, started = cpu_s(nodes), time.perf_counter()
        got = await clients[-1].get(key)
        get_s, get_cpu = time.perf_counter() - started, cpu_s(nodes) - before
        assert got == big, "what comes back is what was put"
        report[f"blob_{big_mib}_mib"] = {
            "put_mb_per_s": round(len(big) / put_s / 1e6, 1),
            "get_mb_per_s": round(len(big) / get_s / 1e6, 1),
            "put_cluster_cpu_s": round(put_cpu, 2),
            "get_cluster_cpu_s": round(get_cpu, 2),
        }
    await asyncio.sleep(5)
    before, sent, started = cpu_s(nodes), datagrams_sent(), time.perf_counter()
    await asyncio.sleep(idle_s)
    spent = time.perf_counter() - started
    report["idle"] = {
        "datagrams_per_s_per_node": round((datagrams_sent() - sent) / spent / len(nodes), 2),
        "cpu_percent_per_node": round((cpu_s(nodes) - before) / spent / len(nodes) * 100, 2),
    }
    report["memory_mib_per_node"] = {
        "rss_median": round(median(memory_mib(n, "VmRSS") for n in nodes), 1),
        "private_median": round(median(memory_mib(n, "RssAnon") for n in nodes), 1),
        "private_max": round(max(memory_mib(n, "RssAnon") for n in nodes), 1),
    }
    return report


def main() -> None:
    """Parse arguments, run, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--small", type=int, default=3000, help="how many 1 KB blobs")
    parser.add_argument("--mib", type=int, default=64, help="size of the large blob")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to watch it idle")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="pastryd-bench-") as directory,
        cluster(options.nodes, Path(directory)) as nodes,
    ):
        run = measure(nodes, Path(directory), options.small, options.mib, options.idle)
        json.dump(asyncio.run(run), sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    main()
