"""The raw limits of this machine and, in the same run, in turns, what a node pulls from a node."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from bench.cluster import environment
from bench.raw_udp import VARIANTS, measure

DATAGRAMS = [1200, 8900, 65_000]
"""What every path carries, jumbo frames, and about what loopback does."""
SCRIPTS = Path(__file__).resolve().parents[1]


def _run(script: str, *arguments: str) -> Any:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment(), check=True)
    return json.loads(done.stdout)


def pull(mib: int, *arguments: str) -> float:
    """Return MB/s of pulls from node process to node process: sealed, framed, hashed."""
    rounds = _run("bench_pull.py", "--mib", str(mib), "--rounds", "3", *arguments)["rounds"]
    return median(one["MB_per_s"] for one in rounds)


def forward(times: int) -> dict[str, Any]:
    """Return what `bench_forward.py` says, of several runs."""
    runs = [_run("bench_forward.py") for _ in range(times)]
    return {
        "alone_us_median": median(run["alone"]["total_us"] for run in runs),
        "burst_us_median": median(run["in_bursts_of_16"]["total_us"] for run in runs),
        "runs": runs,
    }


def limits(rounds: int, seconds: float, mib: int) -> dict[str, object]:
    """Measure everything in each round; return medians, and pulls of as long datagrams beside."""
    raw: dict[str, list[float]] = {variant.label: [] for variant in VARIANTS}
    pulls: dict[int, list[float]] = {size: [] for size in DATAGRAMS}
    for _ in range(rounds):
        for variant in VARIANTS:
            raw[variant.label].append(measure(variant, seconds))
        for size in DATAGRAMS:
            pulls[size].append(pull(mib, "--datagram", str(size)))
    reached = {size: median(values) for size, values in pulls.items()}
    return {
        "rounds": rounds,
        "pull_mib": mib,
        "pulls": {str(size): _spread(values) for size, values in pulls.items()},
        "raw": {
            variant.label: {
                **_spread(raw[variant.label]),
                "pull_share": round(
                    reached[variant.datagram_bytes] / median(raw[variant.label]), 3
                ),
            }
            for variant in VARIANTS
        },
    }


def _spread(values: list[float]) -> dict[str, object]:
    return {
        "mb_per_s": round(median(values), 1),
        "mb_per_s_of_rounds": [round(min(values), 1), round(max(values), 1)],
    }
