"""`pastry` against a real ring: what it prints, what it leaves, how it ends."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pastryd.cli.entry import OPEN_FILES_LEAST
from tests.support.processes import (
    TOP,
    RingNode,
    dev_ring,
    environment,
    pastry,
    tool_command,
    wait_until,
)

pytestmark = pytest.mark.e2e
UNKNOWN = hashlib.sha256(b"nobody has put this").hexdigest()


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RingNode]]:
    with dev_ring(5, tmp_path_factory.mktemp("ring")) as nodes:
        yield nodes


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_a_file_put_at_one_node_is_got_at_another_under_its_sha256(
    ring: list[RingNode], tmp_path: Path, size: int
) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "in").write_bytes(content)
    put = pastry("put", str(tmp_path / "in"), node=ring[0].address)
    assert (put.status, put.out.decode(), put.err) == (0, sha256(content) + "\n", "")
    got = pastry("get", sha256(content), node=ring[3].address)
    assert (got.status, got.err) == (0, "")
    assert sha256(got.out) == sha256(content)
    again = pastry("get", sha256(content), "-o", "-", node=ring[3].address)
    assert (again.status, sha256(again.out)) == (0, sha256(content))
    key = sha256(content).upper()
    assert pastry("get", key, "-o", str(tmp_path / "out"), node=ring[4].address).status == 0
    assert sha256((tmp_path / "out").read_bytes()) == sha256(content)
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_a_pipe_is_put_as_it_streams(ring: list[RingNode]) -> None:
    content = random.Random(1).randbytes(3_000_000)
    put = pastry("put", "-", node=ring[1].address, stdin=content)
    assert put.out.decode().strip() == sha256(content)
    assert pastry("get", sha256(content), node=ring[2].address).out == content


def test_several_files_are_told_apart_as_sha256sum_does(
    ring: list[RingNode], tmp_path: Path
) -> None:
    names = [str(tmp_path / name) for name in ("a", "b")]
    for name in names:
        Path(name).write_text(name)
    put = pastry("put", *names, node=ring[0].address)
    assert put.out.decode().splitlines() == [f"{sha256(n.encode())}  {n}" for n in names]
    as_json = pastry("put", "--json", *names, node=ring[0].address)
    documents = [json.loads(line) for line in as_json.out.splitlines()]
    assert [(d["key"], d["file"]) for d in documents] == [(sha256(n.encode()), n) for n in names]


def test_many_files_are_told_in_their_order_whatever_their_size(
    ring: list[RingNode], tmp_path: Path
) -> None:
    rng = random.Random(5)
    contents = [rng.randbytes(size) for size in [3000] * 30 + [2_500_000, 0, 1 << 20] + [10] * 30]
    names = [str(tmp_path / str(i)) for i in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        Path(name).write_bytes(content)
    put = pastry("put", *names, node=ring[0].address)
    lines = [f"{sha256(c)}  {n}" for c, n in zip(contents, names, strict=True)]
    assert (put.status, put.out.decode().splitlines(), put.err) == (0, lines, "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_names_that_are_no_text_are_printed_as_they_are(
    ring: list[RingNode], tmp_path: Path, encoding: str
) -> None:
    names = [bytes(tmp_path) + name for name in (b"/odd\xff", b"/\xc3\xbc")]
    for name in names:
        Path(os.fsdecode(name)).write_bytes(name)
    arguments = ("put", *map(os.fsdecode, names))
    put = pastry(*arguments, node=ring[0].address, PYTHONIOENCODING=encoding)
    lines = [sha256(name).encode() + b"  " + name for name in names]
    assert (put.status, put.out.splitlines(), put.err) == (0, lines, "")


def test_stat_says_where_each_replica_lies(ring: list[RingNode]) -> None:
    content = random.Random(2).randbytes(2_500_000)
    key = pastry("put", "-", node=ring[0].address, stdin=content).out.decode().strip()
    document: Any = pastry("stat", "--json", key, node=ring[4].address).json()
    assert (document["key"], document["size"]) == (key, len(content))
    assert document["chunks"] == 3
    addresses = {node.address for node in ring}
    kinds = [part["kind"] for part in document["replicas"]]
    assert sorted(kinds) == ["chunk", "chunk", "chunk", "index", "manifest"]
    for part in document["replicas"]:
        assert len({holder["address"] for holder in part["holders"]} & addresses) >= 3
    text = pastry("stat", key, node=ring[4].address).out.decode()
    assert "2500000" in text
    assert any(address in text for address in addresses)


def test_ping_status_trace_and_ring_answer(ring: list[RingNode]) -> None:
    node = ring[2]
    ping: Any = pastry("ping", "--json", node=node.address).json()
    assert ping["id"] == node.id
    status: Any = pastry("status", "--json", node=node.address).json()
    assert status["id"] == node.id
    trace: Any = pastry("trace", "--json", UNKNOWN, node=node.address).json()
    assert trace["hops"]
    walked: Any = pastry("ring", "--json", node=node.address).json()
    assert walked["consistent"] is True
    assert {(n["id"], n["address"]) for n in walked["nodes"]} == {(n.id, n.address) for n in ring}
    for command in (["ping"], ["status"], ["trace", UNKNOWN], ["ring"]):
        said = pastry(*command, node=node.address)
        assert (said.status, said.err) == (0, "")
        assert said.out.count(b"\n") >= 1


def test_an_unknown_key_is_not_found_and_leaves_an_old_file_alone(
    ring: list[RingNode], tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    got = pastry("get", UNKNOWN, "-o", str(target), node=ring[0].address)
    assert (got.status, got.out) == (3, b"")
    assert got.err.count("\n") == 1
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]
    assert pastry("stat", UNKNOWN, node=ring[0].address).status == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "abc"],
        ["get", "z" * 64],
        ["stat", "0" * 63],
        ["trace", ""],
        ["put", "no-such-file"],
        ["put", "."],
        ["put"],
        ["get", UNKNOWN, "-o", "no-such-directory/file"],
        ["ping", "--node", "host:port"],
        ["ping", "--timeout", "soon"],
        ["ping", "--network-key-file", "no-such-file"],
        ["fetch"],
    ],
)
def test_bad_input_is_one_line_and_status_2(ring: list[RingNode], arguments: list[str]) -> None:
    said = pastry(*arguments, node=ring[0].address)
    assert (said.status, said.out) == (2, b"")
    assert said.err.startswith("pastry: ")
    assert said.err.count("\n") == 1


def test_one_bad_file_among_several_means_that_nothing_is_put(
    ring: list[RingNode], tmp_path: Path
) -> None:
    good = tmp_path / "good"
    good.write_text("this one was never put")
    said = pastry("put", str(good), str(tmp_path / "missing"), node=ring[0].address)
    assert (said.status, said.out) == (2, b"")
    assert pastry("stat", sha256(good.read_bytes()), node=ring[0].address).status == 3


def test_nobody_there_is_unreachable() -> None:
    said = pastry("ping", "--node", "127.0.0.1:1", "--timeout", "2s")
    assert said.status == 4
    assert said.err.count("\n") == 1


def test_who_lacks_the_network_key_gets_no_answer(ring: list[RingNode], tmp_path: Path) -> None:
    (tmp_path / "key").write_text("another network")
    said = pastry(
        "ping", "--timeout", "2s", "--network-key-file", str(tmp_path / "key"), node=ring[0].address
    )
    assert said.status == 4


def test_a_reader_that_goes_away_is_nobodys_error(ring: list[RingNode]) -> None:
    content = random.Random(3).randbytes(8_000_000)
    key = pastry("put", "-", node=ring[0].address, stdin=content).out.decode().strip()
    process = subprocess.Popen(
        tool_command("get", key),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PASTRY_NODE=ring[1].address),
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(1000) == content[:1000]
    process.stdout.close()
    assert process.wait(30) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_get_leaves_nothing_behind(
    ring: list[RingNode], tmp_path: Path, number: signal.Signals
) -> None:
    content = random.Random(4).randbytes(60_000_000)
    key = pastry("put", "-", node=ring[0].address, stdin=content).out.decode().strip()
    process = subprocess.Popen(
        tool_command("get", key, "-o", str(tmp_path / "out")),
        stderr=subprocess.PIPE,
        env=environment(PASTRY_NODE=ring[1].address),
    )
    wait_until(lambda: bool(os.listdir(tmp_path)), "the temporary file is there")
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [["put"], ["get", UNKNOWN, "-o"]])
def test_a_pipe_that_nobody_opens_can_be_interrupted(
    ring: list[RingNode], tmp_path: Path, command: list[str], number: signal.Signals
) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = subprocess.Popen(
        tool_command(*command, str(tmp_path / "pipe")),
        stderr=subprocess.PIPE,
        env=environment(PASTRY_NODE=ring[0].address),
    )
    threads = Path(f"/proc/{process.pid}/task")
    wait_until(lambda: len(os.listdir(threads)) > 1, "a thread waits for the other end")
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_stdin_is_put_once_only() -> None:
    outcome = pastry("put", "-", "-", stdin=b"x")
    assert outcome.status == 2
    assert "once" in outcome.err and not outcome.out


@pytest.mark.parametrize(
    ("arguments", "closed", "said"),
    [
        (["put", "FILE"], ">&-", "pastry: stdout: Bad file descriptor\n"),
        (["get", "KEY"], ">&-", "pastry: stdout: Bad file descriptor\n"),
        (["ring"], ">&-", "pastry: stdout: Bad file descriptor\n"),
        (["put", "-"], "<&-", "pastry: stdin: Bad file descriptor\n"),
        (["put", "/proc/self/mem"], "", "pastry: /proc/self/mem: Input/output error\n"),
        (["put", "FILE"], ">/dev/full", "pastry: stdout: No space left on device\n"),
        (["get", "KEY", "-o", "/dev/full"], "", "pastry: /dev/full: No space left on device\n"),
    ],
)
def test_a_stream_that_cannot_be_used_is_named_in_one_line(
    ring: list[RingNode], tmp_path: Path, arguments: list[str], closed: str, said: str
) -> None:
    (tmp_path / "file").write_bytes(b"some bytes")
    key = pastry("put", str(tmp_path / "file"), node=ring[0].address).out.decode().strip()
    there = {"FILE": str(tmp_path / "file"), "KEY": key}
    command = tool_command(*(there.get(argument, argument) for argument in arguments))
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(PASTRY_NODE=ring[0].address),
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("", said)
    assert done.returncode == (7 if "space" in said else 1)


def test_the_name_of_a_pipe_without_a_name_is_written_to(ring: list[RingNode]) -> None:
    key = pastry("put", "-", node=ring[0].address, stdin=b"some bytes").out.decode().strip()
    got = pastry("get", key, "-o", "/dev/stdout", node=ring[1].address)
    assert (got.status, got.out, got.err) == (0, b"some bytes", "")


@pytest.mark.parametrize(
    ("line", "content"),
    [
        ('"$@" -o /dev/stdout >>log', b"old\nsome bytes"),
        ('"$@" -o log >>log', b"old\nsome bytes"),
        ('"$@" -o /dev/stderr 2>>log', b"old\nsome bytes"),
        ('{ echo new; "$@" -o /dev/stdout; echo end; } >log', b"new\nsome bytesend\n"),
    ],
)
def test_a_file_that_is_our_stdout_or_stderr_goes_on_where_it_is(
    ring: list[RingNode], tmp_path: Path, line: str, content: bytes
) -> None:
    (tmp_path / "log").write_text("old\n")
    key = pastry("put", "-", node=ring[0].address, stdin=b"some bytes").out.decode().strip()
    subprocess.run(
        ["sh", "-c", line, "sh", *tool_command("get", key)],
        cwd=tmp_path,
        env=environment(PASTRY_NODE=ring[0].address),
        timeout=60,
        check=True,
    )
    assert (tmp_path / "log").read_bytes() == content
    assert os.listdir(tmp_path) == ["log"]


def test_a_closed_stderr_keeps_errors_off_stdout_and_stops_nothing(
    ring: list[RingNode], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"some bytes")
    for name, status, out in (("file", 0, sha256(b"some bytes") + "\n"), ("none", 2, "")):
        done = subprocess.run(
            ["sh", "-c", '"$@" 2>&-', "sh", *tool_command("put", str(tmp_path / name))],
            stdout=subprocess.PIPE,
            env=environment(PASTRY_NODE=ring[0].address),
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (status, out)


@pytest.mark.parametrize("program", ["pastry", "pastryd"])
def test_ctrl_c_while_a_program_is_loaded_is_no_traceback(tmp_path: Path, program: str) -> None:
    # Whatever imports click first is interrupted there.
    (tmp_path / "click.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    done = subprocess.run(
        [sys.executable, "-c", f"from pastryd.cli.entry import {program}; {program}()"],
        capture_output=True,
        env=environment(PYTHONPATH=f"{tmp_path}:{TOP}"),
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("program", ["pastry", "pastryd"])
@pytest.mark.parametrize("limit", [5, 6, 10, 15, OPEN_FILES_LEAST - 1])
def test_too_few_open_files_are_told_in_one_line(tmp_path: Path, program: str, limit: int) -> None:
    command = {
        "pastry": ["ping", "--node", "127.0.0.1:1", "--timeout", "1"],
        "pastryd": ["start", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")],
    }[program]
    call = f"from pastryd.cli.entry import {program}; {program}()"
    limited = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh"]
    done = subprocess.run(
        [*limited, sys.executable, "-c", call, *command],
        capture_output=True,
        env=environment(PYTHONPATH=str(TOP)),
        text=True,
        timeout=60,
        check=False,
    )
    line = f"{program}: {limit} open files are too few; raise the limit (ulimit -n) to 32 or more\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_a_closed_terminal_ends_a_command_in_order_unless_nohup_says_no(
    ring: list[RingNode], tmp_path: Path
) -> None:
    for ignored, status in ((False, 129), (True, 143)):
        hangup = signal.SIG_IGN if ignored else signal.SIG_DFL
        (tmp_path / "pipe").unlink(missing_ok=True)
        os.mkfifo(tmp_path / "pipe")
        process = subprocess.Popen(
            tool_command("put", str(tmp_path / "pipe")),
            stderr=subprocess.DEVNULL,
            preexec_fn=partial(signal.signal, signal.SIGHUP, hangup),  # noqa: PLW1509
            env=environment(PASTRY_NODE=ring[0].address),
        )
        with open(tmp_path / "pipe", "wb"):  # it is open at the other end now
            process.send_signal(signal.SIGHUP)
            if ignored:
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) == status
