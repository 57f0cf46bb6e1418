"""Exit statuses, and the one place where a command's errors become one line on stderr.

Every foreseeable failure ends here: a line that says what to do, its own status, no traceback. What
is not foreseen is our bug and keeps its traceback (status 1).
"""

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import click

from pastryd import errors

OK = 0
UNEXPECTED = 1
BAD_INPUT = 2
NOT_FOUND = 3
UNREACHABLE = 4
UNDER_REPLICATED = 5
CORRUPT = 6
REFUSED = 7
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + signal.SIGPIPE

_STATUS_BY_ERROR: tuple[tuple[type[errors.PastryError], int], ...] = (
    (errors.NotFoundError, NOT_FOUND),
    (errors.UnreachableError, UNREACHABLE),
    (errors.UnderReplicatedError, UNDER_REPLICATED),
    (errors.CorruptError, CORRUPT),
    (errors.StoreLostError, UNEXPECTED),  # to start again is what helps
    (errors.StoreError, BAD_INPUT),
    (errors.SupersededError, BAD_INPUT),
    (errors.ConfigError, BAD_INPUT),
    (errors.LocalProtocolError, BAD_INPUT),
    (errors.UnexpectedError, UNEXPECTED),
)


def status_of(error: errors.PastryError) -> int:
    """Return the exit status that a typed error ends a command with."""
    for kind, status in _STATUS_BY_ERROR:
        if isinstance(error, kind):
            return status
    from pastryd.client import RefusedError  # noqa: PLC0415  (loaded already, if it was raised)

    return REFUSED if isinstance(error, RefusedError) else BAD_INPUT


def complain(program: str, message: str) -> None:
    """Print one line on stderr."""
    line = " ".join(message.split())
    # When nobody reads stderr any more the exit status still says it.
    with contextlib.suppress(OSError):
        print(f"{program}: {line}", file=sys.stderr)


def run(command: click.Command, program: str, arguments: list[str] | None = None) -> NoReturn:
    """Run a click command and leave the process with the right status."""
    _open_standard_streams()
    try:
        result = command.main(arguments, prog_name=program, standalone_mode=False)
        status = result if isinstance(result, int) else OK
        with named("stdout"):
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        status = BAD_INPUT
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else program
        complain(program, f"{error.format_message().rstrip('.')} (see {path} --help)")
        status = BAD_INPUT
    except click.ClickException as error:
        complain(program, error.format_message())
        status = BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        complain(program, "interrupted")
        status = INTERRUPTED
    except errors.PastryError as error:
        complain(program, str(error))
        status = status_of(error)
    except (BrokenPipeError, SystemExit):  # click turns the former into the latter
        status = PIPE_CLOSED
        _drop_stdout()
    except (MemoryError, RuntimeError) as error:
        if (lacking := errors.shortage(error)) is None:
            raise
        complain(program, lacking)
        status = UNEXPECTED
    except OSError as error:
        complain(program, errors.shortage(error) or _os_error_line(error))
        status = REFUSED if error.errno in (errno.ENOSPC, errno.EDQUOT) else UNEXPECTED
        _drop_stdout()
    sys.exit(status)


@contextlib.contextmanager
def named(subject: str) -> Iterator[None]:
    """Say in an `OSError` what was read or written; of a descriptor the system names no file."""
    try:
        yield
    except OSError as error:
        name = subject if isinstance(error.filename, int) else error.filename
        raise OSError(error.errno, error.strerror, name or subject) from None


def handle(number: signal.Signals, callback: Callable[..., object], *arguments: object) -> None:
    """Handle a signal in the running loop, unless we were started to ignore it, as by nohup."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        asyncio.get_running_loop().add_signal_handler(number, callback, *arguments)


def _open_standard_streams() -> None:
    """Give standard streams that arrive closed a file again.

    Else the next socket or file of ours takes the number, and what is printed goes there. stdin and
    stdout are opened the wrong way round: using them is an error that is told. stderr swallows.
    """
    ways = (("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))
    for number, (name, flags) in enumerate(ways):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, flags)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115  (stays open)
            setattr(sys, name, stream)


def _drop_stdout() -> None:
    # The interpreter flushes stdout once more on its way out; let that go nowhere.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _os_error_line(error: OSError) -> str:
    subject = f"{error.filename}: " if error.filename else ""
    return f"{subject}{error.strerror or error}"
