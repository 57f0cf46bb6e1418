"""The scrubber: reads everything again at a set pace and finds what the disk has spoiled.

Owns the pace and the position, which survives restarts (a full round may take weeks). It does not
know what makes an item whole (`verify` does) nor how to repair one (its caller deletes the corrupt
items and lets replication fetch them again). Reads no clock: the driver passes `now`.
"""

from collections.abc import Callable

from pastryd.errors import StoreError, StoreLostError
from pastryd.ids import Name
from pastryd.store.base import FIRST_NAME, ItemStore

Verify = Callable[[Name, memoryview], bool]

POSITION_KEY = "scrub.position"

STEP_BYTES_MAX = 1 << 20
"""A step ends after the item that reaches this: it runs on the loop (1 MiB hashes in 0.6 ms)."""

ITEM_COST_BYTES = 4096
"""Counted for each item on top of its value: a small item still costs a page read and a call."""

SAVE_INTERVAL_S = 60.0
"""How much work a crash may repeat; each save costs a sync."""

ROUND_INTERVAL_S = 3600.0
"""A round begins this long after the last one did, at the soonest: it spares small stores."""


class Scrubber:
    """One endless walk over a store, in steps."""

    __slots__ = (
        "_bytes_per_s",
        "_next_step_at",
        "_position",
        "_round_began_at",
        "_saved_at",
        "_saved_position",
        "_store",
        "_verify",
        "corrupt_found",
        "damage_found",
        "items_checked",
        "rounds_finished",
    )

    def __init__(self, store: ItemStore, verify: Verify, bytes_per_s: float, now: float) -> None:
        """Continue where the last run stopped. `bytes_per_s` 0: never do anything."""
        assert bytes_per_s >= 0
        self._store = store
        self._verify = verify
        self._bytes_per_s = bytes_per_s
        self._position = store.get_meta(POSITION_KEY) or FIRST_NAME
        self._saved_position = self._position
        self._saved_at = now
        self._next_step_at = now
        self._round_began_at = now
        self.items_checked = 0
        self.corrupt_found = 0
        self.damage_found = 0
        """Places where names could not be read; each round finds them again."""
        self.rounds_finished = 0

    def next_deadline(self) -> float | None:
        """Return when the next `step` has something to do, or None for never."""
        return self._next_step_at if self._bytes_per_s > 0 else None

    def step(self, now: float) -> list[Name]:
        """Check a few items if the pace allows it; return the names of those that are corrupt."""
        if self._bytes_per_s <= 0 or now < self._next_step_at:
            return []
        corrupt: list[Name] = []
        cost = 0
        finished_round = True
        for name in self._store.names(self._position, self._note_damage):
            if cost >= STEP_BYTES_MAX:
                self._position = name
                finished_round = False
                break
            size, whole = self._check(name)
            cost += size + ITEM_COST_BYTES
            self.items_checked += 1
            if not whole:
                self.corrupt_found += 1
                corrupt.append(name)
        if finished_round:
            self._position = FIRST_NAME
            self.rounds_finished += 1
        # From now on, not from the last deadline: time slept through is not caught up with a burst.
        self._next_step_at = now + cost / self._bytes_per_s
        if finished_round:
            self._next_step_at = max(self._next_step_at, self._round_began_at + ROUND_INTERVAL_S)
            self._round_began_at = self._next_step_at
        if now - self._saved_at >= SAVE_INTERVAL_S:
            self.save(now)
        return corrupt

    def _note_damage(self) -> None:
        self.damage_found += 1

    def save(self, now: float) -> None:
        """Remember the position durably, if it has moved and the disk takes it."""
        self._saved_at = now
        if self._position != self._saved_position:
            try:
                self._store.put_meta(POSITION_KEY, self._position)
            except StoreLostError:
                raise
            except StoreError:
                return  # on a full disk the worst is that a restart checks some items twice
            self._saved_position = self._position

    def _check(self, name: Name) -> tuple[int, bool]:
        """Return size and soundness of an item; one that was deleted meanwhile is sound."""
        result = (0, True)

        def receive(data: memoryview | None, size: int) -> None:
            nonlocal result
            if data is not None:
                result = (size, self._verify(name, data))

        self._store.read(name, 0, -1, receive)
        return result
