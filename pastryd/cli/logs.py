"""Logging of the daemon: structlog to stderr, for people (console) or for machines (json).

Events are state transitions; nothing on the path of a message logs. A reader of stderr that went
away must not stop a node, so write errors are swallowed here.
"""

import contextlib
import logging
import sys
from typing import TextIO

from pastryd.cli import footprint

with footprint.without("rich"):  # 4 MiB of every node for tracebacks that are printed plain
    import structlog


class _Tolerant:
    """A stream whose write errors are nobody's problem."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure(log_format: str, log_level: str) -> None:
    """Send every structlog event of this process to stderr."""
    renderer: structlog.typing.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([structlog.processors.format_exc_info] if log_format == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[log_level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(_Tolerant(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
