"""Real processes for end-to-end tests: daemons, rings and commands, each with a deadline.

Waiting is always for a condition (a line, an exit, a file), never for a set time.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

DEADLINE_S = 60.0
TOP = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """Return our environment without what would change pastryd's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PASTRYD_", "PASTRY_"))}
    return {**kept, "PYTHONPATH": str(TOP), "PYTHONUNBUFFERED": "1", **more}


def daemon_command(*arguments: str) -> list[str]:
    """Return the command line of `pastryd`."""
    return [sys.executable, "-m", "pastryd.cli.daemon", *arguments]


def tool_command(*arguments: str) -> list[str]:
    """Return the command line of `pastry`."""
    return [sys.executable, "-m", "pastryd.cli.tool", *arguments]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command that ended left: status, stdout, stderr."""

    status: int
    out: bytes
    err: str

    def json(self) -> object:
        """Return stdout as one JSON document."""
        document: object = json.loads(self.out)
        return document


def pastry(*arguments: str, node: str = "", stdin: bytes = b"", **variables: str) -> Outcome:
    """Run `pastry` to its end."""
    if node:
        variables["PASTRY_NODE"] = node
    done = subprocess.run(
        tool_command(*arguments),
        input=stdin,
        capture_output=True,
        env=environment(**variables),
        timeout=DEADLINE_S,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


class Process:
    """A process that goes on; its stdout and stderr are read as lines."""

    def __init__(self, command: list[str], stdin: int = subprocess.DEVNULL, **variables: str):
        self.popen = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(**variables),
            text=True,
        )
        self.seen: list[str] = []
        self._lines: Queue[str | None] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def line_where(self, wanted: Callable[[str], bool]) -> str:
        """Wait for a line; fail with all that was said when it does not come."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                line = None
            assert line is not None, f"never said; it said: {''.join(self.seen)}"
            self.seen.append(line)
            if wanted(line):
                return line

    def event(self, name: str) -> dict[str, object]:
        """Wait for a JSON log event of this name."""
        found: dict[str, object] = json.loads(
            self.line_where(lambda line: line.startswith("{") and json.loads(line)["event"] == name)
        )
        return found

    def wait(self) -> int:
        """Wait for the end; return the exit status."""
        return self.popen.wait(DEADLINE_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    def kill(self) -> None:
        """End it, if it has not ended."""
        with suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.wait(DEADLINE_S)


@dataclass(frozen=True, slots=True)
class RingNode:
    """A member of a `dev_ring`."""

    address: str
    id: str
    pid: int


@contextmanager
def dev_ring(count: int, directory: Path, *options: str) -> Iterator[list[RingNode]]:
    """Run `pastryd devcluster` on free ports."""
    command = daemon_command("devcluster", "-n", str(count), "--base-port", "0", "--json")
    cluster = Process([*command, "--data-dir", str(directory), *options])
    try:
        document = json.loads(cluster.line_where(lambda line: line.startswith("{")))
        yield [RingNode(n["address"], n["id"], n["pid"]) for n in document["nodes"]]
    finally:
        cluster.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            cluster.popen.wait(20)
        cluster.kill()


def wait_until(condition: Callable[[], bool], what: str, within_s: float = DEADLINE_S) -> None:
    """Wait for a condition of the outside world; fail when it does not come true in time."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        pause.wait(0.02)


def is_alive(pid: int) -> bool:
    """Tell whether a process exists and is not a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True
