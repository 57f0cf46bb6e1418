"""What cannot be simulated is refused in one line, before anything runs."""

from pathlib import Path

import pytest

from pastryd.cli.daemon import cli
from pastryd.cli.exits import BAD_INPUT, REFUSED, run
from pastryd.sim.sessions import TRACE_CHARS_MAX

CHURN = "churn --sessions gnutella"


def status(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        run(cli, "pastryd", ["sim", *arguments])
    return ended.value.code


@pytest.mark.parametrize(
    "arguments",
    [
        "soak --seeds 99999999999999999999999",
        "soak --seeds 1 --seconds -1",
        "soak --seeds 1 --seconds nan",
        "soak --seed 1 --until -1",
        "soak --seed 1 --until nan",
        "scale --nodes 99999999999999999999",
        f"{CHURN} --nodes 99999999999999",
        f"{CHURN} --minutes inf",
        f"{CHURN} --settle nan",
        f"{CHURN} --median nan",
        f"{CHURN} --loss nan",
        f"{CHURN} --lookups inf",
        f"{CHURN} --follow -1",
    ],
)
def test_numbers_that_no_run_can_reach_are_refused(
    arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(arguments.split()) == BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("text", [b"1 2\n3\n", b"0 nan\nnan 0\n", b"0 inf\n1 0\n", b"", b"\xff"])
def test_a_file_that_is_no_latency_matrix_is_named(
    text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "matrix"
    path.write_bytes(text)
    assert status([*CHURN.split(), "--nodes", "2", "--latency", str(path)]) == BAD_INPUT
    assert str(path) in capsys.readouterr().err


def test_a_latency_matrix_without_end_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert status([*CHURN.split(), "--nodes", "2", "--latency", "/dev/zero"]) == BAD_INPUT
    assert "too large" in capsys.readouterr().err


def test_a_file_of_sessions_without_end_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(TRACE_CHARS_MAX + 1)
    assert status(["churn", "--sessions", str(path)]) == BAD_INPUT
    told = capsys.readouterr().err
    assert "it is too large" in told and len(told) < 1000


def test_a_line_that_is_wrong_is_not_shown_without_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "line"
    path.write_text("x" * 100_000)
    assert status(["churn", "--sessions", str(path)]) == BAD_INPUT
    told = capsys.readouterr().err
    assert "want 'node start_s end_s'" in told and len(told) < 1000


def test_a_mistyped_name_of_sessions_is_told_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["churn", "--sessions", "gnutela"]) == BAD_INPUT
    assert "gnutella" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    ["soak --seed 1 --until 0 --trace", "paper --table traces --output", "scale --output"],
)
def test_where_nothing_can_be_written_is_told_before_anything_runs(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert status([*arguments.split(), str(file / "below")]) == BAD_INPUT
    told = capsys.readouterr()
    assert str(file / "below") in told.err
    assert not told.out


def test_a_full_disk_is_told_with_the_file_that_it_was_too_small_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status(["soak", "--seed", "1", "--until", "1", "--trace", "/dev/full"]) == REFUSED
    assert "/dev/full: " in capsys.readouterr().err
