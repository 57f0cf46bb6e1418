"""kill -9 of a writing process, many times over: what was acknowledged is there and whole.

The writer runs in its own process (`store_writer.py`) and says on a pipe what was acknowledged,
after it was. A kill may come at any moment, also while the journal is written
or taken over, and while LMDB commits or grows its file.
"""

import os
import random
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from pastryd.ids import Name
from pastryd.store.lmdb_store import LmdbStore
from tests.e2e.store_writer import IN_FLIGHT, name_of

KILLS = int(os.environ.get("PASTRYD_TEST_KILLS", "20"))
ROOT = Path(__file__).parents[2]


class Acknowledged:
    """What the writer said: `+` is stored, `-` deleted, `?` stored and about to be deleted."""

    def __init__(self) -> None:
        self.stored: set[int] = set()
        self.deleted: set[int] = set()
        self.either: set[int] = set()
        self.highest = -1

    def hear(self, line: bytes) -> None:
        kind, number = line[:1], int(line[1:])
        self.highest = max(self.highest, number)
        self.either.discard(number)
        {b"+": self.stored, b"-": self.deleted, b"?": self.either}[kind].add(number)


def write_until_killed(data_dir: Path, first: int, acknowledged: Acknowledged, lines: int) -> int:
    """Start the writer, kill it after so many lines, hear the rest; return how many were heard."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.store_writer", str(data_dir), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        try:
            ready = writer.stdout.readline()
            assert ready == b"ready\n", writer.stderr.read().decode()
            heard = 0
            for line in writer.stdout:
                acknowledged.hear(line)
                heard += 1
                if heard == lines:
                    os.kill(writer.pid, signal.SIGKILL)
                    break
            # A line is one write of a few bytes to a pipe: it is whole or not there.
            for line in writer.stdout:
                acknowledged.hear(line)
                heard += 1
        finally:
            writer.kill()
        assert writer.wait() == -signal.SIGKILL, writer.stderr.read().decode()
    return heard


def check(data_dir: Path, acknowledged: Acknowledged, started: int) -> None:
    """Open the store as a restarted daemon would, and compare everything that is in it."""
    store = LmdbStore(data_dir, 4 << 30)
    try:
        present = list(store.names())
        assert present == sorted(set(present))
        assert len(present) == store.item_count
        hashes: dict[Name, bytes] = {}

        def receive(data: memoryview | None, size: int) -> None:
            assert data is not None
            hashes[name] = sha256(data).digest()

        for name in present:
            store.read(name, 0, -1, receive)
        assert all(name == digest for name, digest in hashes.items()), "an item is not whole"
        lost = [number for number in acknowledged.stored if name_of(number) not in hashes]
        assert lost == [], "acknowledged items are gone"
        ghosts = [number for number in acknowledged.deleted if name_of(number) in hashes]
        assert ghosts == [], "items came back after their deletion was acknowledged"
        begun = {name_of(number) for number in range(started)}
        assert set(hashes) <= begun, "an item that nobody wrote"
    finally:
        store.close()


@pytest.mark.e2e
def test_every_acknowledged_item_outlasts_kill_9_at_any_moment(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    acknowledged = Acknowledged()
    first = 0
    for _ in range(KILLS):
        heard = write_until_killed(tmp_path, first, acknowledged, rng.choice([1, 5, 20, 60]))
        assert heard >= 1
        # What was in flight may or may not be there; the next run starts beyond it.
        first = acknowledged.highest + 2 * IN_FLIGHT
        check(tmp_path, acknowledged, first)
    assert len(acknowledged.stored) >= KILLS
