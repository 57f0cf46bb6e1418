"""The raw limits of this machine and, in the same run, in turns, what a node pulls from a node."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from bench.cluster import environment
from bench.raw_udp import VARIANTS, measure

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
    """Measure everything in each round; return medians and the pull's share of each limit."""
    raw: dict[str, list[float]] = {variant.label: [] for variant in VARIANTS}
    pulls: dict[str, list[float]] = {"pull": []}
    for _ in range(rounds):
        for variant in VARIANTS:
            raw[variant.label].append(measure(variant, seconds))
        pulls["pull"].append(pull(mib))
    reached = median(pulls["pull"])
    return {
        "rounds": rounds,
        "pull_mib": mib,
        "pull_mb_per_s": round(reached, 1),
        "pull_mb_per_s_of_rounds": [round(value, 1) for value in sorted(pulls["pull"])],
        "raw": {
            label: {
                "mb_per_s": round(median(values), 1),
                "mb_per_s_of_rounds": [round(min(values), 1), round(max(values), 1)],
                "pull_share": round(reached / median(values), 3),
            }
            for label, values in raw.items()
        },
    }
