"""The same seed is the same run: in any process, with or without a log, up to any time."""

import os
import re
import subprocess
import sys
from pathlib import Path

from pastryd.sim import checkers
from pastryd.sim.checkers import CheckError
from pastryd.sim.soak import Soak, soak_many, soak_one

SEED = 2


def run_in_process(hash_seed: str, *options: str) -> str:
    command = [sys.executable, "-m", "pastryd.cli.daemon", "sim", "soak", "--seed", str(SEED)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_two_processes_with_different_hash_seeds_tell_the_same_to_the_last_bit(
    tmp_path: Path,
) -> None:
    log = tmp_path / "trace.txt"
    plain = run_in_process("1")
    assert re.search(r"trace [0-9a-f]{16}", plain)
    assert plain == run_in_process("2", "--trace", str(log))
    assert re.search(r"^ *\d+\.\d+   \d+ -> \d+ Route\(", log.read_text("utf-8"), re.MULTILINE)


def test_until_stops_there_and_the_log_up_to_there_is_the_same(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.txt", tmp_path / "half.txt"
    told: list[str] = []
    assert soak_one(SEED, half, 1020.0, told.append) == 0
    assert "until 1020.0" in told[-1]
    assert soak_one(SEED, whole, 1030.0, told.append) == 0
    assert whole.read_text("utf-8").startswith(half.read_text("utf-8"))


def test_other_seeds_are_other_runs() -> None:
    assert len({str(Soak(seed).options) for seed in range(20)}) == 20


def test_a_failing_run_prints_one_line_that_replays_it(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def wrong(*_: object) -> list[str]:
        raise CheckError("ring", "made up\nfor this test")

    monkeypatch.setattr(checkers, "wrong_leaf_sets", wrong)
    told: list[str] = []
    assert soak_many([0], None, told.append, lambda ran, failed: None) == 1
    assert "\n" not in told[0]
    assert re.fullmatch(
        r"seed 0 failed in the liveness phase at [\d.]+: CheckError: ring: made up for this test; "
        r"replay: pastryd sim soak --seed 0",
        told[0],
    )
