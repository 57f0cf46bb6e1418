"""`pastry`: the user's command line, built on the public client (`pastryd.client.Client`).

Here are the entry point and the commands that move blobs; those that only ask are in `queries.py`.
Results go to stdout, everything else to stderr. Exit statuses: `exits.py` and the help text.
"""

import contextlib
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pastryd.cli import exits
from pastryd.cli.bars import PutBars, progress_bar
from pastryd.cli.common import Common, cli, command, connected
from pastryd.cli.files import (
    OutputFile,
    are_bulk,
    check_readable,
    checksum_line,
    is_small,
    open_descriptor,
    read_descriptor,
    write_descriptor,
)
from pastryd.cli.in_order import in_order
from pastryd.errors import ConfigError, PastryError
from pastryd.priority import step_aside

if TYPE_CHECKING:
    from pastryd.client import Client, PutResult


@click.argument("files", nargs=-1, required=True, metavar="FILE...|-")
@command
async def put(common: Common, files: tuple[str, ...]) -> int | None:
    """Store files and print their keys; - is stdin.

    With one FILE the key stands alone on stdout, with several each line is `key  file`, as
    sha256sum prints them, in their order; small files are put several at a time. --json: one object
    per line and file. All files are looked at first: when one cannot be read, nothing is put.
    Stored on fewer nodes than wanted: the key is printed, and the exit status is 5.
    """
    if files.count("-") > 1:
        raise ConfigError("stdin can be put once only; name - once")
    for file in files:
        check_readable(file)
    if are_bulk(files):
        step_aside()
    status = exits.OK
    async with connected(common) as client:
        from pastryd.client import PutUnderReplicatedError  # noqa: PLC0415

        bars = PutBars(files, common)
        with bars.for_all():

            async def put_file(file: str) -> "tuple[PutResult, str]":
                try:
                    return await _put_one(client, file, bars), ""
                except PutUnderReplicatedError as error:
                    return error.result, f"{file}: {error}"
                except PastryError as error:
                    if len(files) == 1:
                        raise
                    # Those behind it may have been told. Of its own: several may share the error.
                    raise type(error)(f"{file}: {error}") from error

            async with contextlib.aclosing(in_order(files, put_file, is_small)) as outcomes:
                async for file, (result, complaint) in outcomes:
                    if complaint:
                        exits.complain("pastry", complaint)
                        status = exits.UNDER_REPLICATED
                    _print_key(result, file, common, alone=len(files) == 1)
    return status


def _print_key(result: "PutResult", file: str, common: Common, *, alone: bool) -> None:
    document = {"key": result.key, "size": result.size, "copies": result.copies, "file": file}
    text = result.key if alone else checksum_line(result.key, file)
    line = json.dumps(document) if common.as_json else text
    with exits.named("stdout"):
        # A name is bytes, which stdout's encoding may not have, and the key must not be lost.
        sys.stdout.buffer.write(os.fsencode(line) + b"\n")
        sys.stdout.flush()


async def _read_stdin() -> AsyncIterator[bytes]:
    with exits.named("stdin"):
        async for piece in read_descriptor(sys.stdin.fileno()):
            yield piece


def _was_written(before: os.stat_result, after: os.stat_result, read_bytes: int) -> bool:
    """Tell whether a file changed while that many bytes of it were read."""
    if not stat.S_ISREG(before.st_mode):
        return False
    return before.st_mtime_ns != after.st_mtime_ns or read_bytes != before.st_size


async def _put_one(client: "Client", file: str, bars: PutBars) -> "PutResult":
    if file == "-":
        with bars.of("stdin", None) as progress:
            return await client.put(_read_stdin(), progress)
    fd = await open_descriptor(file, os.O_RDONLY)
    try:
        before = os.fstat(fd)
        size = before.st_size or None
        # Named: a read that fails on the way, of what?
        with bars.of(Path(file).name, size) as progress, exits.named(file):
            if size is None:  # a pipe, a device or an empty file
                return await client.put(read_descriptor(fd), progress)
            with open(fd, "rb", buffering=0, closefd=False) as opened:
                result = await client.put(opened, progress)
        if _was_written(before, os.fstat(fd), result.size):
            exits.complain(
                "pastry",
                f"{file}: it was written to while it was put; under its key is what was read, "
                "perhaps none of its versions: put it again when nobody writes to it",
            )
        return result
    finally:
        os.close(fd)


@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write here instead of to stdout (-); the file appears only when all of it has been "
    "verified.",
)
@click.argument("key")
@command
async def get(common: Common, key: str, output: Path | None) -> int | None:
    """Fetch the blob KEY, to stdout or to the FILE of -o."""
    from pastryd.client import parse_key  # noqa: PLC0415

    key = parse_key(key).hex()
    async with connected(common) as client:
        with progress_bar(f"get {key[:8]}", None, common) as progress:
            if output is None or str(output) == "-":
                try:
                    async for piece in client.stream(key, None, progress):
                        with exits.named("stdout"):
                            await write_descriptor(sys.stdout.fileno(), piece)
                except BrokenPipeError:
                    return exits.PIPE_CLOSED
                return None
            async with OutputFile(output) as file:
                async for piece in client.stream(key, file.restart, progress):
                    await file.write(piece)
                size = file.size
                file.commit()
    if common.as_json:
        print(json.dumps({"key": key, "size": size, "file": str(output)}))
    return None


def main() -> None:
    """Entry point of `pastry`."""
    import pastryd.cli.queries  # noqa: F401, PLC0415  (registers its commands)

    exits.run(cli, "pastry")


if __name__ == "__main__":
    main()
