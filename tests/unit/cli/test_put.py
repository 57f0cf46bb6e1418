"""`pastry put` with a client that is none: what is said of which file."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pytest

from pastryd.cli import common, exits, tool
from pastryd.client import PutResult, RefusedError

REFUSED = RefusedError("the nodes are full")
"""One for all, as where nobody can be reached."""


class Client:
    """Refuses what begins with `no`, when so many others are done."""

    def __init__(self, others: int) -> None:
        self.others = others
        self.are_done = asyncio.Event()

    async def put(self, source: BinaryIO, progress: object) -> PutResult:
        data = source.read()
        if data.startswith(b"no"):
            await self.are_done.wait()
            raise REFUSED
        self.others -= 1
        if not self.others:
            self.are_done.set()
        return PutResult(sha256(data).hexdigest(), len(data), 3)


@pytest.mark.parametrize(
    ("contents", "keys", "complaint"),
    [
        (["a", "no", "b"], 2, "pastry: {}: the nodes are full\n"),  # {}: the first that fails
        (["a", "no", "no", "no"], 1, "pastry: {}: the nodes are full\n"),
        (["no"], 0, "pastry: the nodes are full\n"),
    ],
)
def test_of_several_files_the_one_that_failed_is_named(
    contents: list[str],
    keys: int,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    @contextlib.asynccontextmanager
    async def connected(common: common.Common) -> AsyncIterator[Client]:
        client = Client(keys)
        if not keys:
            client.are_done.set()
        yield client

    monkeypatch.setattr(tool, "connected", connected)
    paths = [tmp_path / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    with pytest.raises(SystemExit) as left:
        exits.run(common.cli, "pastry", ["put", *map(str, paths)])
    assert left.value.code == exits.status_of(RefusedError())
    out, err = capfdbinary.readouterr()
    assert out.count(b"\n") == keys
    assert err.decode() == complaint.format(paths[contents.index("no")])


class Meanwhile:
    """Takes whatever it is given, and does something between its first byte and its last."""

    def __init__(self, what: Callable[[], object]) -> None:
        self.what = what

    async def put(self, source: BinaryIO, progress: object) -> PutResult:
        data = source.read(1)
        self.what()
        data += source.read()
        return PutResult(sha256(data).hexdigest(), len(data), 3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: path.write_bytes(b"x"), True),  # shorter
        (lambda path: path.write_bytes(path.read_bytes()[::-1]), True),
        (lambda path: path.open("ab").write(b"more"), True),
        (lambda path: path.read_bytes(), False),
        (Path.unlink, False),  # what is open stays what it was
        (lambda path: path.chmod(0o400), False),
    ],
)
def test_a_file_that_is_written_to_while_it_is_put_is_told(
    change: Callable[[Path], object],
    told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    os.utime(path, (1, 1))

    @contextlib.asynccontextmanager
    async def connected(common: common.Common) -> AsyncIterator[Meanwhile]:
        yield Meanwhile(lambda: change(path))

    monkeypatch.setattr(tool, "connected", connected)
    with pytest.raises(SystemExit) as left:
        exits.run(common.cli, "pastry", ["put", str(path)])
    assert left.value.code == exits.OK
    out, err = capsys.readouterr()
    assert len(out) == 65
    lines = err.splitlines()
    assert len(lines) == told and all("file: it was written to" in line for line in lines)
