"""`pastryd`: the daemon's command line.

Owns the process: its settings, its logs, its signals, its exit status. One node in one process on
one UDP socket; what a node does is `service.py`'s business.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pastryd.cli import exits, footprint
from pastryd.cli.common import version_option
from pastryd.cli.settings import PARSERS, PORT, Settings, load_settings

SETTLED_S = 30.0
"""When a node that serves has forgotten how it started."""
AT_ONCE_S = 3.0
"""How long a node that is to stop at once waits for its disk."""

_Command = TypeVar("_Command", bound=Callable[..., Any])

START_OPTIONS: dict[str, tuple[str, str]] = {
    "bootstrap": (
        "HOST:PORT",
        "A node of the ring to join; repeatable. All addresses of a DNS name are tried. "
        "Without it the node rejoins through peers of an earlier run, or starts a new ring.",
    ),
    "bootstrap-timeout": (
        "TIME",
        "Give up (status 4) when the node has not joined after so long; default: never.",
    ),
    "listen": ("HOST:PORT", f"The UDP socket; default [::]:{PORT}, which takes IPv4 too."),
    "advertise": (
        "HOST[:PORT]",
        "The address that others are told; default: where the first peers saw us.",
    ),
    "data-dir": ("DIR", "Identity and objects; default: the platform's user data directory."),
    "replicas": ("N", "Copies of every object, the same on all nodes of a ring; default 3."),
    "capacity": ("SIZE", "Most bytes to store, as 10GB or 500MiB; default: what the disk has."),
    "network-key-file": (
        "FILE",
        "The secret that all nodes and clients of the network share; who lacks it is not heard.",
    ),
    "preset": ("lan|wan", "Timeouts for machines in one room or anywhere; default lan."),
    "log-format": ("console|json", "Default console."),
    "log-level": ("LEVEL", "debug, info, warning or error; default info."),
    "record": (
        "FILE",
        "Write all that the node is told to a new file, for `pastryd sim replay`; contents of "
        "items are in it.",
    ),
}


def setting_options(*names: str) -> Callable[[_Command], _Command]:
    """Give a command the options of these settings; not given arrives as None or ()."""

    def decorate(command: _Command) -> _Command:
        for name in reversed(names):
            metavar, text = START_OPTIONS[name]
            multiple = name == "bootstrap"
            command = click.option(f"--{name}", metavar=metavar, help=text, multiple=multiple)(
                command
            )
        return command

    return decorate


class _WithSimulator(click.Group):
    """Loads `pastryd sim` only when somebody asks for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "sim"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "sim":
            return super().get_command(ctx, cmd_name)
        from pastryd.cli.sim import sim  # noqa: PLC0415

        return sim


@click.group(cls=_WithSimulator, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def cli() -> None:
    """Keep immutable bytes on many ordinary machines: one daemon on each.

    Every option of `start` can also be set as PASTRYD_OPTION in the environment and as `option` in
    the TOML file. The command line wins, then the environment, then the file, then the default.
    """


@cli.command()
@setting_options(*PARSERS)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="TOML file with settings; default: config.toml in the platform's user config directory.",
)
@click.option("--stop-with-stdin", is_flag=True, hidden=True)
def start(config_file: Path | None, stop_with_stdin: bool, **options: object) -> None:
    """Run one node until it is told to leave.

    SIGTERM, a closed terminal, or Ctrl-C once: leave gracefully, handing the objects over. Ctrl-C
    twice: at once. Exit status: 0 left, 1 unexpected failure, 2 bad settings, data directory or
    port, 4 not joined within --bootstrap-timeout.
    """
    given = {name.replace("_", "-"): value for name, value in options.items()}
    settings = load_settings(given, config_file=config_file)
    from pastryd.cli.logs import configure  # noqa: PLC0415  (start-up time of the other commands)

    configure(settings.log_format, settings.log_level)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run(settings, stop_with_stdin))


@cli.command()
@click.option("-n", "--nodes", default=8, show_default=True, type=click.IntRange(1, 256))
@click.option(
    "--base-port",
    default=PORT,
    show_default=True,
    type=click.IntRange(0, 65_000),
    help="Port of the first node, the others follow; 0: any free ports.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the nodes' data here; default: a temporary directory, removed at the end.",
)
@setting_options("replicas", "capacity", "network-key-file", "preset", "log-level")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def devcluster(
    nodes: int, base_port: int, data_dir: Path | None, as_json: bool, **options: object
) -> None:
    """Run a whole ring on this machine, until Ctrl-C."""
    from pastryd.cli.devcluster import DevCluster  # noqa: PLC0415

    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    load_settings(given, environment={})  # bad values are told here, not by eight children
    cluster = DevCluster(nodes, base_port, data_dir, given)
    asyncio.run(cluster.run(as_json))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop where there is one, else asyncio's."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class _Signals:
    """What the outside wants of us: leave (SIGTERM, SIGHUP, SIGINT) or stop (SIGINT twice)."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.leave.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        exits.handle(signal.SIGHUP, self.leave.set)

    def _interrupt(self) -> None:
        if self.leave.is_set():
            self._stop()
        else:
            self.leave.set()

    def _stop(self) -> None:
        """Stop at once, in the middle of a write if need be: nothing acknowledged is lost by it."""
        if not self.stop.is_set():
            self.stop.set()
            watchdog = threading.Timer(AT_ONCE_S, _leave_the_disk_alone)
            watchdog.daemon = True
            watchdog.start()

    def stop_with_stdin(self) -> None:
        """Stop at once when stdin ends: whoever started us is gone (`pastryd devcluster`)."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin.fileno())
                self.leave.set()
                self._stop()

        loop.add_reader(sys.stdin.fileno(), readable)


def _leave_the_disk_alone() -> None:
    exits.complain(
        "pastryd",
        f"stopped before the disk had answered, for {AT_ONCE_S:g} s; what was acknowledged is safe",
    )
    os._exit(exits.UNEXPECTED)


async def _first_of(*waits: Any) -> None:
    """Wait until one of several awaitables ends; raise what it raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(settings: Settings, stop_with_stdin: bool) -> None:
    import structlog  # noqa: PLC0415

    from pastryd.net.notify import notify  # noqa: PLC0415
    from pastryd.service import Service  # noqa: PLC0415

    log = structlog.get_logger()
    signals = _Signals()
    if stop_with_stdin:
        signals.stop_with_stdin()
    service = Service(settings, settings.record)
    try:
        await _first_of(service.start(), signals.leave.wait())
        if not signals.leave.is_set():
            notify("READY=1")
            asyncio.get_running_loop().call_later(SETTLED_S, footprint.give_back)
            await _first_of(service.wait_stopped(), signals.leave.wait())
            notify("STOPPING=1")
            if signals.leave.is_set() and not signals.stop.is_set():
                log.info("handing_over", advice="Ctrl-C stops at once")
                await _first_of(service.leave(), signals.stop.wait())
    finally:
        await service.stop()
    log.info("node_stopped")


def main() -> None:
    """Entry point of `pastryd`."""
    exits.run(cli, "pastryd")


if __name__ == "__main__":
    main()
