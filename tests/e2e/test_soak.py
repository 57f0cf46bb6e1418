"""A soak that is watched on a terminal, and ended before it is done."""

import os
import pty
import re
import signal
import subprocess

import pytest

from tests.support.processes import DEADLINE_S, daemon_command, environment

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("ended_by", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_soak_that_is_ended_says_how_far_it_came(ended_by: signal.Signals, status: int) -> None:
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        daemon_command("sim", "soak", "--from", "7", "--seeds", "4000"),
        stdout=subprocess.PIPE,
        stderr=its_end,
        env=environment(TERM="xterm", COLUMNS="100"),
        text=True,
    ) as soak:
        os.close(its_end)
        drawn = b""
        while not re.search(rb" [1-9]\d*/4000", drawn):
            drawn += os.read(terminal, 4096)
        soak.send_signal(ended_by)
        said, _ = soak.communicate(timeout=DEADLINE_S)
        os.close(terminal)
    assert soak.returncode == status
    last = said.splitlines()[-1]
    counted = re.match(r"(\d+) seeds, 0 failed, \d+ datagrams, \d+ s; next is seed (\d+); ", last)
    assert counted is not None, said
    assert int(counted[1]) >= 1
    assert int(counted[2]) == 7 + int(counted[1])
    assert "\x1b" not in said
