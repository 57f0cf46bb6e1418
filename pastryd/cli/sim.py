"""`pastryd sim`: the simulator's commands, each loaded when it is called.

Owns options and what is printed; what happens in virtual time is the business of `pastryd.sim`.
"""

import sys
from pathlib import Path

import click


@click.group()
def sim() -> None:
    """Run real nodes in virtual time: hunt for lost data, measure what the papers measured."""


@sim.command()
@click.option("--seeds", default=20, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--from", "first", default=0, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="Run this one alone.")
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a readable log of the run here; with --seed.",
)
@click.option("--until", metavar="T", type=float, help="Stop at this virtual time; with --seed.")
@click.option("--seconds", type=float, help="Start no further seed after so many real seconds.")
def soak(
    seeds: int,
    first: int,
    seed: int | None,
    trace_file: Path | None,
    until: float | None,
    seconds: float | None,
) -> None:
    """Random faults from each seed, then peace: is everything acknowledged still there?

    Every failure prints one line that replays it. Status 1 when a seed failed.
    """
    from pastryd.sim.soak import soak_many, soak_one  # noqa: PLC0415

    if seed is None:
        if trace_file is not None or until is not None:
            raise click.UsageError("--trace and --until want one --seed")
        failed = soak_many(range(first, first + seeds), seconds, click.echo)
    else:
        failed = soak_one(seed, trace_file, until, click.echo)
    if failed:
        sys.stdout.flush()
        raise click.exceptions.Exit(1)
