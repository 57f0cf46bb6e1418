"""A loopback ring of real daemons, and what the kernel says of processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

TICKS = os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT_S = 90.0
TOP = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Node:
    """A daemon of the ring."""

    address: str
    pid: int


def environment() -> dict[str, str]:
    """Return our environment, so that daemons run the code of this clone with default settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PASTRYD_", "PASTRY_"))}
    return {**kept, "PYTHONPATH": str(TOP)}


@contextmanager
def cluster(count: int, directory: Path, *arguments: str) -> Iterator[list[Node]]:
    """Run `pastryd devcluster` on free ports."""
    command = [sys.executable, "-m", "pastryd.cli.daemon", "devcluster", "-n", str(count)]
    command += ["--base-port", "0", "--json", "--data-dir", str(directory), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            nodes = json.loads(process.stdout.readline())["nodes"]
            yield [Node(node["address"], node["pid"]) for node in nodes]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def pids_of(nodes: list[Node]) -> list[int]:
    """Return the process ids."""
    return [node.pid for node in nodes]


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds that processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory_mib(pid: int, field: str) -> float:
    """Return a field of /proc/PID/status in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def memory(pids: list[int]) -> dict[str, float]:
    """Return what a process has resident in MiB: the median, and the most of it private."""
    return {
        "rss_median": round(median(memory_mib(pid, "VmRSS") for pid in pids), 1),
        "private_median": round(median(memory_mib(pid, "RssAnon") for pid in pids), 1),
        "private_max": round(max(memory_mib(pid, "RssAnon") for pid in pids), 1),
    }


def datagrams_sent() -> int:
    """Return how many UDP datagrams this machine has sent; segments of a burst count as one."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    lines6 = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return int(values[names.index("OutDatagrams")]) + int(lines6.get("Udp6OutDatagrams", 0))
