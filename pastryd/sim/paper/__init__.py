"""The papers' tables, measured on our core; each is a function in a module of its kind.

Hops and stretch need tables alone, made of arrays; the others run real nodes whose protocol
does the work. Published: Rowstron & Druschel 2001, sec. 4; Castro, Costa, Rowstron 2004.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from pastryd.sim.paper.churn import churn, traces
from pastryd.sim.paper.durability import durability
from pastryd.sim.paper.failures import failures
from pastryd.sim.paper.nearest import nearest
from pastryd.sim.paper.storage import storage
from pastryd.sim.results import Table

Measure = Callable[[int, Path | None], Table]


def _with_numpy(module: str, name: str) -> Measure:
    """Return a function whose module is loaded when it is called: numpy is an optional extra."""

    def load_and_measure(seed: int, matrix: Path | None) -> Table:
        measure: Measure = getattr(import_module(f"{__name__}.{module}"), name)
        return measure(seed, matrix)

    return load_and_measure


TABLES: dict[str, Measure] = {
    "hops": _with_numpy("hops", "hops"),
    "histogram": _with_numpy("hops", "histogram"),
    "stretch": _with_numpy("stretch", "stretch"),
    "direct": _with_numpy("direct", "direct"),
    "failures": lambda seed, matrix: failures(seed),
    "durability": durability,
    "nearest": nearest,
    "storage": storage,
    "churn": churn,
    "traces": traces,
}
"""By name: measures a table from a seed and, if there is one, a file of round-trip times."""
