"""How operations are timed: one after the other, or many under way."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from statistics import median
from typing import Any

try:
    import uvloop
except ImportError:
    uvloop = None

IN_FLIGHT = 24
MIB = 1 << 20

Operation = Callable[[], Awaitable[object]]


def run(work: Coroutine[Any, Any, object]) -> object:
    """Run a benchmark on the loop that the daemon uses."""
    return asyncio.run(work) if uvloop is None else uvloop.run(work)


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def latencies_ms(operations: Iterable[Operation]) -> list[float]:
    """Run operations one after the other; return how long each took."""
    taken = []
    for operation in operations:
        started = time.perf_counter()
        await operation()
        taken.append((time.perf_counter() - started) * 1e3)
    return taken


def summary(latencies: list[float]) -> dict[str, float]:
    """Return p50 and p99."""
    return {"p50_ms": round(median(latencies), 3), "p99_ms": round(quantile(latencies, 0.99), 3)}


async def spent_s(operations: Iterable[Operation], width: int = IN_FLIGHT) -> float:
    """Run operations with `width` under way; return how long all took."""
    queue = iter(operations)

    async def work() -> None:
        for operation in queue:
            await operation()

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(width)))
    return time.perf_counter() - started


def sync_p50_ms(directory: Path, count: int = 200) -> float:
    """Return what writing and syncing 1 KB costs on a disk idle for 2 ms: a put's floor."""
    taken = []
    with (directory / "sync-probe").open("wb", buffering=0) as file:
        file.write(bytes(MIB))
        os.fsync(file.fileno())
        for i in range(count):
            time.sleep(0.002)
            started = time.perf_counter()
            os.pwrite(file.fileno(), bytes(1024), i * 1024)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - started) * 1e3)
    return round(median(taken), 3)
