"""Random faults from fixed seeds, and from a few fresh ones whose numbers are printed.

A seed that ever failed stays in `REGRESSIONS`; `python -m tests.soak --seeds N` runs many.
"""

from random import SystemRandom

import pytest

from tests.soak import Soak

FIXED = range(12)
REGRESSIONS = (143, 302, 1022, 1035, 5061)
FRESH = tuple(SystemRandom().randrange(10_000, 1_000_000) for _ in range(3))


@pytest.mark.parametrize("seed", [*FIXED, *REGRESSIONS, *FRESH])
def test_what_was_acknowledged_survives_the_faults_of(seed: int) -> None:
    Soak(seed).run()
