"""A cluster of real daemons on loopback, each with its own port and folder, for end-to-end tests.

Nodes can be killed, stopped, continued, restarted with their data, and told to leave. Everything
that waits has a deadline; whatever happens, no child outlives the cluster.
"""

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from pastryd.client import Client
from pastryd.errors import PastryError
from tests.support.processes import DEADLINE_S, daemon_command, environment, pastry

MIB = 1 << 20


class ClusterNode:
    """One daemon: its address and folder stay, its process may be replaced."""

    def __init__(self, address: str, directory: Path, options: tuple[str, ...]) -> None:
        self.address = address
        self.directory = directory
        self.options = options
        self.id = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has a process (stopped or not)."""
        return self.process is not None and self.process.poll() is None

    def start(self, bootstrap: str | None) -> None:
        """Start it, with whatever its folder holds."""
        command = daemon_command("start", "--stop-with-stdin", "--config", os.devnull)
        command += ["--listen", self.address, "--data-dir", str(self.directory / "data")]
        command += ["--log-format", "json", *self.options]
        if bootstrap is not None:
            command += ["--bootstrap", bootstrap]
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            # It ends when its stdin does: not even a killed test leaves it behind.
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment()
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; return the exit status."""
        assert self.process is not None
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE_S)

    def log(self) -> str:
        """Return what it said so far."""
        return (self.directory / "log").read_text()

    def private_bytes(self) -> int:
        """Return its RssAnon."""
        return private_bytes(self.pid)


class Cluster:
    """Daemons of one ring."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes: list[ClusterNode] = []
        self.blobs: dict[str, bytes] = {}
        """Small blobs that were put, by key."""
        self.killed: list[ClusterNode] = []
        self.random = random.Random(len(str(directory)))

    @property
    def running(self) -> list[ClusterNode]:
        """The nodes that have a process."""
        return [node for node in self.nodes if node.running]

    def add(self, *options: str) -> ClusterNode:
        """Start one more node; it joins through one that runs."""
        number = len(self.nodes)
        node = ClusterNode(f"127.0.0.1:{free_port()}", self.directory / f"node-{number}", options)
        running = self.running
        node.start(running[0].address if running else None)
        self.nodes.append(node)
        return node

    def close(self) -> None:
        """Kill all and remove what they stored."""
        for node in self.nodes:
            if node.process is not None:
                with suppress(ProcessLookupError):
                    node.process.kill()
        for node in self.nodes:
            if node.process is not None:
                node.process.wait(DEADLINE_S)
        shutil.rmtree(self.directory, ignore_errors=True)

    def ring(self, node: ClusterNode | None = None) -> tuple[bool, dict[str, str]]:
        """Ask `pastry ring --json`: whether it is consistent, and addresses by id."""
        outcome = pastry("ring", "--json", node=(node or self.running[0]).address)
        if not outcome.out:
            return False, {}
        document: Any = outcome.json()
        assert (outcome.status == 0) == document["consistent"]
        ids = [n["id"] for n in document["nodes"]]
        assert len(set(ids)) == len(ids), "a node is listed twice"
        return document["consistent"], {n["id"]: n["address"] for n in document["nodes"]}

    def wait_for_ring(self, within_s: float = DEADLINE_S) -> float:
        """Wait until exactly the running nodes are one consistent ring; return how long it took."""
        began = time.monotonic()
        expected = sorted(node.address for node in self.running)
        while True:
            consistent, found = self.ring()
            if consistent and sorted(found.values()) == expected:
                break
            waited = time.monotonic() - began
            assert waited < within_s, f"{len(found)} of {len(expected)} nodes: {sorted(found)}"
        by_address = {address: node_id for node_id, address in found.items()}
        for node in self.running:
            node_id = by_address[node.address]
            assert node.id in ("", node_id), "it came back as somebody else"
            node.id = node_id
        return time.monotonic() - began

    def sample(self, count: int, safe_for: Iterable[list[str]]) -> list[ClusterNode]:
        """Choose nodes at random, never the first; none of these sets of holders all among them.

        Of 16 nodes 4 hold all three copies of some item in about one draw of nine.
        """
        sets = [set(holders) for holders in safe_for]
        for _ in range(200):
            chosen = self.random.sample(self.running[1:], count)
            ids = {node.id for node in chosen}
            if not any(holders <= ids for holders in sets):
                return chosen
        raise AssertionError("no such nodes")


@contextmanager
def cluster_of(count: int, directory: Path, *options: str) -> Iterator[Cluster]:
    """Run a ring of `count` nodes; if something fails, say what the nodes last said."""
    cluster = Cluster(directory)
    try:
        for _ in range(count):
            cluster.add(*options)
        wait_for_first = cluster.nodes[0]
        deadline = time.monotonic() + DEADLINE_S
        while pastry("ping", "--timeout", "2s", node=wait_for_first.address).status:
            assert time.monotonic() < deadline, wait_for_first.log()
        cluster.wait_for_ring()
        yield cluster
        for node in cluster.nodes:
            assert "node_failed" not in node.log(), node.log()
            assert "Traceback" not in node.log(), node.log()
    finally:
        cluster.close()


PORTS = range(12_000, 32_000)
"""Below those that systems hand out: any socket of a test beside ours might be given one of those
before the node that it was meant for."""


def free_port() -> int:
    """Return a UDP port that is free now, and that nobody is given who does not ask for it."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def private_bytes(pid: int) -> int:
    """Return a process's RssAnon, 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


class MemoryWatch:
    """Samples the private memory of processes while a block runs."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.most: dict[int, int] = {}

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for pid in self._pids():
                self.most[pid] = max(self.most.get(pid, 0), private_bytes(pid))


def write_random(path: Path, size: int) -> list[str]:
    """Write a file of random bytes; return the names of its chunks, preceded by that of all."""
    whole = sha256()
    chunks = []
    with path.open("wb") as file:
        for offset in range(0, size, MIB):
            piece = os.urandom(min(MIB, size - offset))
            file.write(piece)
            whole.update(piece)
            chunks.append(sha256(piece).hexdigest())
    return [whole.hexdigest(), *chunks]


async def gather_limited(work: Iterable[Awaitable[Any]], at_once: int = 16) -> list[Any]:
    """Await many things, a few at a time."""
    room = asyncio.Semaphore(at_once)

    async def one(item: Awaitable[Any]) -> Any:
        async with room:
            return await item

    return await asyncio.gather(*[one(item) for item in work])


async def holders_of(client: Client, keys: Iterable[str]) -> dict[str, list[str]]:
    """Return the ids of the live holders of objects, as `stat` tells them."""

    async def one(key: str) -> tuple[str, list[str]]:
        try:
            document = await client.stat(key)
        except PastryError:
            return key, []
        return key, [holder["id"] for holder in document["replicas"][0]["holders"]]

    return dict(await gather_limited(one(key) for key in keys))


async def wait_replicated(
    client: Client, keys: Iterable[str], copies: int = 3, within_s: float = 60.0
) -> float:
    """Wait until every object has so many live holders; return how long it took."""
    began = time.monotonic()
    lacking = list(keys)
    while True:
        found = await holders_of(client, lacking)
        lacking = [key for key, holders in found.items() if len(holders) < copies]
        waited = time.monotonic() - began
        if not lacking:
            return waited
        assert waited < within_s, f"{len(lacking)} objects lack copies after {waited:.1f} s"
