"""What is going to happen in a world, by time; at one time in the order in which it was added.

A heap of a hundred thousand entries is deep, and nearly all of them lie in the far future: so they
wait unsorted in slots of one millisecond, and a slot is sorted once, when its time has come. Few
are added to it after that.
"""

from bisect import insort
from collections.abc import Callable
from heapq import heappop, heappush

SLOTS_PER_S = 1000

Event = tuple[float, int, Callable[..., None], tuple[object, ...]]
"""When, in which order, what, with which arguments."""


class Events:
    """A queue of events whose times do not lie before the last one that was taken out."""

    __slots__ = ("_count", "_numbers", "_slot", "_slots", "_under_way")

    def __init__(self) -> None:
        self._slots: dict[int, list[Event]] = {}
        self._numbers: list[int] = []  # of the slots, a heap
        self._under_way: list[Event] = []  # what is left of slot `_slot` and before, last first
        self._slot = -1
        self._count = 0

    def add(self, when: float, action: Callable[..., None], arguments: tuple[object, ...]) -> None:
        """Have `action(*arguments)` done at a time."""
        self._count = count = self._count + 1
        number = int(when * SLOTS_PER_S)
        if number <= self._slot:
            insort(self._under_way, (when, count, action, arguments), key=_last_first)
            return
        slot = self._slots.get(number)
        if slot is None:
            self._slots[number] = [(when, count, action, arguments)]
            heappush(self._numbers, number)
        else:
            slot.append((when, count, action, arguments))

    def due(self, end: float) -> list[Event]:
        """Return a list whose last one comes next, if that is not after `end`; empty: nothing does.

        Who has taken all events out of it asks again.
        """
        last = int(end * SLOTS_PER_S)
        while not self._under_way and self._numbers and self._numbers[0] <= last:
            self._slot = heappop(self._numbers)
            self._under_way = self._slots.pop(self._slot)
            self._under_way.sort(reverse=True)
        return self._under_way


def _last_first(event: Event) -> tuple[float, int]:
    return -event[0], -event[1]
