"""When the disk begins to refuse what it is given, and when it takes it again: worth a log line.

A node whose disk is full or broken goes on, for others take what it cannot; without a line nobody
would look. Owns the two transitions; why a write was refused, the store knows.
"""

from pastryd.protocol.outbox import WriteStatus

CALM_S = 300.0
"""So long nothing may be refused before it counts as over: on a full disk small items still go."""


class Refusals:
    """Turns the ends of all writes into the few that are news."""

    __slots__ = ("_last_at",)

    def __init__(self) -> None:
        self._last_at: dict[WriteStatus, float] = {}
        """When something was refused last, for each way; only while that goes on."""

    def note(self, status: WriteStatus, now: float) -> bool:
        """Take how a write ended; True: it is the first that ends so, or OK again after some."""
        last_at = self._last_at
        if status is WriteStatus.FULL or status is WriteStatus.FAILED:
            is_first = status not in last_at
            last_at[status] = now
            return is_first
        if not last_at or status is not WriteStatus.OK or now - max(last_at.values()) < CALM_S:
            return False
        last_at.clear()
        return True
