#!/usr/bin/env python3
"""MB/s of pulls from one node process to another over loopback: sealed, framed, hashed.

Two real nodes. The holder has the items in memory, the other pulls them, several at a time, and
keeps none: what is measured is sockets, seals, protocol and SHA-256, no disk and no client.

    PYTHONPATH=. python scripts/bench_pull.py [--mib 256] [--rounds 3] [--in-flight 4]
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import structlog
import uvloop

from pastryd.config import OBJECT_BYTES_MAX, Config
from pastryd.ids import Name
from pastryd.net import udp
from pastryd.protocol.pull_state import Pulled, PullResult
from pastryd.service import Service
from pastryd.state.handle import Handle

Identity = tuple[bytes, str, int, int]
LISTEN = "127.0.0.1:0"


@dataclass
class Settings:
    """What `Service` wants to know."""

    data_dir: Path
    bootstrap: tuple[str, ...] = ()
    bootstrap_timeout: float | None = 10.0
    listen: str = LISTEN
    advertise: None = None
    capacity: None = None
    network_key_file: None = None

    def config(self) -> Config:
        """Return parameters under which no copy moves by itself."""
        return Config.lan(replicas=1)


def hold(pipe: Connection, directory: str, items: int, listen: str = LISTEN) -> None:
    """Be the holder: pin random items in memory, tell where we are and what we have."""

    async def run() -> None:
        service = Service(Settings(Path(directory), listen=listen))
        await service.start()
        rng = Random(1)
        names = []
        for _ in range(items):
            value = rng.randbytes(OBJECT_BYTES_MAX)
            names.append(Name(sha256(value).digest()))
            service.node.items.storage.pin(names[-1], value)
        me = service.node.identity
        pipe.send(((me.public_key, *me.endpoint, me.incarnation), names))
        while not await asyncio.to_thread(pipe.poll, 60):
            pass
        usage = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send((usage.ru_utime + usage.ru_stime, service.node.stats.counters))
        await service.stop()

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(run())


class Pulls:
    """Pulls items from one holder, several at a time, as long as `names` has more."""

    def __init__(
        self, service: Service, holder: Handle, names: Iterator[Name], background: bool = False
    ) -> None:
        self._node = service.node
        self._call = service.driver.call
        self._peer = self._node.context.peers.of(holder)
        self._names = names
        self._background = background
        self._under_way = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.items = 0
        """How many have come."""

    def start(self, in_flight: int) -> None:
        """Begin; `done` is set after the last one."""
        for _ in range(in_flight):
            self._call(self._next)

    def _next(self, now: float) -> None:
        name = next(self._names, None)
        if name is None:
            if not self._under_way and not self.done.done():
                self.done.set_result(None)
            return
        self._under_way += 1
        self._node.items.transfer.pull(
            name,
            OBJECT_BYTES_MAX,
            [self._peer],
            self._pulled,
            now,
            background=self._background,
            deadline_s=60,
        )

    def _pulled(self, result: PullResult, now: float) -> None:
        assert isinstance(result, Pulled), result
        self._under_way -= 1
        self.items += 1
        self._next(now)


async def pull_all(
    service: Service, holder: Handle, names: list[Name], in_flight: int
) -> dict[str, float]:
    """Pull all items once; return MB/s and our CPU seconds."""
    pulls = Pulls(service, holder, iter(names))
    cpu, began = time.process_time(), time.perf_counter()
    pulls.start(in_flight)
    await pulls.done
    spent = time.perf_counter() - began
    return {
        "MB_per_s": round(len(names) * OBJECT_BYTES_MAX / spent / 1e6, 1),
        "puller_cpu_s": round(time.process_time() - cpu, 3),
    }


async def bench(pipe: Connection, directory: str, rounds: int, in_flight: int) -> dict[str, object]:
    """Join the holder and pull everything from it `rounds` times."""
    identity, names = await asyncio.to_thread(pipe.recv)
    holder = Handle(*identity)
    service = Service(Settings(Path(directory), (f"{holder.host}:{holder.port}",)))
    await service.start()
    results = [await pull_all(service, holder, names, in_flight) for _ in range(rounds)]
    pipe.send(None)
    cpu_s, counters = await asyncio.to_thread(pipe.recv)
    counted = service.node.stats.counters
    report: dict[str, object] = {
        "rounds": results,
        "holder_cpu_s": round(cpu_s, 3),
        "segments_lost": counted.get("segments_lost", 0),
        "puller": {k: v for k, v in sorted(counted.items()) if v},
        "holder": {k: v for k, v in sorted(counters.items()) if v},
    }
    await service.stop()
    return report


def main() -> None:
    """Parse arguments, run, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--datagram", type=int, default=udp.DATAGRAM_BYTES_MAX, help="longest one")
    options = parser.parse_args()
    udp.DATAGRAM_BYTES_MAX = options.datagram
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    ours, theirs = multiprocessing.Pipe()
    with TemporaryDirectory(prefix="pastryd-bench-") as one, TemporaryDirectory() as two:
        process = multiprocessing.Process(target=hold, args=(theirs, one, options.mib))
        process.start()
        report = uvloop.run(bench(ours, two, options.rounds, options.in_flight))
        process.join()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
