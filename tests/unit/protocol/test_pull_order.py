"""Which pull is served first where there is no room for all (`protocol/pull_queue.py`)."""

import itertools
from dataclasses import replace
from random import Random

import pytest

from pastryd.config import OBJECT_BYTES_MAX, Config
from pastryd.protocol.pull_state import Pulled, PullResult
from tests.support.transfer_link import Faults, Link

LINK_BYTES_PER_S = 12.5e6
CONFIG = replace(Config.wan(), receive_window_bytes=8 << 20)
BYTES = Random(1).randbytes(OBJECT_BYTES_MAX + 64)


def link_of(rtt_s: float, loss: float = 0.0, seed: int = 1) -> Link:
    faults = Faults(rtt_s / 2, 0.0, loss, 0.0, LINK_BYTES_PER_S, LINK_BYTES_PER_S * rtt_s)
    return Link(2, faults, seed, CONFIG)


def begin(link: Link, number: int) -> list[PullResult]:
    return link.pull(link.hold(BYTES[number : number + OBJECT_BYTES_MAX], 1), [1])


def test_pulls_that_begin_together_end_in_the_order_in_which_they_began() -> None:
    link = link_of(0.02, 0.01)
    pulls = [begin(link, number) for number in range(6)]
    ends = []
    for results in pulls:
        link.run(results)
        ends.append(link.now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(ends)]
    alone_s = OBJECT_BYTES_MAX / LINK_BYTES_PER_S
    assert all(0.5 * alone_s < gap < 2 * alone_s for gap in gaps), gaps


def test_something_small_does_not_wait_for_all_that_is_large_and_older() -> None:
    link = link_of(0.02)
    large = [begin(link, number) for number in range(8)]
    link.run_for(0.2)
    asked_at = link.now
    link.run(link.pull(link.hold(BYTES[:3000], 1), [1]))
    assert link.now - asked_at < 0.08
    assert not any(large[3:])


@pytest.mark.parametrize(("rtt_s", "share"), [(0.02, 0.85), (0.08, 0.75)])
def test_a_long_path_that_loses_packets_is_kept_busy(rtt_s: float, share: float) -> None:
    """By a client that wants its chunks in order: 0.84 and 0.66 when pulls took turns."""
    link = link_of(rtt_s, 0.05)
    link.checked = False
    count = 48
    began = link.now
    pulls: list[list[PullResult]] = []
    for number in range(count):
        if number >= 8:
            link.run(pulls[number - 8])
        pulls.append(begin(link, number))
    for results in pulls:
        link.run(results)
        assert isinstance(results[0], Pulled)
    assert count * OBJECT_BYTES_MAX / (link.now - began) > share * LINK_BYTES_PER_S
