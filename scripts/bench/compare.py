"""Us and what a user would otherwise pick, in one run: the contestants take turns in each round."""

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter, process_time

from bench.byte_servers import Nginx, Redis
from bench.cluster import cpu_s, memory
from bench.contestant import BlobContestant, Contestant, MissingError
from bench.dht_peers import Kademlia, OpenDht
from bench.machine import steal_s
from bench.ours import Pastryd
from bench.timing import latencies_ms, summary, sync_p50_ms

MIB = 1 << 20
WARM_UP = 240
"""The first contact of each pair of nodes costs a handshake or a lookup."""


@dataclass(slots=True)
class Entry:
    """A contestant and what was measured of it, round by round."""

    contestant: Contestant
    latencies: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})
    p50s: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})
    per_s: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})
    cpu_ms: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})
    client_cpu_ms: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})
    blob: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})
    error: str = ""

    def report(self) -> dict[str, object]:
        """Return the figures: medians of the rounds, and how far the rounds lie apart."""
        found: dict[str, object] = {"keeps": self.contestant.keeps}
        if self.error:
            found["failed"] = self.error
        for verb in ("put", "get"):
            if self.per_s[verb]:
                found[f"{verb}_1k"] = {
                    **summary(self.latencies[verb]),
                    "p50_ms_of_rounds": _spread(self.p50s[verb], 3),
                    "per_s": round(median(self.per_s[verb])),
                    "per_s_of_rounds": _spread(self.per_s[verb], 0),
                    "cluster_cpu_ms": round(median(self.cpu_ms[verb]), 3),
                    "client_cpu_ms": round(median(self.client_cpu_ms[verb]), 3),
                }
            if self.blob[verb]:
                found[f"{verb}_blob_mb_per_s"] = round(median(self.blob[verb]), 1)
                found[f"{verb}_blob_mb_per_s_of_rounds"] = _spread(self.blob[verb], 1)
        found["memory_mib"] = memory(self.contestant.pids)
        failed = getattr(self.contestant, "failed", 0)
        if failed:
            found["operations_failed"] = failed
        return found


def _spread(values: list[float], digits: int) -> list[float]:
    return [round(min(values), digits), round(max(values), digits)]


async def small_round(entry: Entry, first: int, lone: int, many: int) -> None:
    """Put new values and get them, one by one and many at once."""
    contestant = entry.contestant
    alone = range(first, first + lone)
    together = range(first + lone, first + lone + many)
    for verb in ("put", "get"):
        taken = await contestant.one_by_one(verb, alone)
        entry.latencies[verb] += taken
        entry.p50s[verb].append(median(taken))
        before, own = cpu_s(contestant.pids), process_time()
        spent = await contestant.in_flight(verb, together)
        entry.per_s[verb].append(many / spent)
        entry.cpu_ms[verb].append((cpu_s(contestant.pids) - before) / many * 1e3)
        entry.client_cpu_ms[verb].append((process_time() - own) / many * 1e3)


async def blob_round(entry: Entry, name: str, blob: bytes) -> None:
    """Put a large value and get it back."""
    contestant: BlobContestant = entry.contestant  # type: ignore[assignment]
    started = perf_counter()
    await contestant.put_blob(name, blob)
    entry.blob["put"].append(len(blob) / (perf_counter() - started) / 1e6)
    started = perf_counter()
    got = await contestant.get_blob(name)
    entry.blob["get"].append(len(blob) / (perf_counter() - started) / 1e6)
    assert got == blob, "what comes back is what was put"


async def compare(
    directory: Path, nodes: int, rounds: int, lone: int, many: int, mib: int
) -> dict[str, object]:
    """Run everybody that is installed."""
    contestants: list[Contestant] = [
        Pastryd(nodes),
        Kademlia(nodes),
        OpenDht(nodes),
        Redis(synced=False),
        Redis(synced=True),
        Nginx(),
    ]
    missing: dict[str, str] = {}
    entries: list[Entry] = []
    floors: dict[str, list[float]] = {"ping_p50_ms": [], "disk_sync_p50_ms": []}
    async with AsyncExitStack() as stack:
        for number, contestant in enumerate(contestants):
            stack.push_async_callback(contestant.stop)
            try:
                await contestant.start(directory / str(number))
            except MissingError as error:
                missing[contestant.name] = str(error)
                tell(f"{contestant.name} is not installed, skipped: {error}")
                continue
            entries.append(Entry(contestant))
        ours = contestants[0]
        assert isinstance(ours, Pastryd)
        for entry in entries:
            await attempt(entry, entry.contestant.in_flight("put", range(WARM_UP)))
            await attempt(entry, entry.contestant.in_flight("get", range(WARM_UP)))
        stolen, began = steal_s(), perf_counter()
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            pings = await latencies_ms([ours.clients[0].ping] * 100)
            floors["ping_p50_ms"].append(median(pings))
            floors["disk_sync_p50_ms"].append(sync_p50_ms(directory, 50))
            first = WARM_UP + number * (lone + many)
            for entry in entries[number % len(entries) :] + entries[: number % len(entries)]:
                await attempt(entry, small_round(entry, first, lone, many))
        for number in range(rounds):
            blob = Random(number).randbytes(mib * MIB)
            for entry in entries:
                if hasattr(entry.contestant, "put_blob"):
                    await attempt(entry, blob_round(entry, f"blob-{number}", blob))
        return {
            "nodes": nodes,
            "rounds": rounds,
            "one_by_one_per_round": lone,
            "in_flight_per_round": many,
            "blob_mib": mib,
            "floors": {name: round(median(values), 3) for name, values in floors.items()},
            "stolen_share": round((steal_s() - stolen) / (perf_counter() - began), 3),
            "contestants": {entry.contestant.name: entry.report() for entry in entries},
            "not_installed": missing,
        }


async def attempt(entry: Entry, work) -> None:  # type: ignore[no-untyped-def]
    """Do a contestant's turn unless it failed before; what fails is noted, the others go on."""
    if entry.error:
        work.close()
        return
    try:
        await work
    except Exception as error:
        entry.error = f"{type(error).__name__}: {error}"[:200]
        tell(f"{entry.contestant.name} failed: {entry.error}")


def tell(line: str) -> None:
    """Say on stderr how it goes."""
    print(line, file=sys.stderr, flush=True)
