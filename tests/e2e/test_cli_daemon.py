"""`pastryd` as a process: how it starts, what it refuses, how it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import (
    Process,
    daemon_command,
    is_alive,
    pastry,
    tool_command,
    wait_until,
)

pytestmark = pytest.mark.e2e
Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start daemons on free ports with JSON logs; end them all afterwards."""
    started: list[Process] = []

    def start_one(*arguments: str, name: str = "data", **variables: str) -> Process:
        defaults = ["--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / name)]
        defaults += ["--log-format", "json", "--config", os.devnull]
        process = Process(daemon_command("start", *defaults, *arguments), **variables)
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()


def ready_address(process: Process) -> str:
    return str(process.event("node_ready")["address"])


def test_without_bootstrap_it_says_that_it_starts_a_new_ring(start: Start) -> None:
    first = start()
    assert first.event("starting_a_new_ring")
    address = ready_address(first)
    assert pastry("ping", node=address).status == 0
    second = start("--bootstrap", address, name="second")
    assert ready_address(second) != address
    assert not any("new_ring" in line for line in second.seen)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_leaves_gracefully_and_the_blob_stays(
    start: Start, number: signal.Signals
) -> None:
    first = start()
    address = ready_address(first)
    key = pastry("put", "-", node=address, stdin=b"stays").out.decode().strip()
    second = start("--bootstrap", address, name="second")
    other = ready_address(second)
    first.signal(number)
    assert first.wait() == 0
    assert pastry("get", key, node=other).out == b"stays"


def test_a_second_ctrl_c_does_not_wait_for_the_handover(start: Start) -> None:
    first = start()
    address = ready_address(first)
    assert pastry("put", "-", node=address, stdin=b"wanted by the other").status == 0
    second = start("--bootstrap", address, name="second")
    ready_address(second)
    second.signal(signal.SIGSTOP)  # it takes nothing over, and takes long to be given up
    first.signal(signal.SIGINT)
    first.event("handing_over")
    first.signal(signal.SIGINT)
    assert first.wait() == 0
    assert first.event("node_stopped")


def test_a_restart_keeps_identity_and_data(start: Start) -> None:
    first = start()
    identity = first.event("node_started")["id"]
    put = pastry("put", "-", node=ready_address(first), stdin=b"kept")
    first.kill()
    again = start()
    assert again.event("node_started")["id"] == identity
    assert pastry("get", put.out.decode().strip(), node=ready_address(again)).out == b"kept"


def test_silent_bootstrap_is_told_and_ends_only_with_its_timeout(start: Start) -> None:
    process = start("--bootstrap", "127.0.0.1:1", "--bootstrap-timeout", "1s")
    assert process.wait() == 4
    process.line_where(lambda line: line.startswith("pastryd: "))
    assert any("127.0.0.1:1" in line for line in process.seen)
    patient = start("--bootstrap", "127.0.0.1:1", name="patient")
    assert "same network key" in str(patient.event("still_joining")["advice"])
    assert patient.popen.poll() is None
    address = json.loads(next(line for line in patient.seen if "node_started" in line))["address"]
    ping = pastry("ping", node=address)
    assert (ping.status, ping.err) == (7, "")
    assert b"not ready" in ping.out
    patient.signal(signal.SIGTERM)
    assert patient.wait() == 0


def refused(process: Process) -> str:
    """Return the one line that a daemon which could not start said."""
    assert process.wait() == 2
    line = process.line_where(lambda line: line.startswith("pastryd: "))
    assert not any("Traceback" in line for line in process.seen)
    return line


def test_a_taken_port_is_told(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in refused(start("--listen", address))


def test_of_two_nodes_on_copies_of_one_data_directory_the_older_one_stops(
    start: Start, tmp_path: Path
) -> None:
    address = ready_address(start())
    bootstrap = ("--bootstrap", address)
    older = start(*bootstrap, name="original")
    ready_address(older)
    shutil.copytree(tmp_path / "original", tmp_path / "copy")  # nothing is being written
    newer = start(*bootstrap, name="copy")
    where = ready_address(newer)
    assert older.wait() == 2
    older.event("identity_used_twice")
    said = older.line_where(lambda line: line.startswith("pastryd: "))
    assert f"a newer node runs under this one's identity at {where}" in said
    assert "empty --data-dir" in said
    assert pastry("ring", node=address).status == 0
    assert newer.popen.poll() is None


def test_a_foreign_data_directory_is_refused_and_left_alone(start: Start, tmp_path: Path) -> None:
    foreign = tmp_path / "data"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    assert str(foreign) in refused(start())
    assert os.listdir(foreign) == ["thesis.txt"]


def test_a_data_directory_in_use_is_refused(start: Start) -> None:
    ready_address(start())
    assert "in use" in refused(start())


def test_a_damaged_page_of_the_store_is_told_in_one_line(start: Start, tmp_path: Path) -> None:
    first = start()
    pastry("put", "-", node=ready_address(first), stdin=bytes(100_000))
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    page = 4096
    data = tmp_path / "data" / "store" / "data.mdb"
    whole = data.read_bytes()
    leaves = [at for at in range(2 * page, len(whole), page) if whole[at + 10] == 2]
    with data.open("r+b") as file:
        for at in leaves:  # in use or not: there are old ones among them
            file.seek(at)
            file.write(bytes(page))
    assert "move the data directory away" in refused(start())


def test_systemd_is_told_when_the_node_is_ready_and_when_it_stops(
    start: Start, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        process = start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert systemd.recv(100) == b"READY=1"
        process.signal(signal.SIGTERM)
        assert systemd.recv(100) == b"STOPPING=1"


def test_no_node_of_a_devcluster_outlives_it(tmp_path: Path) -> None:
    command = daemon_command("devcluster", "-n", "3", "--base-port", "0", "--json")
    cluster = Process([*command, "--data-dir", str(tmp_path)])
    document = json.loads(cluster.line_where(lambda line: line.startswith("{")))
    pids = [node["pid"] for node in document["nodes"]]
    assert all(map(is_alive, pids))
    cluster.kill()
    wait_until(lambda: not any(map(is_alive, pids)), "all nodes have ended", 15)


def test_ctrl_c_ends_a_devcluster_and_removes_its_temporary_data() -> None:
    command = daemon_command("devcluster", "-n", "2", "--base-port", "0", "--json")
    cluster = Process(command, stdin=subprocess.DEVNULL)
    document = json.loads(cluster.line_where(lambda line: line.startswith("{")))
    cluster.signal(signal.SIGINT)
    assert cluster.wait() == 0
    assert not any(is_alive(node["pid"]) for node in document["nodes"])
    assert not any(Path(node["data_dir"]).exists() for node in document["nodes"])


def test_a_devcluster_on_the_ports_of_another_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        command = daemon_command("devcluster", "-n", "2", "--base-port", str(port - 1))
        cluster = Process(command, stdin=subprocess.DEVNULL, TMPDIR=str(tmp_path))
        assert f"127.0.0.1:{port}" in refused(cluster)
    assert not os.listdir(tmp_path)


def test_a_devcluster_without_nodes_ends_and_says_where_the_logs_are(tmp_path: Path) -> None:
    command = daemon_command("devcluster", "-n", "2", "--base-port", "0", "--json")
    cluster = Process(command, stdin=subprocess.DEVNULL, TMPDIR=str(tmp_path))
    document = json.loads(cluster.line_where(lambda line: line.startswith("{")))
    for node in document["nodes"]:
        os.kill(node["pid"], signal.SIGKILL)
    assert cluster.wait() == 4
    cluster.line_where(lambda line: "no node is left" in line and str(tmp_path) in line)
    assert all(Path(node["log"]).exists() for node in document["nodes"])


def test_no_process_of_a_simulation_outlives_it(tmp_path: Path) -> None:
    command = daemon_command("sim", "scale", "--nodes", "100000", "--output", str(tmp_path))
    simulation = Process(command)
    try:
        simulation.line_where(lambda line: "nodes started" in line)
        children = Path(f"/proc/{simulation.popen.pid}/task/{simulation.popen.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()]
    finally:
        simulation.kill()
    assert pids
    wait_until(lambda: not any(map(is_alive, pids)), "all processes have ended", 15)


SLOW_SYNCS = r"""
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static int slow(int call, int fd) {
    if (access(getenv("SLOW_WHILE"), F_OK) == 0) sleep(60);
    return syscall(call, fd);
}
int fsync(int fd) { return slow(SYS_fsync, fd); }
int fdatasync(int fd) { return slow(SYS_fdatasync, fd); }
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler to slow the disk down with")
def test_two_interrupts_stop_at_once_whatever_the_disk_does(start: Start, tmp_path: Path) -> None:
    source, library, slow = tmp_path / "slow.c", tmp_path / "slow.so", tmp_path / "slow"
    source.write_text(SLOW_SYNCS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    node = start(LD_PRELOAD=str(library), SLOW_WHILE=str(slow))
    address = ready_address(node)
    key = pastry("put", "-", node=address, stdin=b"on disk").out.decode().strip()
    slow.touch()
    (tmp_path / "more").write_bytes(b"never acknowledged")
    putting = Process(tool_command("put", "--node", address, str(tmp_path / "more")))
    wait_until(
        lambda: json.loads(pastry("status", "--json", node=address).out)["in_progress"]["puts"],
        "a put that waits for the disk",
    )
    node.signal(signal.SIGINT)
    node.event("handing_over")
    node.signal(signal.SIGINT)
    node.line_where(lambda line: "before the disk had answered" in line)
    assert node.wait() == 1
    putting.kill()
    again = start()
    assert pastry("get", key, node=ready_address(again)).out == b"on disk"
