"""Build a ring of N nodes by the real protocol in the simulator, and say what that cost.

Prints one JSON object: seconds, messages, messages/s, messages per join, bytes per node (growth of
the resident set), and the trace hash, which tells whether two runs did the same. The trace is of
one seed and one version; everything else depends on the machine.

    python scripts/bench_sim.py --nodes 1000 [--preset wan] [--gap-ms 20] [--profile]
"""

import argparse
import cProfile
import gc
import json
import pstats
from collections import Counter
from pathlib import Path
from random import Random
from time import process_time

from pastryd.config import Config
from pastryd.sim.latency import Sphere
from pastryd.sim.world import World
from pastryd.wire.codec import decode


def resident_bytes() -> int:
    """Return how much memory this process holds (Linux)."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096


def build(world: World, nodes: int, gap_s: float, settle_s: float) -> None:
    """Have nodes join one after the other through random earlier ones, then wait."""
    world.ring(nodes, settle_s, gap_s)


def message_kinds(world: World, nodes: int, gap_s: float, settle_s: float) -> dict[str, int]:
    """Build as `build` does, and count what was sent by type (slower: everything is decoded)."""
    kinds: Counter[str] = Counter()
    transmit = world.transmit

    def counting(data, sender, destination):  # type: ignore[no-untyped-def]
        kinds[type(decode(data)).__name__] += 1
        transmit(data, sender, destination)

    world.transmit = counting  # type: ignore[method-assign]
    build(world, nodes, gap_s, settle_s)
    return dict(kinds.most_common())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preset", choices=("lan", "wan"), default="wan")
    parser.add_argument("--gap-ms", type=float, default=20.0)
    parser.add_argument("--settle-s", type=float, default=5.0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--kinds", action="store_true", help="also count messages by type")
    arguments = parser.parse_args()
    gc.collect()
    # What joins create lives as long as the world: collecting it again and again finds nothing.
    gc.disable()
    before = resident_bytes()
    latency = Sphere(Random(arguments.seed))
    preset = getattr(Config, arguments.preset)()
    world = World(arguments.seed, preset, latency, checked=False, keep_log=False)
    gap_s = arguments.gap_ms / 1000
    profiler = cProfile.Profile() if arguments.profile else None
    started = process_time()
    if profiler is not None:
        profiler.runcall(build, world, arguments.nodes, gap_s, arguments.settle_s)
    elif arguments.kinds:
        kinds = message_kinds(world, arguments.nodes, gap_s, arguments.settle_s)
    else:
        build(world, arguments.nodes, gap_s, arguments.settle_s)
    seconds = process_time() - started
    grown = resident_bytes() - before
    active = sum(node.core.active for node in world.nodes)
    result: dict[str, object] = {
        "nodes": arguments.nodes,
        "preset": arguments.preset,
        "seed": arguments.seed,
        "cpu_seconds": round(seconds, 2),
        "messages": world.datagrams,
        "messages_per_s": round(world.datagrams / seconds),
        "messages_per_join": round(world.datagrams / arguments.nodes, 1),
        "bytes_per_node": round(grown / arguments.nodes),
        "active": active,
        "consistent": world.is_consistent(),
        "trace": world.trace,
    }
    if arguments.kinds:
        result["by_type"] = kinds
    print(json.dumps(result, indent=1))
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
