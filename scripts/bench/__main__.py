"""Benchmarks of pastryd; each prints JSON and, with --write, renews its part of the results page.

    python scripts/bench compare     us and what a user would otherwise pick, in turns
    python scripts/bench limits      the raw limits of this machine, and a pull's share of them
    python scripts/bench forward     what a forwarded message costs (bench_forward.py, some runs)
    python scripts/bench sizes       put and get versus cluster size
    python scripts/bench blobs       put and get versus blob size
    python scripts/bench objects     a node's start, memory and CPU versus stored objects
    python scripts/bench idle        packets, CPU and memory of a ring at rest, both presets
    python scripts/bench fairness    small gets beside a bulk put
    python scripts/bench burst       10,000 puts at once
    python scripts/bench large       memory of client and nodes while 5 GiB are put and got
    python scripts/bench page        write the page and its plots again from the figures

On a virtual machine --memory-in-use fills the page cache first (memory.py says why).
`idle` counts the datagrams of its network namespace: with other traffic on the machine, run it as
`unshare --net sh -c 'ip link set lo up; python scripts/bench idle'`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import compare, curves, fairness, large, limits, results
from bench.machine import describe
from bench.memory import memory_in_use
from bench.timing import run

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"

Benchmark = Callable[[Path, argparse.Namespace], object]


def whole_numbers(text: str) -> list[int]:
    """Parse `1,2,4`."""
    return [int(part) for part in text.split(",")]


def parse() -> argparse.Namespace:
    """Return the options; `work` is the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, work: Benchmark, **options: object) -> None:
        one = commands.add_parser(name)
        for option, default in options.items():
            kind = whole_numbers if isinstance(default, list) else type(default)
            one.add_argument(f"--{option}", type=kind, default=default)
        one.add_argument("--write", action="store_true", help="renew docs/results/performance.*")
        one.add_argument("--memory-in-use", action="store_true", help="fill the page cache first")
        one.set_defaults(work=work)

    command(
        "compare",
        lambda d, o: run(compare.compare(d, o.nodes, o.rounds, o.lone, o.many, o.mib)),
        **{"nodes": 16, "rounds": 5, "lone": 200, "many": 1200, "mib": 64},
    )
    command(
        "limits",
        lambda d, o: limits.limits(o.rounds, o.seconds, o.mib),
        **{"rounds": 5, "seconds": 1.0, "mib": 256},
    )
    command("forward", lambda d, o: limits.forward(o.times), times=3)
    command(
        "sizes",
        lambda d, o: run(curves.sizes(d, o.counts, o.rounds, o.lone, o.many)),
        **{"counts": [1, 2, 4, 8, 16, 32, 64], "rounds": 3, "lone": 200, "many": 1200},
    )
    command(
        "blobs",
        lambda d, o: run(curves.blobs(d, o.bytes, o.nodes)),
        bytes=[1, 1 << 10, 32 << 10, 1 << 20, 16 << 20, 128 << 20, 1 << 30],
        nodes=16,
    )
    command(
        "objects",
        lambda d, o: run(curves.objects(d, o.counts, o.seconds)),
        **{"counts": [0, 1000, 10_000, 100_000, 1_000_000], "seconds": 20.0},
    )
    command(
        "idle",
        lambda d, o: run(curves.idle(d, o.counts, o.seconds)),
        **{"counts": [4, 16, 64], "seconds": 60.0},
    )
    command(
        "fairness",
        lambda d, o: run(fairness.bulk(d, o.nodes, o.mib, o.lone)),
        **{"nodes": 16, "mib": 5120, "lone": 2000},
    )
    command(
        "burst",
        lambda d, o: run(fairness.burst(d, o.nodes, o.puts, o.lone)),
        **{"nodes": 16, "puts": 10_000, "lone": 250},
    )
    command("large", lambda d, o: run(large.large(d, o.nodes, o.mib)), **{"nodes": 3, "mib": 5120})
    commands.add_parser("page").set_defaults(work=None, write=True)
    return parser.parse_args()


def main() -> None:
    """Run one benchmark."""
    options = parse()
    if options.work is not None:
        machine = describe() | {"memory_in_use": options.memory_in_use}
        with ExitStack() as stack:
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="pastryd-bench-")))
            if options.memory_in_use:
                stack.enter_context(memory_in_use(directory))
            figures = options.work(directory, options)
        section = {"machine": machine, "figures": figures}
        json.dump({options.command: section}, sys.stdout, indent=2)
        print()
        if options.write:
            results.renew(RESULTS, options.command, section)
    if options.write:
        for path in results.write(RESULTS):
            print(path.relative_to(RESULTS.parents[1]), file=sys.stderr)


if __name__ == "__main__":
    main()
