"""The results page: figures in JSON, one section for each benchmark, and Markdown made of them.

What stands behind the heading of `NOTES` is written by people and is kept.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import targets
from bench.plots import draw

FIGURES = "performance.json"
PAGE = "performance.md"
NOTES = "## What bounds it"
ORDER = ["compare", "limits", "forward", "sizes", "blobs", "objects", "idle"]
ORDER += ["fairness", "burst", "large"]
Lines = list[str]


def renew(directory: Path, command: str, section: dict[str, object]) -> None:
    """Put the figures of one benchmark in the place of the older ones."""
    sections = read(directory) | {command: section}
    ordered = {name: sections[name] for name in ORDER if name in sections}
    text = json.dumps(ordered, indent=1, ensure_ascii=False)
    (directory / FIGURES).write_text(text + "\n", "utf-8")


def read(directory: Path) -> dict[str, Any]:
    """Return all figures that were written."""
    path = directory / FIGURES
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def write(directory: Path) -> list[Path]:
    """Write the page and the plots; return their paths."""
    sections = read(directory)
    page = directory / PAGE
    notes = page.read_text("utf-8").partition(NOTES)[2] if page.exists() else ""
    pictures = draw(sections, directory)
    lines = [
        "# Performance",
        "",
        "Written by `python scripts/bench`, which measures the same on your machine; the figures"
        " of",
        f"this page are in [{FIGURES}]({FIGURES}). All on one machine: client, nodes and the other",
        "systems share its cores, over loopback.",
        "",
        "## Aims",
        "",
        *targets.table(sections),
    ]
    for name, render in SECTIONS.items():
        if name in sections:
            section = sections[name]
            lines += ["", *render(section["figures"]), "", _machine(section["machine"])]
    for picture in pictures:
        if picture.suffix == ".png":
            lines += ["", f"![{picture.stem.replace('-', ' ')}]({picture.name})"]
    text = "\n".join(lines) + "\n\n" + NOTES + (notes or "\n")
    page.write_text(text, "utf-8")
    return [page, directory / FIGURES, *pictures]


def _machine(machine: dict[str, Any]) -> str:
    parts = [
        f"{machine['date']}, {machine['cores']} cores ({machine['cpu']}), {machine['kernel']}",
        f"{machine['python']}, load {machine['load']} before it began",
    ]
    if machine.get("memory_in_use"):
        parts.append("memory in use")
    return f"*{', '.join(parts)}.*"


def _table(head: Lines, rows: list[Lines]) -> Lines:
    return [
        "| " + " | ".join(head) + " |",
        "| " + " | ".join(["---"] * len(head)) + " |",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _compare(figures: dict[str, Any]) -> Lines:
    contestants: dict[str, Any] = figures["contestants"]
    ours = contestants["pastryd"]
    rows: list[tuple[str, Callable[[dict[str, Any]], float], bool]] = [
        ("1 KB put alone, p50, ms", lambda c: c["put_1k"]["p50_ms"], True),
        ("1 KB put alone, p99, ms", lambda c: c["put_1k"]["p99_ms"], True),
        ("1 KB get alone, p50, ms", lambda c: c["get_1k"]["p50_ms"], True),
        ("1 KB get alone, p99, ms", lambda c: c["get_1k"]["p99_ms"], True),
        ("1 KB puts/s, 24 in flight", lambda c: c["put_1k"]["per_s"], False),
        ("1 KB gets/s, 24 in flight", lambda c: c["get_1k"]["per_s"], False),
        ("CPU a put, all processes, ms", lambda c: _cpu(c["put_1k"]), True),
        ("CPU a get, all processes, ms", lambda c: _cpu(c["get_1k"]), True),
        (f"put of {figures['blob_mib']} MiB, MB/s", lambda c: c["put_blob_mb_per_s"], False),
        (f"get of {figures['blob_mib']} MiB, MB/s", lambda c: c["get_blob_mb_per_s"], False),
        ("resident, MiB a process", lambda c: c["memory_mib"]["rss_median"], True),
    ]
    body = [["copies of a value, where", *(str(c["keeps"]) for c in contestants.values())]]
    for label, find, less_is_better in rows:
        cells = []
        for name, contestant in contestants.items():
            try:
                value = find(contestant)
            except KeyError:
                cells.append("")
                continue
            cell = f"{value:,.4g}"
            if name != "pastryd":
                own = find(ours)
                ratio = value / own if less_is_better else own / value
                cell += f" ({ratio:.2g}x)" if value and own else ""
            cells.append(cell)
        body.append([label, *cells])
    lines = [
        "## Beside what one would otherwise pick",
        "",
        "`python scripts/bench compare`. In brackets: how many times better ours is (below 1:"
        " worse).",
        f"Medians of {figures['rounds']} rounds in which all take turns; p99 over all rounds."
        f" pastryd, kademlia and OpenDHT are {figures['nodes']} processes. Their nodes do the"
        " operations themselves, ours are asked by clients, sealed; redis and nginx are one server"
        " without copies, asked from one Python process, and nothing verifies what they return.",
        "",
        *_table(["", *contestants], body),
        "",
        f"A round trip to the access node took {figures['floors']['ping_p50_ms']} ms, a lone"
        " sync of"
        f" the disk {figures['floors']['disk_sync_p50_ms']} ms. The rounds lay apart (puts/s,"
        " gets/s,"
        " lowest to highest):",
        "",
    ]
    for name, contestant in contestants.items():
        spread = [
            f"{contestant[verb]['per_s_of_rounds'][0]:,.0f}-"
            f"{contestant[verb]['per_s_of_rounds'][1]:,.0f}"
            for verb in ("put_1k", "get_1k")
            if verb in contestant
        ]
        lines.append(f"- {name}: {', '.join(spread)}{_trouble(contestant)}")
    lines += [f"- {name}: not installed" for name in figures["not_installed"]]
    return lines


def _cpu(operation: dict[str, Any]) -> float:
    return float(operation["cluster_cpu_ms"]) + float(operation["client_cpu_ms"])


def _trouble(contestant: dict[str, Any]) -> str:
    failed = contestant.get("operations_failed", 0)
    text = f"; {failed} operations failed" if failed else ""
    return text + (f"; gave up: {contestant['failed']}" if "failed" in contestant else "")


def _limits(figures: dict[str, Any]) -> Lines:
    rows = [
        [label, f"{raw['mb_per_s']:,.0f}", f"{raw['pull_share']:.0%}"]
        for label, raw in figures["raw"].items()
    ]
    pulls = [
        [f"{int(size):,} bytes", f"{pull['mb_per_s']:,.0f}", "-".join(_whole(pull))]
        for size, pull in figures["pulls"].items()
    ]
    return [
        "## Share of the raw limits",
        "",
        "`python scripts/bench limits`: one process sends to another as fast as it can, no"
        " protocol; in"
        " the same run, in turns, one node pulls 1 MiB objects from another (`bench_pull.py`:"
        " sealed,"
        " framed, hashed, with congestion control).",
        "",
        *_table(["raw limit", "MB/s", "a pull with as long datagrams reaches"], rows),
        "",
        *_table(["a pull with datagrams of up to", "MB/s", "rounds"], pulls),
    ]


def _whole(figures: dict[str, Any]) -> list[str]:
    return [f"{value:,.0f}" for value in figures["mb_per_s_of_rounds"]]


def _forward(figures: dict[str, Any]) -> Lines:
    rows = [
        [
            f"{run['alone']['total_us']:.1f}",
            f"{run['in_bursts_of_16']['total_us']:.1f}",
            f"{run['sockets_and_seals_of_one_alone_us']:.1f}",
        ]
        for run in figures["runs"]
    ]
    return [
        "## A forwarded message",
        "",
        "`python scripts/bench forward`: a forwarded message and its acknowledgement, sealing"
        " included,"
        " µs of one node's CPU; beside it what the sockets and seals of its four datagrams cost"
        " alone.",
        "",
        *_table(["alone", "in bursts of 16", "sockets and seals, alone"], rows),
    ]


def _sizes(figures: list[dict[str, Any]]) -> Lines:
    rows = [
        [
            str(row["nodes"]),
            *(f"{row[v]['p50_ms']} / {row[v]['p99_ms']}" for v in ("put_1k", "get_1k")),
            *(f"{row[v]['per_s']:,}" for v in ("put_1k", "get_1k")),
            *(str(row[v]["cluster_cpu_ms"]) for v in ("put_1k", "get_1k")),
            str(row["memory_mib"]["rss_median"]),
        ]
        for row in figures
    ]
    head = ["nodes", "put p50 / p99 ms", "get p50 / p99 ms", "puts/s", "gets/s", "CPU ms a put"]
    return [
        "## Versus cluster size",
        "",
        "`python scripts/bench sizes`: 1 KB; all nodes share the same cores.",
        "",
        *_table([*head, "CPU ms a get", "resident MiB a node"], rows),
    ]


def _blobs(figures: list[dict[str, Any]]) -> Lines:
    rows = [
        [
            f"{row['bytes']:,}",
            f"{row['put']['p50_ms']:,} ms",
            f"{row['get']['p50_ms']:,} ms",
            f"{row['put_mb_per_s']:,.4g}",
            f"{row['get_mb_per_s']:,.4g}",
        ]
        for row in figures
    ]
    return [
        "## Versus blob size",
        "",
        "`python scripts/bench blobs`: one after the other, 16 nodes, three synced copies.",
        "",
        *_table(["bytes", "put p50", "get p50", "put MB/s", "get MB/s"], rows),
    ]


def _objects(figures: list[dict[str, Any]]) -> Lines:
    rows = [
        [
            f"{row['objects']:,}",
            str(row["start_s"]),
            str(row["rss_mib"]),
            str(row["private_mib"]),
            str(row["cpu_percent_at_rest"]),
            f"{row['put']['p50_ms']} / {row['put']['p99_ms']}",
            f"{row['get']['p50_ms']} / {row['get']['p99_ms']}" if "get" in row else "",
        ]
        for row in figures
    ]
    head = ["objects of 1 KB", "start s", "resident MiB", "private MiB", "CPU % at rest"]
    return [
        "## Versus stored objects",
        "",
        "`python scripts/bench objects`: one node; the start ends when it serves, Python's own"
        " included."
        " Memory and CPU are those of the time after it, with nobody asking; the scrubber reads"
        " on.",
        "",
        *_table([*head, "put p50 / p99 ms", "get p50 / p99 ms"], rows),
    ]


def _idle(figures: list[dict[str, Any]]) -> Lines:
    rows = [
        [
            row["preset"],
            str(row["nodes"]),
            str(row["datagrams_per_s_per_node"]),
            str(row["cpu_percent_per_node"]),
            str(row["memory_mib"]["rss_median"]),
            str(row["memory_mib"]["private_median"]),
        ]
        for row in figures
    ]
    head = ["preset", "nodes", "datagrams/s a node", "CPU % a node", "resident MiB", "private MiB"]
    return ["## At rest", "", "`python scripts/bench idle`.", "", *_table(head, rows)]


def _fairness(figures: dict[str, Any]) -> Lines:
    rows = [
        [label, f"{found['count']:,}", str(found["p50_ms"]), str(found["p99_ms"])]
        for label, found in (
            ("alone, before it and after it", figures["gets_alone"]),
            ("beside the put", figures["gets_beside_it"]),
        )
    ]
    return [
        "## Beside a bulk put",
        "",
        "`python scripts/bench fairness`: gets of 1 KB, one every 10 ms, while another process"
        " puts"
        f" {figures['bulk_mib']:,} MiB into the same {figures['nodes']} nodes"
        f" ({figures['bulk_put_mb_per_s']} MB/s). Suspicions: {figures['suspicions']},"
        f" stalls: {figures['stalls']}.",
        "",
        *_table(["gets of 1 KB", "count", "p50 ms", "p99 ms"], rows),
    ]


def _burst(figures: dict[str, Any]) -> Lines:
    ended = ", ".join(f"{count:,} {how}" for how, count in figures["ended"].items())
    return [
        "## A burst of puts",
        "",
        f"`python scripts/bench burst`: {figures['puts_at_once']:,} puts of 1 KB begun at one"
        " moment by"
        f" one process with four clients. After {figures['seconds']} s: {ended}. Suspicions:"
        f" {figures['suspicions']}, stalls: {figures['stalls']}. Gets p50 / p99 before it:"
        f" {figures['gets_before']['p50_ms']} / {figures['gets_before']['p99_ms']} ms, right"
        " after it:"
        f" {figures['gets_after']['p50_ms']} / {figures['gets_after']['p99_ms']} ms, the first one"
        f" {figures['first_get_after_ms']} ms.",
    ]


def _large(figures: dict[str, Any]) -> Lines:
    rows = [
        [
            what,
            str(figures[what]["mb_per_s"]),
            str(figures[what]["client_private_mib_max"]),
            str(figures[what]["nodes_private_mib_max"]),
            str(figures[what]["nodes_cpu_s"]),
        ]
        for what in ("put", "get")
    ]
    head = ["", "MB/s", "client, private MiB", "a node, private MiB", "CPU of all nodes, s"]
    return [
        "## A blob larger than memory may be",
        "",
        f"`python scripts/bench large`: {figures['mib']:,} MiB through {figures['nodes']} nodes;"
        " the most that a process had, sampled ten times a second.",
        "",
        *_table(head, rows),
    ]


SECTIONS: dict[str, Callable[[Any], Lines]] = {
    "compare": _compare,
    "limits": _limits,
    "forward": _forward,
    "sizes": _sizes,
    "blobs": _blobs,
    "objects": _objects,
    "idle": _idle,
    "fairness": _fairness,
    "burst": _burst,
    "large": _large,
}
