"""Plots of a table's curves, PNG and SVG, when matplotlib is there (the extra `sim`)."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pastryd.sim.results import Table


def plot(table: Table, directory: Path) -> list[Path]:
    """Draw the curves of a table; return the files, none without curves or matplotlib."""
    if not table.curves or find_spec("matplotlib") is None:
        return []
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = table.name  # the same data, the same file
    pyplot: Any = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for curve in table.curves:
        xs, ys = zip(*curve.points, strict=True)
        axes.plot(xs, ys, marker="o", label=curve.label)
    if all(x >= 1000 for curve in table.curves for x, _ in curve.points):
        axes.set_xscale("log")
    axes.set_xlabel(table.axes[0])
    axes.set_ylabel(table.axes[1])
    axes.set_ylim(bottom=0)
    axes.set_title(table.title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    paths = [directory / f"{table.name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        without_date = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=120, metadata=without_date)
    pyplot.close(figure)
    return paths
