"""All that a node has to do later, in the order in which it falls due.

Owns the order and nothing else: it reads no clock (`now` comes in) and knows no timeout's meaning.
Rules: timers run by (when, the order in which they were armed); a cancelled timer never runs; one
call of `run_due` is bounded. Most timers guard an answer that does come, so cancelling is O(1):
the entry stays in the heap as garbage, which never is more than half of it.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

NEVER = float("inf")

GARBAGE_MIN = 64
"""Below this many dead entries a sweep costs more than it frees."""

ARMED_MEANWHILE_MAX = 1_000
"""How many actions beyond those pending at its start one `run_due` may run."""


class Timer:
    """A pending action. Keep it to cancel it; `when` is the time at which it falls due."""

    __slots__ = ("_action", "_args", "_deadlines", "when")

    def __init__(
        self,
        deadlines: "Deadlines",
        when: float,
        action: Callable[..., None],
        args: tuple[object, ...],
    ) -> None:
        self._deadlines = deadlines
        self.when = when
        self._action: Callable[..., None] | None = action
        self._args = args

    @property
    def pending(self) -> bool:
        """Neither run nor cancelled."""
        return self._action is not None

    def cancel(self) -> None:
        """Make sure that the action does not run (any more); harmless when it already did."""
        if self._action is None:
            return
        self._action = None
        self._args = ()
        deadlines = self._deadlines
        deadlines._dead += 1
        if deadlines._dead > GARBAGE_MIN and deadlines._dead * 2 > len(deadlines._heap):
            deadlines._sweep()


class Deadlines:
    """The timers of one node."""

    __slots__ = ("_dead", "_heap", "_sequence", "earliest")

    def __init__(self) -> None:
        self.earliest = NEVER
        """No pending timer falls due before; what it stands for may have been cancelled since."""
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._dead = 0  # cancelled entries still in the heap

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def arm(self, when: float, action: Callable[..., None], *args: object) -> Timer:
        """Have `action(*args, now)` called once `when` has come."""
        timer = Timer(self, when, action, args)
        if when < self.earliest:  # noqa: PLR1730 - three times as fast
            self.earliest = when
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (when, sequence, timer))
        return timer

    def next_deadline(self) -> float | None:
        """Return when the earliest timer falls due."""
        heap = self._heap
        while heap:
            when, _, timer = heap[0]
            if timer._action is not None:
                self.earliest = when
                return when
            heappop(heap)
            self._dead -= 1
        self.earliest = NEVER
        return None

    def run_due(self, now: float) -> int:
        """Run what is due, including what is armed meanwhile for a time already past.

        Returns how many actions ran. At the bound the rest stays due: `next_deadline()` then is
        not later than `now`, and the driver comes back after it has sent and received.
        """
        allowed = len(self) + ARMED_MEANWHILE_MAX
        ran = 0
        while self._heap and ran < allowed:
            if self._heap[0][0] > now:
                break
            timer = heappop(self._heap)[2]
            action = timer._action
            if action is None:
                self._dead -= 1
                continue
            args = timer._args
            timer._action = None
            timer._args = ()
            action(*args, now)
            ran += 1
        self.next_deadline()
        return ran

    def shift(self, by_s: float) -> None:
        """Move every pending timer later: while we stood still, nobody's silence counts."""
        assert by_s >= 0
        self._sweep()
        moved: list[tuple[float, int, Timer]] = []
        for when, sequence, timer in self._heap:
            timer.when = when + by_s
            moved.append((timer.when, sequence, timer))
        self._heap = moved
        self.earliest += by_s
        heapify(moved)  # rounding may have made equals of two times

    def check_invariants(self) -> None:
        """Assert what always holds."""
        heap = self._heap
        assert all(heap[(i - 1) // 2] <= heap[i] for i in range(1, len(heap)))
        assert all(when >= self.earliest for when, _, timer in heap if timer.pending)
        dead = sum(not timer.pending for _, _, timer in heap)
        assert dead == self._dead
        assert dead <= GARBAGE_MIN or dead * 2 <= len(heap) + 1

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2]._action is not None]
        heapify(self._heap)
        self._dead = 0
