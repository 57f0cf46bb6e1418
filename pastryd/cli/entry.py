"""Entry points of `pastryd` and `pastry`: they load the rest.

That takes a moment, longer on a busy machine, and Ctrl-C in it must not end in a traceback.
"""

import sys
from importlib import import_module

_INTERRUPTED = 130
"""`exits.INTERRUPTED`, which is not loaded yet."""


def pastryd() -> None:
    """Run the daemon's command line."""
    _run("pastryd.cli.daemon")


def pastry() -> None:
    """Run the user's command line."""
    _run("pastryd.cli.tool")


def _run(module: str) -> None:
    try:
        import_module(module).main()
    except KeyboardInterrupt:  # before `exits.run` looks out for it
        sys.exit(_INTERRUPTED)
