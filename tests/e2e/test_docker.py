"""The image and the compose file, really run: put at the host, get in a container, kill two nodes.

Needs a Docker engine, a compose command, and the base image `python:3.11-slim`; says so elsewhere.
"""

import hashlib
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import environment, pastry, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
TOP = Path(__file__).resolve().parents[2]
NODES = 8
PROJECT = f"pastrytest{os.getpid()}"


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        cwd=TOP,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=600,
    )


def why_not() -> str:
    """Return why this machine cannot run these tests; empty when it can."""
    if shutil.which("docker") is None:
        return "no docker command"
    if run("docker", "info").returncode != 0:
        return "no Docker engine answers"
    if run("docker", "image", "inspect", "python:3.11-slim").returncode != 0:
        return "the base image python:3.11-slim is not there (docker pull python:3.11-slim)"
    if compose_command() is None:
        return "neither `docker compose` nor `docker-compose`"
    return ""


def compose_command() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and run(*command, "version").returncode == 0:
            return command
    return None


class Composition:
    """The project's containers while a test runs."""

    def __init__(self, port: int) -> None:
        command = compose_command()
        assert command is not None
        self._command = [*command, "-p", PROJECT]
        self._port = str(port)
        self.host_node = f"127.0.0.1:{port}"

    def compose(self, *arguments: str) -> bytes:
        done = run(*self._command, *arguments, PASTRY_HOST_PORT=self._port)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).decode().split()

    def ring_size(self) -> int:
        """Return how many nodes a consistent ring has, 0 when there is none."""
        said = pastry("ring", "--json", "--timeout", "10s", node=self.host_node)
        document: Any = said.json() if said.status == 0 else {"consistent": False}
        return len(document["nodes"]) if document["consistent"] else 0


@pytest.fixture(scope="module")
def composition() -> Iterator[Composition]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    composition = Composition(port)
    try:
        composition.compose("build")
        composition.compose("up", "-d", "--scale", f"node={NODES}")
        yield composition
    finally:
        composition.compose("down", "-v", "-t", "1")


def test_a_file_put_at_the_host_outlives_two_containers(
    composition: Composition, tmp_path: Path
) -> None:
    wait_until(lambda: composition.ring_size() == NODES + 1, "all containers form one ring", 120)
    content = random.Random(9).randbytes(20_000_000)
    (tmp_path / "file").write_bytes(content)
    put = pastry("put", str(tmp_path / "file"), node=composition.host_node)
    assert (put.status, put.err) == (0, "")
    key = put.out.decode().strip()
    assert key == hashlib.sha256(content).hexdigest()

    nodes = composition.containers("node")
    assert len(nodes) == NODES
    assert run("docker", "exec", nodes[0], "pastry", "get", key).stdout == content
    killed, left = nodes[1:3], [nodes[0], *nodes[3:]]
    assert run("docker", "kill", *killed).returncode == 0
    for node in left:
        assert run("docker", "exec", node, "pastry", "get", key).stdout == content


def test_the_health_check_of_every_container_passes(composition: Composition) -> None:
    def healthy() -> bool:
        running = [*composition.containers("seed"), *composition.containers("node")]
        form = "{{.State.Running}} {{.State.Health.Status}}"
        states = run("docker", "inspect", "-f", form, *running).stdout.decode().splitlines()
        up = [state for state in states if state.startswith("true")]
        return len(up) >= NODES - 1 and all(state == "true healthy" for state in up)

    wait_until(healthy, "every running container is healthy", 90)


def test_the_image_runs_as_nobody_special(composition: Composition) -> None:
    seed = composition.containers("seed")[0]
    assert run("docker", "exec", seed, "id", "-u").stdout.strip() == b"4160"
