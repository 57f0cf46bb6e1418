"""What cannot be simulated is refused in one line, before anything runs."""

from pathlib import Path

import pytest

from pastryd.cli.daemon import cli
from pastryd.cli.exits import BAD_INPUT, run

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


def test_a_mistyped_name_of_sessions_is_told_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["churn", "--sessions", "gnutela"]) == BAD_INPUT
    assert "gnutella" in capsys.readouterr().err
