"""The data directory: whose it is, which format it has, and that only one daemon works in it.

Owns the marker file (format number), the lock file (flock: the kernel frees it however we die) and
the syncs that make new directory entries last. Knows nothing of what the store keeps below it.
"""

import errno
import fcntl
import json
import os
from pathlib import Path
from types import TracebackType

from pastryd.errors import StoreError

FORMAT = 1
"""Grows when an older pastryd could no longer read what we write."""

MARKER = "pastryd.json"
LOCK = "pastryd.lock"
_HARMLESS = frozenset({LOCK, MARKER + ".tmp", "lost+found"})
"""What may lie in a directory that is still new: our own first steps, and those of mkfs."""


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_deleted(fd: int) -> bool:
    """Tell whether no directory has an open file any more: its bytes go when we close it."""
    return os.fstat(fd).st_nlink == 0


def make_directory(path: Path) -> None:
    """Create a directory and its parents so that they outlast a power failure."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)


class DataDirectory:
    """A data directory that is ours, until `close`."""

    __slots__ = ("_lock_fd", "path")

    def __init__(self, path: Path) -> None:
        """Create or check the directory and lock it. Raises StoreError saying what to do."""
        self.path = path
        self._lock_fd = -1
        try:
            make_directory(path)
            _refuse_foreign(path)
            self._lock_fd = _lock(path)
            _check_marker(path)
        except StoreError:
            self.close()
            raise
        except (FileExistsError, NotADirectoryError):
            self.close()
            raise StoreError(
                f"data directory {path} is not a directory; choose another with --data-dir"
            ) from None
        except OSError as error:
            self.close()
            raise StoreError(
                f"cannot use data directory {path}: {error.strerror}; "
                f"{_advice(error)} or choose another with --data-dir"
            ) from error

    @property
    def is_locked(self) -> bool:
        """Whether the lock keeps others out still: of a deleted one another daemon makes a new."""
        return not is_deleted(self._lock_fd)

    def close(self) -> None:
        """Let another daemon have it."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> "DataDirectory":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _advice(error: OSError) -> str:
    """Return what to do about a directory that the system refuses."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space"
    if error.errno == errno.EROFS:
        return "mount it for writing"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "fix its permissions"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files (ulimit -n)"
    return "check the disk"


def _refuse_foreign(path: Path) -> None:
    # Before anything is created in it: a mistyped --data-dir must leave no trace.
    entries = set(os.listdir(path))
    if entries - _HARMLESS and MARKER not in entries:
        raise StoreError(
            f"{path} is not empty and was not made by pastryd (no {MARKER} in it); "
            "choose an empty directory with --data-dir"
        )


def _lock(path: Path) -> int:
    fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise StoreError(
            f"data directory {path} is in use by another pastryd (process {owner}); "
            "stop it or choose another with --data-dir"
        ) from None
    except OSError:
        os.close(fd)
        raise
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError:
        # The number is for people only; a full disk must not keep us from reading and deleting.
        pass
    return fd


def _check_marker(path: Path) -> None:
    try:
        text = (path / MARKER).read_bytes()
    except FileNotFoundError:
        _write_marker(path)
        return
    try:
        marker = json.loads(text)
        found = int(marker["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path / MARKER} cannot be understood; restore it (its content is "
            f'{{"format": {FORMAT}}}) or choose another directory with --data-dir'
        ) from error
    if found > FORMAT:
        raise StoreError(
            f"data directory {path} has format {found}, this pastryd knows up to {FORMAT}; "
            "install a newer pastryd"
        )


def _write_marker(path: Path) -> None:
    temporary = path / (MARKER + ".tmp")
    with open(temporary, "wb") as file:
        file.write(json.dumps({"format": FORMAT}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path / MARKER)
    sync_directory(path)
