"""Which machine this is, without a path or a host, and when the figures were taken."""

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

MIB = 1 << 20


def describe() -> dict[str, object]:
    """Return what a reader needs to judge figures by."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": os.cpu_count(),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB / 1024),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "receive_buffer_max_kib": _number("/proc/sys/net/core/rmem_max") // 1024,
        "load": round(os.getloadavg()[0], 1),
    }


def steal_s() -> float:
    """Return the seconds for which the host gave this machine's cores to somebody else."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def _field(file: str, name: str) -> str:
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((x.partition(":")[2].strip() for x in lines if x.startswith(name)), "")


def _number(file: str) -> int:
    return int(Path(file).read_text()) if Path(file).exists() else 0
