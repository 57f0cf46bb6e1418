"""Which bar is drawn for which transfer: on stderr, if that is a terminal and nobody wants JSON."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pastryd.cli.common import Common
from pastryd.cli.files import CHUNK_BYTES

if TYPE_CHECKING:
    from pastryd.net.put_window import Progress


@contextlib.contextmanager
def progress_bar(what: str, size: int | None, common: Common) -> Iterator["Progress | None"]:
    """Yield what to tell progress to: a bar on stderr when that is a terminal, else nothing."""
    if common.as_json or not sys.stderr.isatty():
        yield None
        return
    from pastryd.cli.render import transfer_bar  # noqa: PLC0415

    with transfer_bar(what, size) as progress:
        yield progress


class PutBars:
    """The bars of one `put`: one file has its own, several share one.

    But where their keys go to the terminal, too, each line shows how far it is, and only large ones
    have a bar, which is gone before the next line.
    """

    def __init__(self, files: Sequence[str], common: Common) -> None:
        self._common = common
        self._shared: Progress | None = None
        self._done = 0
        self._files = files

    @contextlib.contextmanager
    def for_all(self) -> Iterator[None]:
        """Draw the one that they share for as long as the context lasts, if they do."""
        if len(self._files) == 1 or sys.stdout.isatty():
            yield
            return
        sizes = [
            os.stat(f).st_size if f != "-" and os.path.isfile(f) else None for f in self._files
        ]
        total = sum(size or 0 for size in sizes) if None not in sizes else None
        with progress_bar(f"put {len(sizes)} files", total, self._common) as self._shared:
            yield

    @contextlib.contextmanager
    def of(self, name: str, size: int | None) -> Iterator["Progress | None"]:
        """Yield what to tell one file's progress to."""
        if self._shared is not None:
            yield self._part_of(self._shared)
        elif len(self._files) > 1 and size is not None and size <= CHUNK_BYTES:
            yield None
        else:
            with progress_bar(f"put {name}", size, self._common) as progress:
                yield progress

    def _part_of(self, shared: "Progress") -> "Progress":
        before = 0

        def show(done: int, total: int | None) -> None:
            nonlocal before
            self._done += done - before
            before = done
            shared(self._done, None)

        return show
