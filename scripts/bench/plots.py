"""The plots of the results page, PNG and SVG, when matplotlib is there (the extra `plots`)."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture: curves (label, points) over one axis; `bars`: points are (name, value)."""

    name: str
    title: str
    axes: tuple[str, str]
    curves: list[tuple[str, list[tuple[Any, float]]]]
    log: tuple[bool, bool] = (False, False)
    bars: bool = False


def draw(sections: dict[str, Any], directory: Path) -> list[Path]:
    """Draw what was measured; return the files, none without matplotlib."""
    if find_spec("matplotlib") is None:
        return []
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    paths: list[Path] = []
    for name, make in PLOTS.items():
        if name not in sections:
            continue
        plot = make(sections[name]["figures"])
        matplotlib.rcParams["svg.hashsalt"] = plot.name  # the same data, the same file
        figure, axes = pyplot.subplots(figsize=(6, 4))
        _fill(axes, plot)
        figure.tight_layout()
        for kind in ("png", "svg"):
            path = directory / f"{plot.name}.{kind}"
            figure.savefig(path, dpi=120, metadata={"Date": None} if kind == "svg" else None)
            paths.append(path)
        pyplot.close(figure)
    return paths


def _fill(axes: Any, plot: Plot) -> None:
    for number, (label, points) in enumerate(plot.curves):
        xs, ys = zip(*points, strict=True)
        if plot.bars:
            width = 0.8 / len(plot.curves)
            axes.bar([i + number * width for i in range(len(xs))], ys, width, label=label)
            axes.set_xticks(range(len(xs)), xs, rotation=20, fontsize=8)
        else:
            axes.plot(xs, ys, marker="o", label=label)
    if plot.log[0]:
        axes.set_xscale("symlog" if any(p[0] == 0 for _, c in plot.curves for p in c) else "log")
    if plot.log[1]:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(plot.axes[0])
    axes.set_ylabel(plot.axes[1])
    axes.set_title(plot.title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _compare(figures: dict[str, Any]) -> Plot:
    found = {n: c for n, c in figures["contestants"].items() if "put_1k" in c and "get_1k" in c}
    curves = [
        (f"{verb}s", [(name, c[f"{verb}_1k"]["per_s"]) for name, c in found.items()])
        for verb in ("put", "get")
    ]
    title = "1 KB, 24 in flight; ours and redis synced: on disk before a put returns"
    return Plot("performance-peers", title, ("", "operations/s"), curves, bars=True)


def _sizes(figures: list[dict[str, Any]]) -> Plot:
    curves = [
        (f"{verb}s", [(row["nodes"], row[f"{verb}_1k"]["per_s"]) for row in figures])
        for verb in ("put", "get")
    ]
    title = "1 KB, 24 in flight, versus cluster size (all nodes on the same cores)"
    return Plot("performance-sizes", title, ("nodes", "operations/s"), curves, (True, False))


def _blobs(figures: list[dict[str, Any]]) -> Plot:
    curves = [
        (verb, [(row["bytes"], row[f"{verb}_mb_per_s"]) for row in figures])
        for verb in ("put", "get")
    ]
    title = "One blob after the other through an access node, versus its size"
    return Plot("performance-blobs", title, ("bytes", "MB/s"), curves, (True, True))


def _objects(figures: list[dict[str, Any]]) -> Plot:
    curves = [
        ("resident MiB", [(row["objects"], row["rss_mib"]) for row in figures]),
        ("private MiB", [(row["objects"], row["private_mib"]) for row in figures]),
    ]
    title = "A node's memory versus stored objects of 1 KB"
    return Plot("performance-objects", title, ("objects", "MiB"), curves, (True, False))


def _idle(figures: list[dict[str, Any]]) -> Plot:
    curves = [
        (
            preset,
            [
                (row["nodes"], row["datagrams_per_s_per_node"])
                for row in figures
                if row["preset"] == preset
            ],
        )
        for preset in ("lan", "wan")
    ]
    title = "A ring at rest: datagrams sent by a node"
    return Plot("performance-idle", title, ("nodes", "datagrams/s a node"), curves)


PLOTS: dict[str, Callable[[Any], Plot]] = {
    "compare": _compare,
    "sizes": _sizes,
    "blobs": _blobs,
    "objects": _objects,
    "idle": _idle,
}
