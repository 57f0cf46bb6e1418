"""The file of a recording: takes records from the loop, writes them in a thread of its own.

A disk that is slow, full or broken must not stop the node: what waits is bounded, and at the first
error recording ends, the file keeps what it has, and the node goes on.
"""

import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pastryd.errors import ConfigError

WAITING_BYTES_MAX = 64 << 20
"""Records that wait for the disk at most."""
FLUSH_S = 0.25
"""How long a record waits before it is with the kernel; a kill -9 loses no more."""
CLOSE_S = 5.0
"""How long to wait for the disk at the end."""


class RecordFile:
    """One recording being written. All methods belong to the loop's thread."""

    __slots__ = (
        "_accepted",
        "_closing",
        "_failed",
        "_fd",
        "_on_stopped",
        "_stopped",
        "_thread",
        "_waiting",
        "_written",
    )

    def __init__(self, path: Path, on_stopped: Callable[[str], object]) -> None:
        """Create the file; `on_stopped` is told, once, why recording ended early.

        What exists is not overwritten, pipes and devices excepted: `ConfigError`.
        """
        self._fd = _create(path)
        self._on_stopped = on_stopped
        self._waiting: deque[bytes] = deque()
        self._accepted = 0
        self._written = 0
        self._stopped = False
        self._failed = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def write(self, record: bytes) -> None:
        """Take a record."""
        if self._stopped:
            return
        if self._failed or self._accepted - self._written > WAITING_BYTES_MAX:
            self._stop(self._failed or "the disk does not keep up")
            return
        self._waiting.append(record)
        self._accepted += len(record)

    def close(self) -> None:
        """Write what waits, then close."""
        self._closing.set()
        self._thread.join(CLOSE_S)
        if self._failed:
            self._stop(self._failed)

    def _stop(self, reason: str) -> None:
        if not self._stopped:
            self._stopped = True
            if self._failed:
                self._waiting.clear()  # the thread has ended
            self._closing.set()
            self._on_stopped(reason)

    # -- the writer's thread --

    def _run(self) -> None:
        closing = False
        try:
            while not closing:
                closing = self._closing.wait(FLUSH_S)
                self._flush()
        except OSError as error:
            self._failed = error.strerror or str(error)
        finally:
            os.close(self._fd)

    def _flush(self) -> None:
        waiting = self._waiting
        while waiting:
            # A record that another thread appends meanwhile is taken too, or next time.
            batch = b"".join([waiting.popleft() for _ in range(len(waiting))])
            rest = memoryview(batch)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            self._written += len(batch)


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError(f"--record {path}: exists already; name another file") from None
    except OSError as error:
        raise ConfigError(f"--record {path}: cannot be written: {error.strerror}") from None
    try:
        return os.open(path, flags)
    except OSError as error:
        raise ConfigError(f"--record {path}: cannot be written: {error.strerror}") from None
