"""Files of put and get: what is refused before anything is sent, what a get leaves behind."""

import asyncio
import errno
import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest

from pastryd.cli.files import (
    BULK_BYTES,
    OutputFile,
    are_bulk,
    check_readable,
    checksum_line,
    is_small,
    open_descriptor,
    read_descriptor,
)
from pastryd.errors import ConfigError


async def test_the_file_appears_only_when_it_is_committed(tmp_path: Path) -> None:
    target = tmp_path / "out"
    async with OutputFile(target) as output:
        await output.write(b"half")
        assert not target.exists()
        await output.write(memoryview(b" and half"))
        output.commit()
    assert target.read_bytes() == b"half and half"
    assert os.listdir(tmp_path) == ["out"]


async def test_leaving_without_commit_keeps_the_old_file_and_leaves_no_trace(
    tmp_path: Path,
) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(asyncio.CancelledError):
        async with OutputFile(target) as output:
            await output.write(b"new")
            raise asyncio.CancelledError
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]


async def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    async with OutputFile(link) as output:
        await output.write(b"new")
        output.commit()
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["ж" * 127, "x" * 255, "\N{PILE OF POO}" * 63])
async def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    async with OutputFile(tmp_path / name) as output:
        await output.write(b"bytes")
        output.commit()
    assert os.listdir(tmp_path) == [name]


async def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    async with OutputFile(tmp_path / "out"):
        (left,) = os.listdir(tmp_path)
    (tmp_path / left).write_bytes(b"left over")
    async with OutputFile(tmp_path / "out") as output:
        await output.write(b"bytes")
        output.commit()
    assert sorted(os.listdir(tmp_path)) == [left, "out"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
async def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(mode)
    async with OutputFile(target) as output:
        assert stat.S_IMODE(os.fstat(output.fileno()).st_mode) & ~mode == 0  # before any byte
        await output.write(b"new")
        output.commit()
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert target.read_bytes() == b"new"


async def test_a_directory_that_cannot_be_read_takes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refusing(path: object, flags: int, mode: int = 0o777) -> int:
        if path == tmp_path:  # root may read everything, so the mode does not do
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, flags, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    async with OutputFile(tmp_path / "out") as output:
        await output.write(b"bytes")
        output.commit()
    assert (tmp_path / "out").read_bytes() == b"bytes"


async def test_a_loop_of_symbolic_links_is_told_and_stays(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ConfigError, match="symbolic links"):
        async with OutputFile(loop):
            raise AssertionError("must not get here")
    assert os.listdir(tmp_path) == ["loop"] and loop.is_symlink()


async def test_a_symbolic_link_to_nothing_yet_leads_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    async with OutputFile(tmp_path / "link") as output:
        await output.write(b"bytes")
        output.commit()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"bytes"


async def test_a_device_is_written_to_and_not_replaced() -> None:
    async with OutputFile(Path(os.devnull)) as output:
        await output.write(b"gone")
        output.commit()
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("name", ["", "missing/out"])
async def test_where_no_file_can_be_is_told_before_anything_is_fetched(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="directory"):
        async with OutputFile(tmp_path / name):
            raise AssertionError("must not get here")


def test_what_cannot_be_put_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        check_readable(str(tmp_path))
    with pytest.raises(ConfigError, match="no such file"):
        check_readable(str(tmp_path / "missing"))
    secret = tmp_path / "secret"
    secret.touch(mode=0o000)
    if os.geteuid() != 0:
        with pytest.raises(ConfigError, match="permission denied"):
            check_readable(str(secret))


def test_stdin_empty_files_and_pipes_can_be_put(tmp_path: Path) -> None:
    empty, pipe = tmp_path / "empty", tmp_path / "pipe"
    empty.touch()
    os.mkfifo(pipe)
    for path in ("-", str(empty), str(pipe)):
        check_readable(path)


async def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"some")
    os.close(writing)
    assert [piece async for piece in read_descriptor(reading)] == [b"some"]
    os.close(reading)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
async def test_whoever_waits_for_the_other_end_of_a_pipe_can_be_cancelled(
    tmp_path: Path, flags: int
) -> None:
    os.mkfifo(tmp_path / "pipe")
    task = asyncio.ensure_future(open_descriptor(tmp_path / "pipe", flags))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.close(os.open(tmp_path / "pipe", os.O_RDWR))  # lets the thread end


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this platform")
async def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OSError, match=r"No space left on device.*out"):
        async with OutputFile(target) as output:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, output.fileno())
            os.close(full)
            await output.write(b"x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["plain", "two  words", "back\\slash", "two\nlines"])
def test_files_are_printed_as_sha256sum_prints_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"bytes")
    theirs = subprocess.run(
        ["sha256sum", name], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert checksum_line(hashlib.sha256(b"bytes").hexdigest(), name) + "\n" == theirs.stdout


def test_a_missing_name_is_told_apart_from_no_name() -> None:
    with pytest.raises(ConfigError, match=r"^'': no such file"):
        check_readable("")


def test_what_is_large_or_of_no_known_size_is_bulk(tmp_path: Path) -> None:
    small, large, pipe = tmp_path / "small", tmp_path / "large", tmp_path / "pipe"
    small.write_bytes(b"abc")
    large.touch()
    os.truncate(large, BULK_BYTES - 2)
    os.mkfifo(pipe)
    assert not are_bulk([str(small)] * 3)
    assert not are_bulk([str(large)])
    assert are_bulk([str(large), str(small)])
    assert are_bulk(["-"])
    assert are_bulk([str(small), str(pipe)])


def test_stdin_is_not_taken_for_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_bytes(b"abc")
    assert is_small("./-") and not are_bulk(["./-"])
    assert not is_small("-") and are_bulk(["-"])
