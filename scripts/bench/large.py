"""A blob larger than any memory it may take: put by one process, got by another, both watched.

Each node of three stores all of it, so the disk needs `nodes + 1` times its size, at most four
times. What is watched is private memory (RssAnon): pages of the store are the kernel's to drop.
"""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable
from hashlib import sha256
from pathlib import Path

from bench.cluster import cpu_s, environment, memory_mib
from bench.compare import tell
from bench.fairness import MIB, write_bulk
from bench.ours import Pastryd

COPIES_MAX = 3
SAMPLE_S = 0.1
TOOL = (sys.executable, "-m", "pastryd.cli.tool")


class Watch:
    """The most private memory that the nodes, and one process beside them, had."""

    def __init__(self, ours: Pastryd) -> None:
        self._pids = ours.pids
        self.nodes_mib = 0.0
        self.client_mib = 0.0

    async def until_end(self, process: asyncio.subprocess.Process) -> None:
        """Sample until the process ends."""
        ended = asyncio.create_task(process.wait())
        while not ended.done():
            nodes = max(memory_mib(pid, "RssAnon") for pid in self._pids)
            self.nodes_mib = max(self.nodes_mib, nodes)
            # A process that has ended but was not waited for yet has no such line: 0.
            self.client_mib = max(self.client_mib, memory_mib(process.pid, "RssAnon"))
            await asyncio.wait((ended,), timeout=SAMPLE_S)
        assert process.returncode == 0, f"it ended with status {process.returncode}"

    async def run(self, mib: int, work: Awaitable[object]) -> dict[str, float]:
        """Return speed, memory and CPU of the nodes for what `until_end` is part of."""
        self.nodes_mib = self.client_mib = 0.0
        before, began = cpu_s(self._pids), time.perf_counter()
        await work
        spent = time.perf_counter() - began
        return {
            "mb_per_s": round(mib * MIB / spent / 1e6, 1),
            "nodes_private_mib_max": round(self.nodes_mib, 1),
            "client_private_mib_max": round(self.client_mib, 1),
            "nodes_cpu_s": round(cpu_s(self._pids) - before, 1),
        }


async def large(directory: Path, nodes: int, mib: int) -> dict[str, object]:
    """Put and get one blob through different nodes, in constant memory."""
    needed = (1 + min(nodes, COPIES_MAX)) * mib * MIB
    free = shutil.disk_usage(directory).free
    assert free > 1.1 * needed, f"{needed >> 30} GiB are needed, {free >> 30} are free"
    ours = Pastryd(nodes)
    await ours.start(directory / "ring")
    try:
        source = directory / "large"
        write_bulk(source, mib)
        watch = Watch(ours)
        key = ""

        async def put() -> None:
            nonlocal key
            command = (*TOOL, "put", str(source), "--node", ours.nodes[0].address)
            process = await asyncio.create_subprocess_exec(
                *command, stdout=subprocess.PIPE, env=environment()
            )
            assert process.stdout is not None
            await watch.until_end(process)
            key = (await process.stdout.read()).decode().strip()

        async def get() -> None:
            whole = sha256()
            process = await asyncio.create_subprocess_exec(
                *(*TOOL, "get", key, "--node", ours.nodes[-1].address),
                stdout=subprocess.PIPE,
                env=environment(),
            )
            watching = asyncio.create_task(watch.until_end(process))
            assert process.stdout is not None
            while piece := await process.stdout.read(MIB):
                whole.update(piece)
            await watching
            assert whole.hexdigest() == key, "what comes back is what was put"

        tell(f"putting {mib} MiB")
        put_row = await watch.run(mib, put())
        source.unlink()
        tell(f"getting {mib} MiB")
        get_row = await watch.run(mib, get())
        return {"nodes": nodes, "mib": mib, "put": put_row, "get": get_row}
    finally:
        await ours.stop()
