"""Random faults from fixed seeds, from those that ever failed, and from fresh ones.

The fresh ones' numbers are printed, and how to run one again is in the failure. Many more:
`pastryd sim soak --seeds N`.
"""

from pathlib import Path
from random import SystemRandom

import pytest

from pastryd.sim.soak import Soak, soak_many

FIXED = range(14)
REGRESSIONS = [
    int(line.split()[0])
    for line in (Path(__file__).parent / "seeds.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
FRESH = 20
FRESH_S = 8.0


@pytest.mark.parametrize("seed", [*FIXED, *REGRESSIONS])
def test_what_was_acknowledged_survives_the_faults_of(seed: int) -> None:
    Soak(seed).run()


def test_what_was_acknowledged_survives_the_faults_of_fresh_seeds() -> None:
    random = SystemRandom()
    seeds = [random.randrange(10**6, 10**9) for _ in range(FRESH)]
    print("fresh seeds:", *seeds)
    told: list[str] = []
    assert soak_many(seeds, FRESH_S, told.append) == 0, told
