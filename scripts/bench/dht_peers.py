"""kademlia and OpenDHT in the comparison: as many processes as we have.

Their nodes do the operations themselves, which spares them the way from a client to an access node.
"""

import asyncio
import json
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from bench.contestant import MissingError, free_port

WORKER = Path(__file__).with_name("dht_worker.py")
CLIENTS = 4
START_TIMEOUT_S = 30.0
SETTLE_S = 3.0
"""The joins' own traffic ends before anything is timed."""
LINE_BYTES_MAX = 1 << 24


class _Workers:
    """Processes of `dht_worker.py`."""

    name: str
    keeps: str
    kind: str

    def __init__(self, count: int = 16) -> None:
        self.count = count
        self.pids: list[int] = []
        self.failed = 0
        self._workers: list[asyncio.subprocess.Process] = []

    def python(self) -> str:
        """Return the interpreter that has the package; raises MissingError."""
        raise NotImplementedError

    async def start(self, directory: Path) -> None:
        """Start all nodes, each joined through the first."""
        python = self.python()
        first = None
        for _ in range(self.count):
            port = free_port(socket.SOCK_DGRAM)
            arguments = [self.kind, str(port)] + ([] if first is None else [str(first)])
            worker = await asyncio.create_subprocess_exec(
                python,
                str(WORKER),
                *arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                limit=LINE_BYTES_MAX,
            )
            self._workers.append(worker)
            self.pids.append(worker.pid)
            assert worker.stdout is not None
            async with asyncio.timeout(START_TIMEOUT_S):
                assert await worker.stdout.readline() == b"ready\n", f"{self.name} did not start"
            first = first or port
        await asyncio.sleep(SETTLE_S)

    async def _ask(self, at: int, verb: str, numbers: range, width: int) -> dict[str, object]:
        worker = self._workers[at * (self.count // CLIENTS)]
        assert worker.stdin is not None and worker.stdout is not None
        command = {"verb": verb, "first": numbers.start, "step": numbers.step}
        line = json.dumps({**command, "count": len(numbers), "width": width}) + "\n"
        worker.stdin.write(line.encode())
        answer: dict[str, object] = json.loads(await worker.stdout.readline())
        self.failed += int(str(answer["failed"]))
        return answer

    async def one_by_one(self, verb: str, numbers: range) -> list[float]:
        """Put at the first node, get at another."""
        answer = await self._ask(0 if verb == "put" else CLIENTS - 1, verb, numbers, 1)
        taken = answer["ms"]
        assert isinstance(taken, list)
        return taken

    async def in_flight(self, verb: str, numbers: range) -> float:
        """Spread over four nodes; a get happens at another one than the put did."""
        shift = 0 if verb == "put" else 1
        answers = await asyncio.gather(
            *(
                self._ask((i + shift) % CLIENTS, verb, numbers[i::CLIENTS], 24 // CLIENTS)
                for i in range(CLIENTS)
            )
        )
        return max(float(str(answer["spent_s"])) for answer in answers)

    async def stop(self) -> None:
        """Kill all: they keep nothing."""
        for worker in self._workers:
            worker.kill()
            await worker.wait()


class Kademlia(_Workers):
    """The Python package `kademlia`."""

    name = "kademlia"
    keeps = "4, memory"
    kind = "kademlia"

    def python(self) -> str:
        """Return ours, if it has the package."""
        if find_spec("kademlia") is None:
            raise MissingError("pip install kademlia")
        return sys.executable


class OpenDht(_Workers):
    """OpenDHT through its Python bindings, which Debian has for its own Python."""

    name = "OpenDHT"
    keeps = "8, memory"
    kind = "opendht"

    def python(self) -> str:
        """Return the first interpreter that has the bindings."""
        for python in (sys.executable, "/usr/bin/python3"):
            if Path(python).exists():
                found = subprocess.run(
                    [python, "-c", "import opendht"], capture_output=True, check=False
                )
                if found.returncode == 0:
                    return python
        raise MissingError("apt-get install python3-opendht")
