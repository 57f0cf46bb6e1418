"""Entry points of `pastryd` and `pastry`: they load the rest.

That takes a moment, longer on a busy machine, and Ctrl-C in it must not end in a traceback. It
opens files, too: whether it may open enough of them is looked at before.
"""

import resource
import sys
from importlib import import_module

_INTERRUPTED = 130
"""`exits.INTERRUPTED`, which is not loaded yet."""

OPEN_FILES_LEAST = 32
"""A node at rest has 21 of them; with fewer than so many it is chance where it is told."""


def pastryd() -> None:
    """Run the daemon's command line."""
    _run("pastryd.cli.daemon", "pastryd")


def pastry() -> None:
    """Run the user's command line."""
    _run("pastryd.cli.tool", "pastry")


def _run(module: str, program: str) -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < OPEN_FILES_LEAST:  # negative: there is none
        sys.exit(
            f"{program}: {limit} open files are too few; "
            f"raise the limit (ulimit -n) to {OPEN_FILES_LEAST} or more"
        )
    try:
        import_module(module).main()
    except KeyboardInterrupt:  # before `exits.run` looks out for it
        sys.exit(_INTERRUPTED)
