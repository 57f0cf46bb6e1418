"""What people see: progress bars and tables. rich is imported only when something is drawn."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pastryd.net.put_window import Progress

ROWS_MAX = 1000
COLUMNS_MAX = 32
PADDED_MAX = 64
"""What a table shows of a list, and how wide its columns get. A node says what is in the list: with
a column for each row, or one long cell, 1 MiB would become gigabytes."""


@contextlib.contextmanager
def transfer_bar(what: str, size: int | None) -> Iterator["Progress"]:
    """Draw a transfer on stderr for as long as the context lasts."""
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # What goes to stdout meanwhile must not end on the terminal: it stays what it is.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(escape(what), total=size)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total if total is not None else size)

        yield show


@contextlib.contextmanager
def seeds_bar(
    total: int, echo: Callable[[str], object]
) -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """Count seeds on stderr for as long as the context lasts.

    Yields what to tell how many have run and failed, and an `echo` that takes the bar away first.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        "seeds",
        BarColumn(),
        MofNCompleteColumn(),
        "{task.fields[failed]} failed",
        TimeElapsedColumn(),
        "left",
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # Lines that go to a pipe must not end on the terminal: stdout stays what it is.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=total, failed=0)

        def show(ran: int, failed: int) -> None:
            bar.update(task, completed=ran, failed=failed)

        def echo_alone(line: str) -> None:
            bar.stop()
            echo(line)
            bar.start()

        yield show, echo_alone


def document_lines(document: Mapping[str, object], indent: str = "") -> Iterator[str]:
    """Lay a JSON document out as text: a line for each value, a table for each list of objects."""
    width = max((len(name) for name in document), default=0)
    for name, value in document.items():
        label = f"{indent}{name.replace('_', ' '):<{width}}"
        if isinstance(value, Mapping):
            yield label.rstrip()
            yield from document_lines(value, indent + "  ")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            yield f"{label}  {len(value)}"
            yield from table_lines(value[:ROWS_MAX], indent + "  ")
            if len(value) > ROWS_MAX:
                yield f"{indent}  ... {len(value) - ROWS_MAX} more; --json has them"
        else:
            yield f"{label}  {_text(value)}"


def table_lines(rows: Sequence[Mapping[str, object]], indent: str = "") -> Iterator[str]:
    """Lay rows out in columns, headed by their names."""
    every = dict.fromkeys(name for row in rows for name in row)
    names = list(every)[:COLUMNS_MAX]
    cells = [[name.replace("_", " ") for name in names]]
    cells += [[_text(row.get(name)) for name in names] for row in rows]
    widths = [min(max(map(len, column)), PADDED_MAX) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield indent + line.rstrip()
    if len(every) > len(names):
        yield f"{indent}... {len(every) - len(names)} more columns; --json has them"


def _text(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list():
            return ", ".join(map(_text, value)) or "-"
        case {"address": address}:
            return str(address)
        case dict():
            return " ".join(f"{name}={_text(part)}" for name, part in value.items()) or "-"
        case _:
            return str(value)
