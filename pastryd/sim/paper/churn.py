"""Churn (Castro, Costa, Rowstron 2004, sec. 5): traces, and session times from hours to minutes."""

from collections.abc import Sequence
from dataclasses import replace
from math import exp
from pathlib import Path

from pastryd.sim.churn import Churn, Outcome
from pastryd.sim.conditions import Conditions
from pastryd.sim.results import Cell, Curve, Figure, Grid, Table

LOSSES = (0.0, 0.01, 0.05)
PUBLISHED_LOST = {0.0: 1.6e-5, 0.05: 3.3e-5}
"""Of MSPastry's lookups under the Gnutella trace, by packet loss: at most these parts were lost."""
PUBLISHED_WRONG = {0.0: 0.0, 0.05: 1.6e-5}
PUBLISHED_CONTROL_PER_S = 0.245
PUBLISHED_STRETCH = 1.8
CONFIDENCE = 0.95
ACKNOWLEDGING = ("HopAck", "Route")
"""Acknowledgements and repetitions: what upkeep grows by with the number of lookups."""
COLUMNS = (
    "sessions",
    "packet loss",
    "lookups",
    "lost",
    "wrong",
    "lost at most",
    "hops",
    "stretch",
    "control/s/node",
    "acks and repeats",
    "deaths",
)


def churn(
    seed: int = 1,
    matrix: Path | None = None,
    medians_min: Sequence[float] = (180, 60, 15, 5),
    losses: Sequence[float] = LOSSES,
    nodes: int = 200,
    settling_s: float = 1_800.0,
    measured_s: float = 1_800.0,
    lookups_per_s: float = 0.1,
) -> Table:
    """Exponential and heavy-tailed sessions, from long to short."""
    base = Conditions("", nodes, 0.0, settling_s, measured_s, 0.0, lookups_per_s, seed, matrix)
    table = _table("churn", "Lookups and upkeep versus the length of sessions", base)
    table.axes = ("median session in minutes", "control messages per second and node")
    for sessions in ("exponential", "log-normal"):
        for loss in losses:
            points: list[tuple[float, float]] = []
            for median_min in medians_min:
                conditions = replace(base, sessions=sessions, median_s=60 * median_min, loss=loss)
                outcome = _run(table, f"{sessions}, median {median_min:g} min", conditions)
                points.append((median_min, outcome.control_per_s))
            table.curves.append(Curve(f"{sessions}, {loss:.0%} loss", points))
    return table


def traces(
    seed: int = 1,
    matrix: Path | None = None,
    names: Sequence[str] = ("gnutella", "overnet", "microsoft"),
    losses: Sequence[float] = LOSSES,
    nodes: int = 200,
    settling_s: float = 3_600.0,
    measured_s: float = 86_400.0,
    lookups_per_s: float = 0.01,
) -> Table:
    """Sessions with the statistics of measured traces, scaled to `nodes` on the mean."""
    base = Conditions("", nodes, 0.0, settling_s, measured_s, 0.0, lookups_per_s, seed, matrix)
    table = _table("traces", "Lookups and upkeep under the sessions of measured traces", base)
    table.axes = ("hours", "control messages per second and node")
    for name in names:
        for loss in losses:
            outcome = _run(table, name, replace(base, sessions=name, loss=loss))
            if name == "gnutella":
                table.figures += _beside_published(loss, outcome)
            if not loss:
                hourly = enumerate(outcome.buckets, 1)
                points = [(float(hour), count / seconds) for hour, (seconds, count) in hourly]
                table.curves.append(Curve(name, points))
    return table


def upper_bound(events: int, trials: int) -> float:
    """Return the chance that is exceeded with 5 % confidence only, after so many rare events.

    Of the Poisson distribution; 3 / trials without any event.
    """
    low, high = 0.0, 10.0 * (events + 1)
    for _ in range(60):
        middle = (low + high) / 2
        term = at_most = exp(-middle)
        for number in range(1, events + 1):
            term *= middle / number
            at_most += term
        low, high = (middle, high) if at_most > 1 - CONFIDENCE else (low, middle)
    return high / trials


def _table(name: str, title: str, base: Conditions) -> Table:
    table = Table(
        name,
        title,
        base.seed,
        {
            "nodes": base.nodes,
            "minutes counted": base.measured_s / 60,
            "minutes before that": base.settling_s / 60,
            "lookups/s/node": base.lookups_per_s,
            "network": "transit-stub" if base.matrix is None else "real latencies",
            "preset": "wan",
        },
        grid=Grid(COLUMNS),
    )
    table.notes.append(
        "What lost, wrong and a control message are: docs/simulation.md. "
        f"Lost at most: with {CONFIDENCE:.0%} confidence. Nodes are the mean of those up at a time."
    )
    return table


def _run(table: Table, label: str, conditions: Conditions) -> Outcome:
    """Run one; add its row, and how to follow each lookup that went astray."""
    outcome = Churn(conditions).run()
    lost, wrong = len(outcome.lost), len(outcome.wrong)
    acknowledging = sum(outcome.control[kind] for kind in ACKNOWLEDGING) / outcome.node_seconds
    row: tuple[Cell, ...] = (
        label,
        f"{conditions.loss:.0%}",
        outcome.lookups,
        lost,
        wrong,
        upper_bound(lost, outcome.lookups),
        outcome.mean_hops,
        outcome.stretch,
        outcome.control_per_s,
        acknowledging,
        outcome.departures,
    )
    assert table.grid is not None
    table.grid.rows.append(row)
    by_kind = ", ".join(
        f"{kind} {count / outcome.node_seconds:.4f}"
        for kind, count in outcome.control.most_common()
        if count / outcome.node_seconds >= 0.0005
    )
    table.notes.append(f"{label}, {conditions.loss:.0%} loss, by type: {by_kind}.")
    astray = [f"--follow {number}" for number in sorted({*outcome.lost, *outcome.wrong})]
    if astray:
        table.notes.append(f"Went astray: `{conditions.command()}` with {', '.join(astray)}.")
    return outcome


def _beside_published(loss: float, outcome: Outcome) -> list[Figure]:
    label = f"gnutella, {loss:.0%} loss: "
    figures = [
        Figure(label + "lost", len(outcome.lost) / outcome.lookups, PUBLISHED_LOST.get(loss)),
        Figure(label + "wrong", len(outcome.wrong) / outcome.lookups, PUBLISHED_WRONG.get(loss)),
    ]
    if not loss:
        figures += [
            Figure(label + "stretch", outcome.stretch, PUBLISHED_STRETCH),
            Figure(
                label + "control messages/s/node", outcome.control_per_s, PUBLISHED_CONTROL_PER_S
            ),
        ]
    return figures
