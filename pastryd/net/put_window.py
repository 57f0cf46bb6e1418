"""Items of one blob on their way to who stores them: no more at a time than make it faster.

Too many only wait for each other at the replicas or the access node, and whoever asks those for
something small waits behind them. So their number follows how long they wait, as TCP Vegas sets its
window (Brakmo, Peterson 1995, section 3.2): time taken against that of an item sent alone. Knows
how many copies the least replicated item has; not what they are.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from pastryd.ids import Name
from pastryd.net.driver import clock
from pastryd.protocol.items import Value

IN_FLIGHT = 8
"""Chunks on their way at once, at most: what a blob of any size costs in memory, in MiB."""
FIRST_WIDTH = 4
LEAST_WIDTH = 2
ALONE_FIRST = 16
"""So many go before the first that is sent alone: a shorter blob disturbs nobody for long."""
ALONE_EVERY = 64
"""From then on one of so many is sent alone: what it takes may have changed (BBR's ProbeRTT:
Cardwell et al. 2016)."""
WAITING_LOW = 0.5
WAITING_HIGH = 1.0
"""How many of those under way should wait for others: none would mean an idle moment."""

Progress = Callable[[int, int | None], None]
"""Told the bytes done so far and, once known, of how many."""


class Width:
    """How many items may be under way, from what they take; pure arithmetic."""

    __slots__ = ("_alone_s", "_width")

    def __init__(self) -> None:
        self._width = float(FIRST_WIDTH)
        self._alone_s = 0.0
        """What one took that was sent alone; 0: not known."""

    @property
    def items(self) -> int:
        """How many, from LEAST_WIDTH to IN_FLIGHT."""
        return int(self._width)

    def sent_alone(self, took_s: float) -> None:
        """Take what an item took that waited for no other."""
        self._alone_s = took_s

    def sent_among(self, took_s: float) -> None:
        """Take what one of several took. Before one was sent alone that says nothing."""
        if not self._alone_s:
            return
        waiting = self._width * (1 - self._alone_s / took_s)
        if waiting < WAITING_LOW:
            self._width = min(self._width + 1 / self._width, IN_FLIGHT)
        elif waiting > WAITING_HIGH:
            self._width = max(self._width - 1 / self._width, LEAST_WIDTH)


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
        self._sent = 0
        self._width = Width()
        self.copies = 1 << 30
        """The fewest that any item has."""
        self.complete = True

    async def add(self, name: Name, value: Value, content_bytes: int) -> None:
        """Send one item, once there is room."""
        alone = content_bytes > 0 and self._sent % ALONE_EVERY == ALONE_FIRST
        self._sent += content_bytes > 0
        while self._puts and (alone or len(self._puts) >= self._width.items):
            await self._first()

        async def put() -> tuple[int, bool]:
            began = clock()
            result = await self._put_object(name, value)
            if alone:
                self._width.sent_alone(clock() - began)
            elif content_bytes:
                self._width.sent_among(clock() - began)
            return result

        self._puts.append((asyncio.create_task(put()), content_bytes))
        if alone:
            await self._first()

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
