"""What an operation, a node and a stored object cost as a ring, a blob or a store grows."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from statistics import median

from bench.cluster import cluster, cpu_s, datagrams_sent, environment, memory, memory_mib, pids_of
from bench.compare import Entry, small_round, tell
from bench.contestant import value_of
from bench.ours import Pastryd
from bench.timing import latencies_ms, summary
from pastryd.client import Client
from pastryd.ids import Name
from pastryd.protocol.outbox import WriteItem
from pastryd.store.lmdb_store import LmdbStore

FILL_ITEMS = 20_000
SETTLE_S = {"lan": 20.0, "wan": 90.0}
"""Joins, first probes and the measurements of candidates for the tables are over after that."""
START_TIMEOUT_S = 120.0
SECONDS_A_SIZE = 60.0
"""A blob of a size is not put again once this time is over: those of 1 GiB take most of it."""


async def sizes(
    directory: Path, counts: list[int], rounds: int, lone: int, many: int
) -> list[dict[str, object]]:
    """Put and get 1 KB in rings of these sizes, one ring after the other."""
    rows: list[dict[str, object]] = []
    for count in counts:
        tell(f"ring of {count}")
        ours = Pastryd(count)
        await ours.start(directory / f"ring-{count}")
        try:
            entry = Entry(ours)
            warm_up = 20 * count
            await ours.in_flight("put", range(warm_up))
            await ours.in_flight("get", range(warm_up))
            for number in range(rounds):
                await small_round(entry, warm_up + number * (lone + many), lone, many)
            rows.append({"nodes": count, **entry.report()})
        finally:
            await ours.stop()
    return rows


async def blobs(directory: Path, bytes_of: list[int], nodes: int) -> list[dict[str, object]]:
    """Put and get blobs of these sizes: several of a small one, the large ones a few times."""
    rows: list[dict[str, object]] = []
    ours = Pastryd(nodes)
    await ours.start(directory)
    try:
        await ours.in_flight("put", range(20 * nodes))
        for size in bytes_of:
            tell(f"blob of {size} bytes")
            times = max(2, min(100, (64 << 20) // size))
            put: list[float] = []
            got: list[float] = []
            began = time.perf_counter()
            while len(put) < times and (not put or time.perf_counter() - began < SECONDS_A_SIZE):
                blob = os.urandom(size)
                name = sha256(blob).hexdigest()
                put += await latencies_ms([lambda n=name, b=blob: ours.put_blob(n, b)])
                got += await latencies_ms([lambda n=name: _drain(ours, n)])
            rows.append(
                {
                    "bytes": size,
                    "times": len(put),
                    "put": summary(put),
                    "get": summary(got),
                    "put_mb_per_s": round(size / median(put) / 1e3, 3),
                    "get_mb_per_s": round(size / median(got) / 1e3, 3),
                }
            )
    finally:
        await ours.stop()
    return rows


async def _drain(ours: Pastryd, key: str) -> None:
    """Get a blob through the last access node, piece by piece; the client verifies all of it."""
    async for _ in ours.clients[-1].stream(key):
        pass


async def idle(directory: Path, counts: list[int], seconds: float) -> list[dict[str, object]]:
    """Watch rings that nobody uses; datagrams are the network namespace's own count."""
    rows: list[dict[str, object]] = []
    for preset in ("lan", "wan"):
        for count in counts:
            tell(f"idle ring of {count}, {preset}")
            with cluster(count, directory / f"{preset}-{count}", "--preset", preset) as nodes:
                pids = pids_of(nodes)
                await asyncio.sleep(SETTLE_S[preset])
                before, sent, began = cpu_s(pids), datagrams_sent(), time.perf_counter()
                await asyncio.sleep(seconds)
                spent = time.perf_counter() - began
                rows.append(
                    {
                        "preset": preset,
                        "nodes": count,
                        "datagrams_per_s_per_node": round(
                            (datagrams_sent() - sent) / spent / count, 3
                        ),
                        "cpu_percent_per_node": round(
                            (cpu_s(pids) - before) / spent / count * 100, 3
                        ),
                        "memory_mib": memory(pids),
                    }
                )
    return rows


def fill(data_dir: Path, first: int, end: int) -> None:
    """Store values by number as a node would, without the node."""
    store = LmdbStore(data_dir, None)
    for start in range(first, end, FILL_ITEMS):
        values = [value_of(number) for number in range(start, min(end, start + FILL_ITEMS))]
        items = sorted((sha256(value).digest(), value) for value in values)
        store.apply([WriteItem(0, Name(name), value) for name, value in items])
    store.close()


async def objects(directory: Path, counts: list[int], seconds: float) -> list[dict[str, object]]:
    """Start a node on stores of these sizes; time it until it is ready, and watch it at rest."""
    rows: list[dict[str, object]] = []
    filled = 0
    for count in counts:
        tell(f"store of {count} objects")
        fill(directory / "data", filled, count)
        filled = count
        rows.append(
            {"objects": count, **await _start_and_watch(directory / "data", count, seconds)}
        )
    return rows


async def _start_and_watch(data_dir: Path, count: int, seconds: float) -> dict[str, object]:
    starts = []
    for _ in range(2):
        began = time.perf_counter()
        process, address = await _started(data_dir)
        starts.append(time.perf_counter() - began)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        await process.wait()
    began = time.perf_counter()
    process, address = await _started(data_dir)
    starts.append(time.perf_counter() - began)
    try:
        ready_mib = memory_mib(process.pid, "VmRSS")
        before = cpu_s([process.pid])
        await asyncio.sleep(seconds)
        used = cpu_s([process.pid]) - before
        row: dict[str, object] = {
            "start_s": round(median(starts), 2),
            "start_s_of_rounds": [round(min(starts), 2), round(max(starts), 2)],
            "rss_when_ready_mib": round(ready_mib, 1),
            "rss_mib": round(memory_mib(process.pid, "VmRSS"), 1),
            "private_mib": round(memory_mib(process.pid, "RssAnon"), 1),
            "peak_rss_mib": round(memory_mib(process.pid, "VmHWM"), 1),
            "cpu_percent_at_rest": round(used / seconds * 100, 2),
        }
        async with Client(address) as client:
            await client.ping()
            fresh = [value_of(-number) for number in range(1, 301)]
            row["put"] = summary(await latencies_ms([lambda v=v: client.put(v) for v in fresh]))
            step = max(1, count // 300)
            keys = [sha256(value_of(n)).hexdigest() for n in range(0, count, step)][:300]
            if keys:
                row["get"] = summary(await latencies_ms([lambda k=k: client.get(k) for k in keys]))
        return row
    finally:
        process.kill()
        await process.wait()


async def _started(data_dir: Path) -> tuple[asyncio.subprocess.Process, str]:
    """Start a daemon; return it with its address once it serves."""
    command = [sys.executable, "-m", "pastryd.cli.daemon", "start", "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--log-format", "json", "--data-dir", str(data_dir), "--config", os.devnull),
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stderr is not None
    async with asyncio.timeout(START_TIMEOUT_S):
        while line := await process.stderr.readline():
            event = json.loads(line) if line.startswith(b"{") else {}
            if event.get("event") == "node_ready":
                return process, event["address"]
    raise RuntimeError("the daemon ended before it was ready")
