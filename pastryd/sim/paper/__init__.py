"""The papers' tables, measured on our core; each is a function in a module of its kind.

Hops and stretch need tables alone and use `DirectRing`; the others run real nodes whose protocol
does the work. Published: Rowstron & Druschel 2001, sec. 4; Castro, Costa, Rowstron 2004.
"""

from collections.abc import Callable
from pathlib import Path

from pastryd.sim.paper.churn import churn, traces
from pastryd.sim.paper.failures import failures
from pastryd.sim.paper.hops import histogram, hops
from pastryd.sim.paper.stretch import stretch
from pastryd.sim.results import Table

TABLES: dict[str, Callable[[int, Path | None], Table]] = {
    "hops": lambda seed, matrix: hops(seed),
    "histogram": lambda seed, matrix: histogram(seed),
    "stretch": lambda seed, matrix: stretch(seed, matrix=matrix),
    "failures": lambda seed, matrix: failures(seed),
    "churn": churn,
    "traces": traces,
}
"""By name: measures a table from a seed and, if there is one, a file of round-trip times."""
