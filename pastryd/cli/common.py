"""What all commands of `pastry` share: the common options, the event loop, the client.

Imports are late on purpose: a put of a small file is mostly the start of an interpreter.
"""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pastryd.cli import exits
from pastryd.errors import ConfigError, UnreachableError

if TYPE_CHECKING:
    from pastryd.client import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Common:
    """The options that every command has."""

    nodes: tuple[str, ...]
    network_key_file: Path | None
    timeout_s: float | None
    as_json: bool


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib import metadata  # noqa: PLC0415

    try:
        click.echo(f"pastryd {metadata.version('pastryd')}")
    except metadata.PackageNotFoundError:
        click.echo("pastryd, run from a source tree without being installed")
    ctx.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 unexpected failure (ring: not consistent), 2 bad input, 3 not "
    "found, 4 unreachable, 5 stored on fewer nodes than wanted, 6 corrupt, 7 refused or no space, "
    "129 terminal closed, 130 interrupted, 141 nobody reads our output, 143 terminated.",
)
@version_option
def cli() -> None:
    """Put a file anywhere, get it anywhere. The key of a blob is what sha256sum prints."""


def command(function: Callable[..., Awaitable[int | None]]) -> click.Command:
    """Make a command of a coroutine function: the common options, one event loop, signals."""

    def run(
        nodes: tuple[str, ...],
        network_key_file: Path | None,
        timeout: str | None,
        as_json: bool,
        **arguments: object,
    ) -> int | None:
        from pastryd.cli.settings import parse_duration  # noqa: PLC0415

        timeout_s = None if timeout is None else _checked("--timeout", parse_duration, timeout)
        names = tuple(part for node in nodes for part in re.split(r"[,\s]+", node) if part)
        common = Common(names or ("127.0.0.1",), network_key_file, timeout_s, as_json)
        return asyncio.run(_supervised(function(common, **arguments), timeout_s))

    wrapped: Callable[..., Any] = update_wrapper(run, function)
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--timeout", metavar="TIME", help="Give up (status 4) after so long."),
        click.option(
            "--network-key-file",
            metavar="FILE",
            envvar="PASTRYD_NETWORK_KEY_FILE",
            type=click.Path(path_type=Path),
            help="The network's secret, as for the daemon.  [env: PASTRYD_NETWORK_KEY_FILE]",
        ),
        click.option(
            "--node",
            "nodes",
            metavar="HOST:PORT",
            envvar="PASTRY_NODE",
            multiple=True,
            help="The node to talk to; repeatable: the first that answers.  [env: PASTRY_NODE; "
            "default: 127.0.0.1:4160]",
        ),
    ):
        wrapped = option(wrapped)
    return cli.command()(wrapped)


def _checked(option: str, parse: Callable[[str], float], text: str) -> float:
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: cannot use {text!r}: {error}") from None


async def _supervised(work: Awaitable[int | None], timeout_s: float | None) -> int | None:
    """Run a command's work; SIGTERM and SIGHUP cancel it, so that it cleans up as after Ctrl-C."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGHUP):
        exits.handle(number, task.cancel, number)
    try:
        async with asyncio.timeout(timeout_s):
            return await task
    except TimeoutError:
        raise UnreachableError(
            f"not done within the {timeout_s:g} s of --timeout; try again with more"
        ) from None
    except asyncio.CancelledError as cancelled:
        if cancelled.args and isinstance(cancelled.args[0], signal.Signals):
            return 128 + cancelled.args[0]
        raise


@asynccontextmanager
async def connected(common: Common) -> AsyncIterator["Client"]:
    """Yield a client of the access node."""
    from pastryd.client import Client  # noqa: PLC0415
    from pastryd.net.keys import read_network_key  # noqa: PLC0415

    async with Client(common.nodes, read_network_key(common.network_key_file)) as client:
        yield client
