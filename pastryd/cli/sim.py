"""`pastryd sim`: the simulator's commands; `daemon.py` loads this file when one is called.

Owns options and what is printed; what happens in virtual time is the business of `pastryd.sim`.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from pastryd.cli.exits import named
from pastryd.cli.render import seeds_bar
from pastryd.config import Config
from pastryd.errors import ConfigError
from pastryd.sim.churn import Churn
from pastryd.sim.conditions import Conditions
from pastryd.sim.paper import TABLES
from pastryd.sim.paper.scale import scale as scale_table
from pastryd.sim.plot import plot
from pastryd.sim.replay import replay_file
from pastryd.sim.results import Table
from pastryd.sim.scale import measure_alone
from pastryd.sim.sessions import DISTRIBUTIONS, TRACES
from pastryd.sim.soak import soak_many, soak_one

_Command = TypeVar("_Command", bound=Callable[..., Any])

NODES_MAX = 1_000_000
SEEDS_MAX = 1_000_000_000


class _Finite(click.FloatRange):
    """A number that a run can reach; click lets nan and inf pass."""

    def convert(
        self, value: float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{number} is not a finite number", param, ctx)
        return number


POSITIVE = _Finite(0, min_open=True)
NOT_NEGATIVE = _Finite(0)


def _tell(line: str) -> None:
    with named("stdout"):
        click.echo(line)


@contextmanager
def _told_for(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: cannot be written: {reason}") from None


def _ready(_: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Make the directory or empty the file now: a run of an hour must not fail at its end."""
    if path is None:
        return None
    with _told_for(path):
        if isinstance(param.type, click.Path) and param.type.dir_okay:
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            path.open("w").close()
    return path


def _trace(help_text: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--trace",
        "trace_file",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_ready,
        help=help_text,
    )


