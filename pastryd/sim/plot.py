"""Plots of a table's panels, PNG and SVG, when matplotlib is there (the extra `sim`)."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pastryd.sim.results import Panel, Table

PANEL_INCHES = (6.0, 4.0)
LOG_FROM = 30
"""An axis is logarithmic when its largest value is so many times the smallest."""
OURS, PUBLISHED = "C0", "C7"


def plot(table: Table, directory: Path) -> list[Path]:
    """Draw the panels of a table side by side; return the files, none without matplotlib."""
    panels = table.pictures()
    if not panels or find_spec("matplotlib") is None:
        return []
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = table.name  # the same data, the same file
    pyplot: Any = import_module("matplotlib.pyplot")
    width, height = PANEL_INCHES
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(width * len(panels), height), squeeze=False, layout="constrained"
    )
    for panel, one in zip(panels, axes[0], strict=True):
        if panel.bars:
            _bars(one, panel, table)
        else:
            _curves(one, panel)
    figure.suptitle(table.title, fontsize=11)
    paths = [directory / f"{table.name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        without_date = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=120, metadata=without_date)
    pyplot.close(figure)
    return paths


def _curves(axes: Any, panel: Panel) -> None:
    for curve in panel.curves:
        xs, ys = zip(*curve.points, strict=True)
        axes.plot(xs, ys, marker="o", markersize=4, label=curve.label)
    places = {x for curve in panel.curves for x, _ in curve.points}
    if min(places) > 0 and max(places) >= LOG_FROM * min(places):
        axes.set_xscale("log")
    axes.set_xlabel(panel.axes[0])
    axes.set_ylabel(panel.axes[1])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _bars(axes: Any, panel: Panel, table: Table) -> None:
    """Draw one bar for our figure and one for the published, a group for each label."""
    figures = [table.figure(label) for label in panel.bars]
    places = range(len(figures))
    published = [figure.published for figure in figures]
    has_published = any(value is not None for value in published)
    thickness = 0.4 if has_published else 0.6
    shift = thickness / 2 if has_published else 0.0
    ours = axes.barh(
        [place - shift for place in places],
        [figure.ours for figure in figures],
        thickness,
        label="pastryd",
        color=OURS,
    )
    axes.bar_label(ours, fmt="%.4g", padding=3, fontsize=8)
    if has_published:
        beside = axes.barh(
            [place + shift for place in places],
            [value or 0.0 for value in published],
            thickness,
            label="published",
            color=PUBLISHED,
        )
        axes.bar_label(
            beside,
            ["" if value is None else f"{value:.4g}" for value in published],
            padding=3,
            fontsize=8,
        )
        axes.legend(fontsize=8)
    axes.set_yticks(list(places), [figure.label for figure in figures], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(panel.axes[1])
    axes.grid(axis="x", alpha=0.3)
