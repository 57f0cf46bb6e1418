"""`pastryd devcluster`: a whole ring on one machine, one process for each node.

Each child holds the reading end of a pipe as its stdin and stops when that ends, so no child
outlives this process, however it dies. A child that dies alone is reported, and the others go on.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from pastryd.cli import exits
from pastryd.client import Client
from pastryd.errors import ConfigError, PastryError, UnreachableError
from pastryd.net.keys import read_network_key

HOST = "127.0.0.1"
JOIN_TIMEOUT_S = 60.0
"""How long nobody may join until we give up."""
START_AT_ONCE = 8
STOP_TIMEOUT_S = 5.0
_POLL_S = 0.1


class _Child:
    """One node's process."""

    def __init__(self, number: int, port: int, directory: Path) -> None:
        self.number = number
        self.address = f"{HOST}:{port}"
        self.data_dir = directory / f"node-{number}"
        self.log_path = directory / f"node-{number}.log"
        self.process: subprocess.Popen[bytes]
        self.reported = False

    @property
    def started(self) -> bool:
        """Whether it has, or had, a process."""
        return hasattr(self, "process")

    def spawn(self, bootstrap: Sequence[str], options: Mapping[str, object]) -> None:
        command = [sys.executable, "-m", "pastryd.cli.daemon", "start", "--stop-with-stdin"]
        command += ["--config", os.devnull, "--listen", self.address, "--advertise", self.address]
        command += ["--data-dir", str(self.data_dir)]
        for address in bootstrap:
            command += ["--bootstrap", address]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PASTRYD_")}
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                process_group=0,  # Ctrl-C in a terminal is for us alone
            )

    def last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_path.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1]
        return "no output"


class DevCluster:
    """Children, their ports and directories, from start to end."""

    def __init__(
        self, count: int, base_port: int, directory: Path | None, options: Mapping[str, object]
    ) -> None:
        """`options`: settings that all nodes get, by their names."""
        key_file = options.get("network-key-file")
        self._network_key = read_network_key(None if key_file is None else Path(str(key_file)))
        ports = _free_ports(count, base_port)
        self._temporary = directory is None
        self._failed = True
        self._directory = directory or Path(tempfile.mkdtemp(prefix="pastryd-"))
        self._options = options
        self._children = [_Child(i, port, self._directory) for i, port in enumerate(ports)]

    async def run(self, as_json: bool) -> None:
        """Start everything, print where it is, watch until a signal comes, stop everything."""
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        exits.handle(signal.SIGHUP, stop.set)
        try:
            self._start(0)
            began = time.monotonic()
            ids = await self._joined(stop)
            if not stop.is_set():
                self._announce(ids, time.monotonic() - began, as_json)
            while not stop.is_set():
                self._report_deaths()
                if all(child.reported for child in self._children):
                    raise UnreachableError(f"no node is left; their logs are in {self._directory}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _POLL_S)
            self._failed = False
        finally:
            self._stop()

    def _start(self, joined: int) -> None:
        """Start the next ones: all at once, many would keep each other from joining."""
        with _told_for(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            seed = self._children[0].address
            for child in self._children[: joined + START_AT_ONCE]:
                if not child.started:
                    child.spawn([] if child.address == seed else [seed], self._options)

    async def _joined(self, stop: asyncio.Event) -> dict[str, str]:
        """Wait until the ring is consistent and complete; return ids by address."""
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        most = 0
        async with Client(self._children[0].address, self._network_key) as client:
            while not stop.is_set():
                for child in self._children:
                    if child.started and child.process.poll() is not None:
                        raise ConfigError(
                            f"node {child.number} did not start: {child.last_words()}"
                        )
                with contextlib.suppress(PastryError):
                    ring = await client.ring()
                    if ring.consistent and len(ring.nodes) == len(self._children):
                        return {node.address: node.id for node in ring.nodes}
                    if len(ring.nodes) > most:
                        most = len(ring.nodes)
                        deadline = time.monotonic() + JOIN_TIMEOUT_S
                        self._start(most)
                if time.monotonic() > deadline:
                    raise UnreachableError(
                        f"{most} of {len(self._children)} nodes are in one ring, and for "
                        f"{JOIN_TIMEOUT_S:.0f} s nobody joined; their logs are in {self._directory}"
                    )
                await asyncio.sleep(_POLL_S)
        return {}

    def _announce(self, ids: Mapping[str, str], seconds: float, as_json: bool) -> None:
        if as_json:
            nodes = [
                {
                    "address": child.address,
                    "id": ids[child.address],
                    "pid": child.process.pid,
                    "data_dir": str(child.data_dir),
                    "log": str(child.log_path),
                }
                for child in self._children
            ]
            click.echo(json.dumps({"nodes": nodes}))
            return
        for child in self._children:
            click.echo(f"{child.address}  {ids[child.address]}  pid {child.process.pid}")
        click.echo(
            f"ring of {len(self._children)} complete after {seconds:.1f} s, data and logs in "
            f"{self._directory}\n"
            f"use it: pastry --help, with PASTRY_NODE={self._children[-1].address}; Ctrl-C stops it"
        )

    def _report_deaths(self) -> None:
        for child in self._children:
            status = child.process.poll()
            if status is not None and not child.reported:
                child.reported = True
                how = f"signal {-status}" if status < 0 else f"status {status}"
                click.echo(f"node {child.number} ({child.address}) ended with {how}", err=True)

    def _stop(self) -> None:
        started = [child for child in self._children if child.started]
        for child in started:
            assert child.process.stdin is not None
            with contextlib.suppress(OSError):
                child.process.stdin.close()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in started:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        if self._temporary and not self._failed:  # the logs say why it failed
            shutil.rmtree(self._directory, ignore_errors=True)


def _free_ports(count: int, base_port: int) -> list[int]:
    """Return ports that are free now: from `base_port` on, or any if that is 0.

    A ring that runs there already would answer for the one that we start. Raises `ConfigError`.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for port in range(base_port, base_port + count) if base_port else [0] * count:
            made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            try:
                made.bind((HOST, port))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise ConfigError(
                    f"cannot listen on UDP {HOST}:{port}: {reason}; choose another --base-port, "
                    "or 0 for any free ports"
                ) from None
            found.append(made.getsockname()[1])
        return found


@contextlib.contextmanager
def _told_for(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{directory}: {(error.strerror or str(error)).lower()}; choose another --data-dir"
        ) from None
