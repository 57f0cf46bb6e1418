"""Many files at a time, told in the order in which they were named.

A small file takes a round trip or two and a sync on three disks: one after the other, a thousand of
them would mostly wait.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

AT_ONCE = 16

Result = TypeVar("Result")


async def in_order(
    files: Iterable[str],
    put: Callable[[str], Coroutine[Any, Any, Result]],
    is_small: Callable[[str], bool],
) -> AsyncGenerator[tuple[str, Result], None]:
    """Put files and yield what came of each: AT_ONCE of the small ones at a time, others alone.

    The first failure is raised in its turn; what is finished behind it is yielded before, the rest
    is given up.
    """
    under_way: deque[tuple[str, asyncio.Task[Result]]] = deque()
    try:
        for file in files:
            small = is_small(file)
            while under_way and (not small or len(under_way) >= AT_ONCE):
                yield await _first(under_way)
            under_way.append((file, asyncio.create_task(put(file))))
            if not small:
                yield await _first(under_way)
        while under_way:
            yield await _first(under_way)
    except Exception:
        for file, task in under_way:
            if task.done() and not task.cancelled() and task.exception() is None:
                yield file, task.result()
        raise
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


async def _first(under_way: deque[tuple[str, asyncio.Task[Result]]]) -> tuple[str, Result]:
    file, task = under_way[0]
    result = await task
    under_way.popleft()
    return file, result
