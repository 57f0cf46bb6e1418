"""One run from one seed: faults at random, then peace, with checkers all along (DESIGN sec. 9)."""

from collections.abc import Callable, Iterable
from pathlib import Path


def soak_many(seeds: Iterable[int], seconds: float | None, echo: Callable[[str], object]) -> int:
    """Run many seeds; return how many failed."""
    raise NotImplementedError


def soak_one(
    seed: int, trace_file: Path | None, until: float | None, echo: Callable[[str], object]
) -> int:
    """Run one seed; return 1 if it failed."""
    raise NotImplementedError
