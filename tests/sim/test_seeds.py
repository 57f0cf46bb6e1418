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
    assert soak_many(seeds, FRESH_S, told.append, lambda ran, failed: None) == 0, told


def test_a_soak_counts_what_ran_and_names_what_did_not_when_it_is_interrupted() -> None:
    told: list[str] = []
    shown: list[tuple[int, int]] = []

    def show(ran: int, failed: int) -> None:
        shown.append((ran, failed))
        if ran == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        soak_many(range(3, 9), None, told.append, show)
    assert shown == [(1, 0), (2, 0)]
    assert len(told) == 1 and told[0].startswith("2 seeds, 0 failed, ")
    assert "; next is seed 5; " in told[0]


def test_a_soak_that_ran_to_its_end_names_no_next_seed() -> None:
    told: list[str] = []
    assert soak_many([3], None, told.append, lambda ran, failed: None) == 0
    assert told[0].startswith("1 seeds, 0 failed, ") and "next" not in told[0]