_OUTPUT = click.option(
    "--output",
    default=Path("docs/results"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    callback=_ready,
    help="Where the results are written.",
)


class _Terminated(BaseException):
    """SIGTERM came: like `KeyboardInterrupt`, nothing on the way may take it for a failure."""


@click.group()
def sim() -> None:
    """Run real nodes in virtual time: hunt for lost data, measure what the papers measured."""


@sim.command()
@click.option(
    "--seeds",
    default=20,
    show_default=True,
    type=click.IntRange(1, SEEDS_MAX),
    help="How many.",
)
@click.option("--from", "first", default=0, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="Run this one alone.")
@_trace("Write a readable log of the run here; with --seed.")
@click.option(
    "--until", metavar="T", type=NOT_NEGATIVE, help="Stop at this virtual time; with --seed."
)
@click.option(
    "--seconds", type=NOT_NEGATIVE, help="Start no further seed after so many real seconds."
)
def soak(
    seeds: int,
    first: int,
    seed: int | None,
    trace_file: Path | None,
    until: float | None,
    seconds: float | None,
) -> None:
    """Random faults from each seed, then peace: is everything acknowledged still there?

    Every failure prints one line that replays it; the last line says how many seeds ran, after
    Ctrl-C and SIGTERM, too. Progress is on stderr when that is a terminal. Status 1 when a seed
    failed.
    """
    if seed is None:
        if trace_file is not None or until is not None:
            raise click.UsageError("--trace and --until want one --seed")
        try:
            failed = _soak_many(range(first, first + seeds), seconds)
        except _Terminated:
            raise click.exceptions.Exit(128 + signal.SIGTERM) from None
    else:
        with named(str(trace_file or "stdout")):
            failed = soak_one(seed, trace_file, until, _tell)
    if failed:
        sys.stdout.flush()
        raise click.exceptions.Exit(1)


def _soak_many(seeds: range, seconds: float | None) -> int:
    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        if not sys.stderr.isatty():
            return soak_many(seeds, seconds, _tell, lambda ran, failed: None)
        with seeds_bar(len(seeds), _tell) as (show, echo):
            return soak_many(seeds, seconds, echo, show)
    finally:
        signal.signal(signal.SIGTERM, before)


@sim.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_trace("Write a readable log of all that came in and went out here.")
@click.option(
    "--until", metavar="T", type=NOT_NEGATIVE, help="Stop so many seconds after the beginning."
)
def replay(file: Path, trace_file: Path | None, until: float | None) -> None:
    """Run one node again from what `pastryd start --record FILE` wrote.

    Prints its events, and whether it did what it did then. Status 1 when it did not.
    """
    with named(str(trace_file or file)):
        diverged = replay_file(file, trace_file, until, _tell)
    if diverged:
        sys.stdout.flush()
        raise click.exceptions.Exit(1)


@sim.command()
@click.option("--table", "name", required=True, type=click.Choice(list(TABLES)), help="Which one.")
@click.option("--seed", default=1, show_default=True, help="What chance follows from.")
@click.option(
    "--latency",
    envvar="PASTRYD_LATENCY",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Round-trip times in ms, N rows of N numbers; for those that need a network.  "
    "[env: PASTRYD_LATENCY]",
)
@_OUTPUT
def paper(name: str, seed: int, latency: Path | None, output: Path) -> None:
    """Measure a table of the papers: our figures beside the published ones.

    Prints it, and writes NAME.json and NAME.md, with plots when matplotlib is there. Takes minutes.
    """
    _print_and_write(TABLES[name](seed, latency), output)


def _print_and_write(table: Table, output: Path) -> None:
    _tell(table.text())
    written = table.write(output, date.today().isoformat())
    plots = plot(table, output)
    if table.pictures() and not plots:
        _tell("no plots: matplotlib is not installed (pip install 'pastryd[sim]')")
    for path in (*written, *plots):
        _tell(f"wrote {path}")


@sim.command()
@click.option(
    "--nodes",
    "sizes",
    multiple=True,
    default=(1_000,),
    show_default=True,
    type=click.IntRange(2, NODES_MAX),
    help="How many; may be given several times: one ring after the other.",
)
@click.option("--seed", default=1, show_default=True, help="What chance follows from.")
@_OUTPUT
def scale(sizes: tuple[int, ...], seed: int, output: Path) -> None:
    """N nodes join by the real protocol and settle: messages, seconds, memory.

    Prints progress on stderr, then a table, and writes scale.json and scale.md, with plots of
    several sizes. At 100,000 nodes it takes many minutes and gigabytes. Status 1 when a ring does
    not settle.
    """
    progress = partial(click.echo, err=True)
    rings = [measure_alone(nodes, seed, Config.wan(), progress) for nodes in sizes]
    _print_and_write(scale_table(rings, seed), output)
    if any(ring.settle_s is None for ring in rings):
        sys.stdout.flush()
        raise click.exceptions.Exit(1)


@sim.command()
@click.option(
    "--sessions",
    required=True,
    metavar="NAME|FILE",
    help=f"Who is up when: {', '.join((*TRACES, *DISTRIBUTIONS))}, or a file of lines "
    "'node start_s end_s'.",
)
@click.option(
    "--nodes",
    default=200,
    show_default=True,
    type=click.IntRange(1, NODES_MAX),
    help="On the mean.",
)
@click.option(
    "--median", default=60.0, show_default=True, type=POSITIVE, help="Of the sessions, minutes."
)
@click.option(
    "--settle", default=60.0, show_default=True, type=NOT_NEGATIVE, help="Minutes not counted yet."
)
@click.option(
    "--minutes", type=POSITIVE, help="How long to count.  [default: 60; a file: to its end]"
)
@click.option("--loss", default=0.0, show_default=True, type=_Finite(0, 1), help="Of datagrams.")
@click.option(
    "--lookups", default=0.01, show_default=True, type=POSITIVE, help="Per second and node."
)
@click.option("--seed", default=1, show_default=True, help="What chance follows from.")
@click.option(
    "--latency",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Round-trip times in ms, N rows of N numbers.  [default: a transit-stub network]",
)
@click.option(
    "--follow",
    default=0,
    metavar="N",
    type=click.IntRange(0),
    help="Write down what becomes of lookup N.",
)
def churn(
    sessions: str,
    nodes: int,
    median: float,
    settle: float,
    minutes: float | None,
    loss: float,
    lookups: float,
    seed: int,
    latency: Path | None,
    follow: int,
) -> None:
    """Nodes come and go: how many lookups are lost, and what upkeep costs.

    Prints what was counted, and the numbers of the lookups that were lost or delivered wrongly.
    """
    conditions = Conditions(
        sessions,
        nodes,
        60 * median,
        60 * settle,
        3_600.0 if minutes is None else 60 * minutes,
        loss,
        lookups,
        seed,
        latency,
    )
    if minutes is None and conditions.is_replay:
        conditions = conditions.to_the_end()
    run = Churn(conditions)
    run.follow(follow, _tell)
    for line in run.run().lines():
        _tell(line)
