"""Churn (Castro, Costa, Rowstron 2004, sec. 5): traces, and session times from hours to minutes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp
from pathlib import Path

from pastryd.sim.churn import Churn, Outcome
from pastryd.sim.conditions import Conditions
from pastryd.sim.results import Cell, Curve, Figure, Grid, Panel, Table

LOSSES = (0.0, 0.01, 0.05)
PUBLISHED_LOST = {0.0: 1.6e-5, 0.05: 3.3e-5}
"""Of MSPastry's lookups under the Gnutella trace, by packet loss: at most these parts were lost."""
PUBLISHED_WRONG = {0.0: 0.0, 0.05: 1.6e-5}
PUBLISHED_CONTROL_PER_S = 0.245
PUBLISHED_STRETCH = 1.8
LOOKUPS_PER_S = 0.01
"""MSPastry's rate, of each node."""
MANY_LOOKUPS_PER_S = 0.1
"""Ours where lookups are counted: rare events want many."""
CONFIDENCE = 0.95
ACKNOWLEDGING = ("HopAck", "Route")
"""Acknowledgements and repetitions: what upkeep grows by with the number of lookups."""
_Run = tuple[str, float, Outcome]
"""A curve's label, x, and what was measured there."""
COLUMNS = (
    "sessions",
    "packet loss",
    "node-hours",
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
    settling_s: float = 300.0,
    measured_s: float = 1800.0,
) -> Table:
    """Exponential and heavy-tailed sessions, from long to short."""
    base = Conditions("", nodes, 0.0, settling_s, measured_s, 0.0, MANY_LOOKUPS_PER_S, seed, matrix)
    table = _table("churn", "Lookups and upkeep versus the length of sessions", base)
    runs: list[_Run] = []
    for sessions in ("exponential", "log-normal"):
        for loss in losses:
            label = f"{sessions}, {loss:.0%} loss"
            for median_min in medians_min:
                conditions = replace(base, sessions=sessions, median_s=60 * median_min, loss=loss)
                outcome = _run(table, f"{sessions}, median {median_min:g} min", conditions)
                runs.append((label, median_min, outcome))
    table.panels = _panels("median session in minutes", runs)
    return table


def traces(
    seed: int = 1,
    matrix: Path | None = None,
    names: Sequence[str] = ("gnutella", "overnet", "microsoft"),
    losses: Sequence[float] = LOSSES,
    nodes: int = 200,
    settling_s: float = 300.0,
    measured_s: float = 600.0,
    gnutella_lookups: float = 0.9,
) -> Table:
    """Sessions with the statistics of measured traces, scaled to `nodes` on the mean.

    Under MSPastry's own trace the lookups that `nodes` make are `gnutella_lookups` times as many as
    it takes to tell what was published from less, if none is lost (3 / published); the population
    rises in these hours of its day and makes more. MSPastry's rate of lookups, in a short run,
    tells what upkeep costs.
    """
    base = Conditions("", nodes, 0.0, settling_s, measured_s, 0.0, MANY_LOOKUPS_PER_S, seed, matrix)
    table = _table("traces", "Lookups and upkeep under the sessions of measured traces", base)
    runs: list[_Run] = []
    for name in names:
        for loss in losses:
            conditions = replace(base, sessions=name, loss=loss)
            published = PUBLISHED_LOST.get(loss) if name == "gnutella" else None
            if published is not None:
                wanted = gnutella_lookups * 3 / published
                conditions = replace(conditions, measured_s=wanted / nodes / MANY_LOOKUPS_PER_S)
            outcome = _run(table, name, conditions)
            runs.append((name, 100 * loss, outcome))
            if published is not None:
                table.figures += _beside_published(loss, outcome)
    few = replace(base, sessions="gnutella", lookups_per_s=LOOKUPS_PER_S)
    outcome = _run(table, f"gnutella, {LOOKUPS_PER_S:g} lookups/s", few)
    label = "gnutella, 0% loss: control messages/s/node"
    table.figures.append(Figure(label, outcome.control_per_s, PUBLISHED_CONTROL_PER_S))
    table.panels = _panels("packet loss in %", runs)
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
            "minutes settling": f"{base.settling_s / 60:g}",
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
        round(outcome.node_seconds / 3_600),
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
    lost, wrong = len(outcome.lost) / outcome.lookups, len(outcome.wrong) / outcome.lookups
    figures = [
        Figure(label + "lost", lost, PUBLISHED_LOST[loss]),
        Figure(label + "wrong", wrong, PUBLISHED_WRONG[loss]),
    ]
    if not loss:
        figures.append(Figure(label + "stretch", outcome.stretch, PUBLISHED_STRETCH))
    return figures


def _panels(x: str, runs: Sequence[_Run]) -> list[Panel]:
    """Draw what upkeep costs, and the stretch, a curve for each label."""

    def curves(value: Callable[[Outcome], float]) -> list[Curve]:
        return [
            Curve(label, [(at, value(outcome)) for other, at, outcome in runs if other == label])
            for label in dict.fromkeys(label for label, _, _ in runs)
        ]

    return [
        Panel((x, "control messages per second and node"), curves(lambda o: o.control_per_s)),
        Panel((x, "stretch, timeouts included"), curves(lambda o: o.stretch)),
    ]
