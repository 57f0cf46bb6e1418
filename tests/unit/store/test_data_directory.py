"""The data directory: ours or refused, with one line that says what to do."""

import errno
import json
import os
from pathlib import Path

import pytest

from pastryd.errors import StoreError
from pastryd.store.data_directory import FORMAT, LOCK, MARKER, DataDirectory


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        DataDirectory(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_a_missing_directory_is_created_with_its_parents_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    DataDirectory(path).close()
    assert json.loads((path / MARKER).read_text()) == {"format": FORMAT}
    assert path.stat().st_mode & 0o077 == 0


def test_it_opens_again_after_it_was_closed(tmp_path: Path) -> None:
    DataDirectory(tmp_path).close()
    with DataDirectory(tmp_path) as again:
        assert again.path == tmp_path


def test_the_mount_point_of_a_new_disk_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    DataDirectory(tmp_path).close()


def test_a_foreign_directory_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    assert "not made by pastryd" in refusal(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_second_daemon_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with DataDirectory(tmp_path):
        text = refusal(tmp_path)
        assert "in use" in text
        assert str(os.getpid()) in text
    DataDirectory(tmp_path).close()


def test_a_newer_format_asks_for_a_newer_pastryd(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(json.dumps({"format": FORMAT + 1}))
    assert "newer pastryd" in refusal(tmp_path)
    (tmp_path / MARKER).write_text(json.dumps({"format": FORMAT}))
    DataDirectory(tmp_path).close()


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"format": "x"}', "\udcff"])
def test_a_marker_that_is_no_marker_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "cannot be understood" in refusal(tmp_path)


def test_a_crash_before_the_marker_was_written_does_not_make_it_foreign(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("1\n")
    (tmp_path / (MARKER + ".tmp")).write_text('{"for')
    DataDirectory(tmp_path).close()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--data-dir" in refusal(tmp_path / "file")
    assert "--data-dir" in refusal(tmp_path / "file" / "below")


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        path = tmp_path / "data"
    else:
        # Modes do not stop root; nobody makes directories in /proc.
        path = Path("/proc/pastryd")
    with pytest.raises(StoreError, match="--data-dir"):
        DataDirectory(path)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EACCES, "fix its permissions"),
        (errno.EROFS, "mount it for writing"),
        (errno.ENOSPC, "free some space"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "check the disk"),
    ],
)
def test_the_advice_fits_what_the_system_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    assert advice in refusal(tmp_path)
