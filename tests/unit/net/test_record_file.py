"""`net/record_file.py`: what happens to a recording when the disk does what disks do."""

import os
import stat
from pathlib import Path

import pytest

from pastryd.errors import ConfigError
from pastryd.net import record_file
from pastryd.net.record_file import RecordFile


def test_records_are_in_the_file_in_order_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path, stopped = tmp_path / "file", list[str]()
    file = RecordFile(path, stopped.append)
    records = [b"%d," % i * (i % 50) for i in range(1000)]
    for record in records:
        file.write(record)
    file.close()
    assert path.read_bytes() == b"".join(records)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not stopped


def test_what_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"the recording of the crash")
    with pytest.raises(ConfigError, match=r"^--record .*file: exists already; name another file$"):
        RecordFile(path, print)
    assert path.read_bytes() == b"the recording of the crash"


def test_a_file_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        RecordFile(tmp_path / "no" / "file", print)
    with pytest.raises(ConfigError, match="Is a directory"):
        RecordFile(tmp_path, print)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_ends_the_recording_and_is_told_once() -> None:
    stopped: list[str] = []
    file = RecordFile(Path("/dev/full"), stopped.append)
    file.write(b"x")
    file._thread.join(10)
    for _ in range(3):
        file.write(b"x")
    assert stopped == ["No space left on device"]
    file.close()
    assert len(stopped) == 1


def test_a_disk_that_does_not_keep_up_ends_the_recording_and_bounds_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_file, "WAITING_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(record_file, "CLOSE_S", 0.0)
    path, stopped = tmp_path / "pipe", list[str]()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # it never reads
    file = RecordFile(path, stopped.append)
    for _ in range(200):
        file.write(bytes(10_000))
    assert stopped == ["the disk does not keep up"]
    assert sum(map(len, file._waiting)) <= (1 << 20) + 10_000
    file.close()  # does not wait for ever
    os.close(reader)
