"""Plots of a table's panels, PNG and SVG, when matplotlib is there (the extra `sim`)."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pastryd.sim.results import Panel, Table

PANEL_INCHES = (6.0, 4.0)
LOG_FROM = 30
"""An axis is logarithmic when its largest value is so many times the smallest."""
INCHES_PER_BAR = 0.35
MARKED_MAX = 30
"""Curves of more points than this have no markers."""
SINGLE_MAX = 3
"""References of so few points are not joined by a line."""
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
    height = max(height, 1 + INCHES_PER_BAR * max(len(panel.bars) for panel in panels))
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(width * len(panels), height), squeeze=False, layout="constrained"
    )
    for panel, one in zip(panels, axes[0], strict=True):
        if panel.bars:
            _bars(one, panel, table)
        else:
            _curves(one, panel)
        one.set_title(panel.title, fontsize=10, pad=20 if panel.bars else None)
    figure.suptitle(table.title, fontsize=11)
    paths = [directory / f"{table.name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        without_date = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=120, metadata=without_date)
    pyplot.close(figure)
    return paths


def _curves(axes: Any, panel: Panel) -> None:
    for curve in panel.curves:
        points = [(x, y) for x, y in curve.points if y > 0 or not panel.logarithmic]
        xs, ys = zip(*points, strict=True) if points else ((), ())
        if curve.reference:
            style = "--" if len(points) > SINGLE_MAX else "x"
            axes.plot(xs, ys, style, color="black", linewidth=1, label=curve.label, zorder=3)
        else:
            style = "o-" if len(points) <= MARKED_MAX else "-"
            axes.plot(xs, ys, style, markersize=4, label=curve.label)
    places = {x for curve in panel.curves for x, _ in curve.points}
    if min(places) > 0 and max(places) >= LOG_FROM * min(places):
        axes.set_xscale("log")
    axes.set_xlabel(panel.axes[0])
    axes.set_ylabel(panel.axes[1])
    if panel.logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if len(panel.curves) > 1:
        axes.legend(fontsize=8)


def _bars(axes: Any, panel: Panel, table: Table) -> None:
    """Draw a bar for our figure and one for the published, or a line if that is always the same."""
    figures = [table.figure(label) for label in panel.bars.values()]
    published = [figure.published for figure in figures]
    line = published[0] if len(set(published)) == 1 else None
    in_pairs = line is None and any(value is not None for value in published)
    thickness = 0.4 if in_pairs else 0.6
    for values, shift, label, colour in (
        ([figure.ours for figure in figures], -0.2, "pastryd", OURS),
        (published, 0.2, "published", PUBLISHED),
    ):
        if label == "published" and not in_pairs:
            break
        drawn = axes.barh(
            [place + shift * in_pairs for place in range(len(values))],
            [value or 0.0 for value in values],
            thickness,
            label=label,
            color=colour,
        )
        written = ["" if value is None else f"{value:.4g}" for value in values]
        axes.bar_label(drawn, written, padding=3, fontsize=8)
    if line is not None:
        axes.axvline(line, color=PUBLISHED, linestyle="--", label=f"published: {line:g}")
    axes.set_yticks(range(len(figures)), list(panel.bars), fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(panel.axes[0])
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
