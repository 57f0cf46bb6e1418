"""What an experiment found: our figures beside the published ones, as text, JSON and Markdown.

Owns the shape of `docs/results/`. Knows neither how a figure came about nor today's date.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, and what was published for it, if anything."""

    label: str
    ours: float
    published: float | None = None

    @property
    def difference_percent(self) -> float | None:
        """How much more ours is, in per cent of the published value."""
        if not self.published:
            return None
        return 100 * (self.ours - self.published) / self.published


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of a plot."""

    label: str
    points: list[tuple[float, float]]
    reference: bool = False
    """What to compare the others with: black, dashed."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a table: curves over x, or a bar for each of some figures of the table."""

    axes: tuple[str, str]
    """What x and y are; bars lie along x and need no y."""
    curves: Sequence[Curve] = ()
    bars: Mapping[str, str] = field(default_factory=dict)
    """What to write beside a bar -> the label of its figure."""
    title: str = ""
    logarithmic: bool = False
    """Draw y on a logarithmic axis; points at 0 are left out."""


Cell = str | int | float


@dataclass(slots=True)
class Grid:
    """Many conditions, a row each, with the same things measured in all."""

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the grid in Markdown."""
        cells = [self.columns, *(tuple(map(_cell, row)) for row in self.rows)]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        lines.insert(1, "|" + " --- |" * len(self.columns))
        return lines

    def document(self) -> list[dict[str, Cell]]:
        """Return the rows, each by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(slots=True)
class Table:
    """The outcome of one experiment."""

    name: str
    title: str
    seed: int
    parameters: dict[str, object]
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    axes: tuple[str, str] = ("", "")
    curves: list[Curve] = field(default_factory=list)
    """The first panel, with `axes`; `panels` are beside it."""
    panels: list[Panel] = field(default_factory=list)
    grid: Grid | None = None
    command: str = ""
    """What wrote it, if not `sim paper`."""

    def figure(self, label: str) -> Figure:
        """Return the figure with this label."""
        return next(figure for figure in self.figures if figure.label == label)

    def text(self) -> str:
        """Return the table for a terminal."""
        width = max([len(figure.label) for figure in self.figures], default=0)
        lines = [self.title]
        if self.figures:
            lines.append(f"{'':{width}}  {'ours':>10}  {'published':>10}  {'difference':>10}")
        for figure in self.figures:
            published, difference = _cells(figure)
            lines.append(
                f"{figure.label:{width}}  {_number(figure.ours):>10}  {published:>10}"
                f"  {difference:>10}"
            )
        if self.grid is not None:
            lines += self.grid.lines()
        return "\n".join([*lines, *self.notes])

    def pictures(self) -> list[Panel]:
        """Return what there is to draw."""
        first = [Panel(self.axes, self.curves)] if self.curves else []
        return [*first, *self.panels]

    def write(self, directory: Path, date: str) -> list[Path]:
        """Write NAME.json and NAME.md; return their paths."""
        directory.mkdir(parents=True, exist_ok=True)
        as_json, as_markdown = directory / f"{self.name}.json", directory / f"{self.name}.md"
        as_json.write_text(json.dumps(self._document(date), indent=1) + "\n", "utf-8")
        as_markdown.write_text(self._markdown(date), "utf-8")
        return [as_json, as_markdown]

    def _document(self, date: str) -> dict[str, object]:
        return {
            "name": self.name,
            "title": self.title,
            "date": date,
            "seed": self.seed,
            "parameters": self.parameters,
            "figures": [
                {
                    "label": figure.label,
                    "ours": round(figure.ours, 6),
                    "published": figure.published,
                    "difference_percent": None
                    if figure.difference_percent is None
                    else round(figure.difference_percent, 2),
                }
                for figure in self.figures
            ],
            **({} if self.grid is None else {"rows": self.grid.document()}),
            "notes": self.notes,
        }

    def _markdown(self, date: str) -> str:
        parameters = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        command = self.command or f"sim paper --table {self.name}"
        lines = [
            f"# {self.title}",
            "",
            f"Written by pastryd's `{command}` on {date}, seed {self.seed};",
            f"{parameters}.",
        ]
        if self.figures:
            lines += ["", "| | ours | published | difference |", "| --- | --- | --- | --- |"]
        for figure in self.figures:
            published, difference = _cells(figure)
            lines.append(
                f"| {figure.label} | {_number(figure.ours)} | {published} | {difference} |"
            )
        if self.grid is not None:
            lines += ["", *self.grid.lines()]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _cell(value: Cell) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def _cells(figure: Figure) -> tuple[str, str]:
    difference = figure.difference_percent
    return (
        "" if figure.published is None else _number(figure.published),
        "" if difference is None else f"{difference:+.1f} %",
    )
