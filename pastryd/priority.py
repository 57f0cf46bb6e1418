"""Bulk lets others run first, and between its pieces: docs/decisions/0025-bulk-steps-aside.md."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable

NICER = 10
"""A tenth of the time of who wants the same core (nice(2), setpriority(2))."""
NICE_MAX = 19

let_others_run: Callable[[], None] = getattr(os, "sched_yield", lambda: None)
"""Gives the core to who waits for it. Called after a piece of bulk: who carries somebody's small
message would wait for the rest of our time slice, some ms, else; and a get passes several. Beside
programs that want all cores each call costs what is left of the slice."""


def step_aside() -> None:
    """Lower the calling thread's priority, and that of the threads it starts from now on.

    Linux has one for each thread; elsewhere it is the process's, so nothing is done there. It
    cannot be raised again without privileges.
    """
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # a sandbox that forbids it
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(nice + NICER, NICE_MAX))
