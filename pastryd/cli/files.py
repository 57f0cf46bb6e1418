"""Files at both ends of a transfer: what may be put, and where a get's bytes end up.

A get's file appears under its name only when it is whole: temporary file in the same directory,
fsync, rename, fsync of the directory. Devices and pipes are written to directly, as stdout is; only
regular files are replaced, and not the one that is our stdout or stderr. Reads and writes that may
block for ever run in threads of their own.
"""

import contextlib
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType

from pastryd.cli.exits import named
from pastryd.errors import ConfigError
from pastryd.net.threads import in_thread

CHUNK_BYTES = 1 << 20
"""A file of up to so many is one object; longer ones, and pipes, are read in such pieces."""

BULK_BYTES = 16 << 20
"""What is put in so short a time is over before it disturbs anybody."""


def check_readable(path: str) -> None:
    """Raise `ConfigError` unless `path` ("-" is stdin) is something whose bytes can be put."""
    if path == "-":
        return
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ConfigError(f"{path or repr(path)}: {_reason(error)}; nothing was put") from None
    if stat.S_ISDIR(mode):
        raise ConfigError(
            f"{path}: is a directory; put single files, or pipe an archive: tar -c {path} | "
            "pastry put -; nothing was put"
        )
    if stat.S_ISFIFO(mode):
        return  # opening it already takes what its writer wrote
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {_reason(error)}; nothing was put") from None


def is_small(path: str) -> bool:
    """Tell whether it is a regular file that makes one object; who cannot be asked is not."""
    size = _regular_size(path)
    return size is not None and size <= CHUNK_BYTES


def are_bulk(paths: Sequence[str]) -> bool:
    """Tell whether files have more than BULK_BYTES together, or are none of which that is known."""
    total = 0
    for path in paths:
        size = _regular_size(path)
        if size is None:
            return True
        total += size
    return total > BULK_BYTES


def _regular_size(path: str) -> int | None:
    if path == "-":  # stdin, whatever file has that name
        return None
    with contextlib.suppress(OSError):
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            return status.st_size
    return None


def checksum_line(key: str, path: str) -> str:
    """Return the line that sha256sum prints for a file; in odd names it escapes what ends lines."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return ("\\" if escaped != path else "") + f"{key}  {escaped}"


def _beside(target: Path) -> Path:
    """Return a name for a new file next to `target`."""
    # Names are bounded in bytes; half a character is refused by some file systems.
    cut = os.fsencode(target.name)[:200].decode(sys.getfilesystemencoding(), "ignore")
    return target.with_name(f".{cut}.{os.urandom(6).hex()}.part")


def _standard_stream(file: os.stat_result) -> int | None:
    """Return which of stdout and stderr a file is, as with `-o /dev/stdout >> log`."""
    for fd in (1, 2):
        if os.path.samestat(file, os.fstat(fd)):
            return fd
    return None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


async def open_descriptor(path: str | Path, flags: int) -> int:
    """Open a file in a thread: a FIFO whose other end nobody has opened yet blocks."""
    return await in_thread(lambda: os.open(path, flags | os.O_CLOEXEC))


async def read_descriptor(fd: int) -> AsyncIterator[bytes]:
    """Yield what comes from a pipe or a terminal, in pieces of up to 1 MiB, until its end."""
    while piece := await in_thread(lambda: os.read(fd, CHUNK_BYTES)):
        yield piece


async def write_descriptor(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data` to a pipe, terminal or device."""
    rest = memoryview(data)

    def write_all() -> None:
        nonlocal rest
        while rest:
            rest = rest[os.write(fd, rest) :]

    await in_thread(write_all)


class OutputFile:
    """The file of `get -o`: `write` as the bytes come, `commit` when they proved right.

    Leaving the context without `commit` removes every trace.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._target = Path(os.path.realpath(path))  # a symbolic link stays, its target is replaced
        self._temporary: Path | None = None
        self._fd = -1
        self.size = 0
        """Bytes written."""

    async def __aenter__(self) -> "OutputFile":
        target = self._target
        try:
            # By the name we were given: /dev/stdout leads to a pipe that has no name of its own.
            there = self._status()
            if there is None:
                self._create(None)
            elif stat.S_ISREG(there.st_mode):
                standard = _standard_stream(there)
                if standard is None:
                    self._create(there)
                else:
                    self._fd = os.dup(standard)
            elif stat.S_ISDIR(there.st_mode):
                raise ConfigError(f"{target}: is a directory; give -o the name of a file")
            else:
                self._fd = await open_descriptor(self._path, os.O_WRONLY)
        except OSError as error:
            raise ConfigError(f"{target}: cannot be written: {_reason(error)}") from None
        return self

    def _status(self) -> os.stat_result | None:
        """Return what is there; raises `OSError` where nobody can tell, as in a loop of links."""
        with contextlib.suppress(FileNotFoundError):
            return self._path.stat()
        return None

    def _create(self, there: os.stat_result | None) -> None:
        """Open the temporary file; what it will replace says who may read it."""
        temporary = _beside(self._target)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(temporary, flags, 0o666 if there is None else 0o600)
        self._temporary = temporary
        if there is not None:
            with contextlib.suppress(OSError):  # a file system without modes
                os.fchmod(self._fd, there.st_mode & 0o777)

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._fd

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        self.size += len(data)
        with named(str(self._target)):  # a full disk above all: say which
            if self._temporary is None:
                await write_descriptor(self._fd, data)
                return
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    @property
    def restart(self) -> Callable[[], None] | None:
        """What makes the file empty again; None for a device or pipe, which keeps what it got."""
        return None if self._temporary is None else self._truncate

    def _truncate(self) -> None:
        self.size = 0
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)

    def commit(self) -> None:
        """Make the file durable and give it its name."""
        if self._temporary is None:
            return
        os.fsync(self._fd)
        os.replace(self._temporary, self._target)
        self._temporary = None
        with contextlib.suppress(PermissionError):  # one may write into it and not read it
            directory = os.open(self._target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None
