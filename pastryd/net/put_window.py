"""Items of one blob on their way to the access node: a bounded number at a time.

Knows how many copies the least replicated of them has; not what they are.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from pastryd.ids import Name
from pastryd.protocol.items import Value

IN_FLIGHT = 8
"""Chunks on their way at once: what a blob of any size costs in memory, in MiB."""

Progress = Callable[[int, int | None], None]
"""Told the bytes done so far and, once known, of how many."""


class PutWindow:
    """A window over the puts of one blob; the first failure ends all."""

    def __init__(
        self,
        put_object: Callable[[Name, Value], Awaitable[tuple[int, bool]]],
        progress: Progress | None,
    ) -> None:
        self._put_object = put_object
        self._progress = progress
        self._puts: deque[tuple[asyncio.Task[tuple[int, bool]], int]] = deque()
        self._done = 0
        self.copies = 1 << 30
        """The fewest that any item has."""
        self.complete = True

    async def add(self, name: Name, value: Value, content_bytes: int) -> None:
        """Send one item, once there is room."""
        while len(self._puts) >= IN_FLIGHT:
            await self._first()

        async def put() -> tuple[int, bool]:
            return await self._put_object(name, value)

        self._puts.append((asyncio.create_task(put()), content_bytes))

    async def add_all(self, items: Sequence[tuple[Name, bytes]]) -> None:
        """Send several items that are not content themselves."""
        for name, value in items:
            await self.add(name, value, 0)

    async def finish(self) -> None:
        """Wait until everything is durable."""
        while self._puts:
            await self._first()

    def cancel(self) -> None:
        """Give up what is under way."""
        for task, _ in self._puts:
            task.cancel()

    async def _first(self) -> None:
        task, content_bytes = self._puts[0]
        copies, complete = await task
        self._puts.popleft()
        self.copies = min(self.copies, copies)
        self.complete &= complete
        self._done += content_bytes
        if self._progress and content_bytes:
            self._progress(self._done, None)
