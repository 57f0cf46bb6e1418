"""What was aimed at (in the project's own plan), beside what the last runs found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Sections = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a figure; `at_most` says on which side of it one should be."""

    what: str
    bound: float
    unit: str
    at_most: bool
    find: Callable[[Sections], float]
    """Looks the figure up; raises LookupError while it was not measured."""

    def row(self, sections: Sections) -> str | None:
        """Return a line of the table, or None."""
        try:
            value = self.find(sections)
        except (LookupError, StopIteration):
            return None
        reached = value <= self.bound if self.at_most else value >= self.bound
        sign = "at most" if self.at_most else "at least"
        verdict = "yes" if reached else f"**no**: {_factor(value, self.bound, self.at_most)}"
        return (
            f"| {self.what} | {sign} {self.bound:,g} {self.unit} | {value:,.4g} {self.unit} |"
            f" {verdict} |"
        )


def _factor(value: float, bound: float, at_most: bool) -> str:
    if not bound:
        return f"{value:g} too many"
    factor = value / bound if at_most else bound / max(value, 1e-9)
    return f"{factor:.3g} times too {'much' if at_most else 'little'}"


def _ours(*path: str) -> Callable[[Sections], float]:
    def find(sections: Sections) -> float:
        value: Any = sections["compare"]["figures"]["contestants"]["pastryd"]
        for key in path:
            value = value[key]
        return float(value)

    return find


def _put_without_sync(sections: Sections) -> float:
    sync = sections["compare"]["figures"]["floors"]["disk_sync_p50_ms"]
    return _ours("put_1k", "p50_ms")(sections) - float(sync)


def _row(section: str, value: str, **where: object) -> Callable[[Sections], float]:
    def find(sections: Sections) -> float:
        rows = sections[section]["figures"]
        row = next(row for row in rows if all(row[k] == v for k, v in where.items()))
        return float(row["memory_mib"]["rss_median"] if value == "rss_median" else row[value])

    return find


def _figure(section: str, *path: str) -> Callable[[Sections], float]:
    def find(sections: Sections) -> float:
        value: Any = sections[section]["figures"]
        for key in path:
            value = value[key]
        return float(value)

    return find


def _burst_unended(sections: Sections) -> float:
    figures = sections["burst"]["figures"]
    return float(figures["puts_at_once"] - sum(figures["ended"].values()))


def _large_private(sections: Sections) -> float:
    figures = sections["large"]["figures"]
    most = ("client_private_mib_max", "nodes_private_mib_max")
    return max(float(figures[verb][who]) for verb in ("put", "get") for who in most)


TARGETS = [
    Target("get of 64 MiB", 250, "MB/s", False, _ours("get_blob_mb_per_s")),
    Target("put of 64 MiB, three synced copies", 80, "MB/s", False, _ours("put_blob_mb_per_s")),
    Target(
        "pull from node to node, 1,200-byte datagrams", 430, "MB/s", False,
        _figure("limits", "pulls", "1200", "mb_per_s"),
    ),
    Target(
        "the same, large datagrams", 700, "MB/s", False,
        _figure("limits", "pulls", "65000", "mb_per_s"),
    ),
    Target("1 KB puts, 24 in flight", 4074, "/s", False, _ours("put_1k", "per_s")),
    Target("1 KB gets, 24 in flight", 8000, "/s", False, _ours("get_1k", "per_s")),
    Target("1 KB get alone, p50", 0.3, "ms", True, _ours("get_1k", "p50_ms")),
    Target("1 KB get alone, p99", 1, "ms", True, _ours("get_1k", "p99_ms")),
    Target("1 KB put alone, p50, less one disk sync", 1, "ms", True, _put_without_sync),
    Target("cluster CPU a put", 0.35, "ms", True, _ours("put_1k", "cluster_cpu_ms")),
    Target("cluster CPU a get", 0.12, "ms", True, _ours("get_1k", "cluster_cpu_ms")),
    Target(
        "a forwarded message, in bursts", 20, "µs", True, _figure("forward", "burst_us_median")
    ),
    Target("a forwarded message, alone", 20, "µs", True, _figure("forward", "alone_us_median")),
    Target(
        "a node at rest, resident", 40, "MiB", True,
        _row("idle", "rss_median", nodes=16, preset="lan"),
    ),
    Target(
        "a node at rest, CPU", 0.2, "%", True,
        _row("idle", "cpu_percent_per_node", nodes=16, preset="lan"),
    ),
    Target(
        "a node at rest, `lan`", 2, "datagrams/s", True,
        _row("idle", "datagrams_per_s_per_node", nodes=16, preset="lan"),
    ),
    Target(
        "a node at rest, `wan`", 0.4, "datagrams/s", True,
        _row("idle", "datagrams_per_s_per_node", nodes=16, preset="wan"),
    ),
    Target(
        "start with 1,000,000 objects", 2, "s", True, _row("objects", "start_s", objects=1_000_000)
    ),
    Target(
        "resident with 1,000,000 objects", 150, "MiB", True,
        _row("objects", "rss_mib", objects=1_000_000),
    ),
    Target(
        "p99 of 1 KB gets beside a bulk put, times that without", 3, "", True,
        _figure("fairness", "p99_factor"),
    ),
    Target("false suspicions beside a bulk put", 0, "", True, _figure("fairness", "suspicions")),
    Target("puts of a burst of 10,000 that did not end", 0, "", True, _burst_unended),
    Target("false suspicions in the burst", 0, "", True, _figure("burst", "suspicions")),
    Target("private memory while 5 GiB are put and got", 200, "MiB", True, _large_private),
]  # fmt: skip


def table(sections: Sections) -> list[str]:
    """Return the Markdown table of what was measured."""
    rows = [row for target in TARGETS if (row := target.row(sections)) is not None]
    return ["| what | aim | measured | reached |", "| --- | --- | --- | --- |", *rows]
