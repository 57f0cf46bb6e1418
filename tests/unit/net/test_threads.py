"""`net/threads.py`: nobody has to wait for what never returns."""

import asyncio
import os

import pytest

from pastryd.net.threads import in_thread


async def test_whoever_waits_for_a_silent_pipe_can_be_cancelled() -> None:
    reading, writing = os.pipe()
    task = asyncio.ensure_future(in_thread(lambda: os.read(reading, 1)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.close(writing)


async def test_an_error_in_the_thread_reaches_whoever_waits() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        await in_thread(lambda: os.write(-1, b""))
