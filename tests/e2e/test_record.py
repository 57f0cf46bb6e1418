"""A real daemon records itself, is killed, and the simulator does again what it did."""

import signal
import subprocess
from pathlib import Path

import pytest

from pastryd.net.identity import KEY
from pastryd.store.lmdb_store import LmdbStore
from tests.support.processes import DEADLINE_S, Process, daemon_command, environment, pastry

pytestmark = pytest.mark.e2e


def start(directory: Path, *options: str) -> tuple[Process, str]:
    """Start a daemon on a free port; return it and its address once it serves."""
    own = ("--config", "/dev/null", "--data-dir", str(directory), "--listen", "127.0.0.1:0")
    process = Process(daemon_command("start", *own, "--log-format", "json", *options))
    return process, str(process.event("node_ready")["address"])


def replay(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        daemon_command("sim", "replay", *arguments),
        capture_output=True,
        text=True,
        env=environment(PYTHONHASHSEED="7"),
        timeout=DEADLINE_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_a_killed_daemon_recorded_is_replayed_to_the_same_end(tmp_path: Path) -> None:
    secret = tmp_path / "network.key"
    secret.write_text("correct horse battery staple 0123456789\n")
    recording = tmp_path / "recording"
    key = ("--network-key-file", str(secret))
    recorded, address = start(tmp_path / "a", "--record", str(recording), *key)
    other, _ = start(tmp_path / "b", "--bootstrap", address, *key)
    try:
        put = pastry("put", "-", *key, node=address, stdin=bytes(1_500_000) + b"end")
        assert put.status == 0
        name = put.out.decode().strip()
        got = pastry("get", name, *key, node=address)
        assert got.out == bytes(1_500_000) + b"end"
        assert pastry("status", "--json", *key, node=address).status == 0
        other.signal(signal.SIGTERM)
        other.wait()
        recorded.kill()
    finally:
        recorded.kill()
        other.kill()
    status, said = replay(str(recording), "--trace", str(tmp_path / "log"))
    assert status == 0, said
    assert "identical: " in said
    assert "node_active" in said
    assert "Route(" in (tmp_path / "log").read_text("utf-8")
    assert replay(str(recording))[1].splitlines()[-1] == said.splitlines()[-1]

    store = LmdbStore(tmp_path / "a", None)
    private_key = store.get_meta(KEY)
    store.close()
    content = recording.read_bytes()
    assert private_key and private_key not in content
    assert secret.read_bytes().strip() not in content
    assert b"correct horse" not in content


def test_a_daemon_whose_recording_has_no_room_goes_on(tmp_path: Path) -> None:
    process, address = start(tmp_path / "a", "--record", "/dev/full")
    try:
        warning = process.event("recording_stopped")
        assert warning["reason"] == "No space left on device"
        assert pastry("put", "-", node=address, stdin=b"still here").status == 0
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()


def test_an_old_recording_is_not_overwritten_and_a_bad_one_not_replayed(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("something else")
    options = ("--config", "/dev/null", "--data-dir", str(tmp_path / "a"))
    done = subprocess.run(
        daemon_command("start", *options, "--listen", "127.0.0.1:0", "--record", str(old)),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("exists already; name another file")
    assert replay(str(old)) == (
        2,
        f"pastryd: {old} is not a recording of `pastryd start --record`\n",
    )
