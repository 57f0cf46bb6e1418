"""Exit statuses: every foreseeable error is one line on stderr and a status of its own."""

import errno
import os
from pathlib import Path

import click
import pytest

from pastryd import errors
from pastryd.cli import common, daemon, exits
from pastryd.client import RefusedError


def outcome(error: BaseException | None, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command that raises `error`; return its exit status and stderr."""

    @click.command()
    def command() -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as left:
        exits.run(command, "pastry", [])
    assert isinstance(left.value.code, int)
    return left.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError("m"), exits.BAD_INPUT),
        (errors.StoreError("m"), exits.BAD_INPUT),
        (errors.StoreLostError("start it again"), exits.UNEXPECTED),
        (errors.SupersededError("m"), exits.BAD_INPUT),
        (errors.NotFoundError("m"), exits.NOT_FOUND),
        (errors.UnreachableError("m"), exits.UNREACHABLE),
        (errors.UnderReplicatedError("m"), exits.UNDER_REPLICATED),
        (errors.CorruptError("m"), exits.CORRUPT),
        (errors.PastryError("port taken"), exits.BAD_INPUT),
        (errors.UnexpectedError("a bug stopped the node"), exits.UNEXPECTED),
        (MemoryError(), exits.UNEXPECTED),
        (RuntimeError("can't start new thread"), exits.UNEXPECTED),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), exits.UNEXPECTED),
        (RefusedError("full"), exits.REFUSED),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"), exits.REFUSED),
        (click.UsageError("m"), exits.BAD_INPUT),
    ],
)
def test_each_kind_of_failure_has_its_status_and_one_line(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = outcome(error, capsys)
    assert code == status
    assert text.startswith("pastry: ")
    assert text.count("\n") == 1


def test_success_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(None, capsys) == (0, "")


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(KeyboardInterrupt(), capsys)[0] == 130


def test_an_unforeseen_error_is_a_bug_and_keeps_its_traceback() -> None:
    @click.command()
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exits.run(command, "pastry", [])


def test_of_a_descriptor_it_is_said_what_was_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)

    @click.command()
    def command() -> None:
        with exits.named("photos"):
            open(fd, "rb", closefd=False)  # noqa: SIM115 - a directory by now

    with pytest.raises(SystemExit):
        exits.run(command, "pastry", [])
    os.close(fd)
    assert capsys.readouterr().err.startswith("pastry: photos: Is a directory")


@pytest.mark.parametrize("group", [common.cli, daemon.cli])
def test_both_programs_tell_their_version(
    group: click.Group, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        exits.run(group, "program", ["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("pastryd")
