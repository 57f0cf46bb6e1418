"""The network between virtual nodes: what becomes of a datagram on its way.

Loss, duplication, reordering, cuts in one direction or both, and per-node bandwidth with a queue of
bounded length. All faults are plain values; a fault that is off costs nothing. Decides when copies
arrive; moving them is the world's business.
"""

from random import Random

from pastryd.sim.latency import LatencyModel

JITTER = 0.1
"""Delays vary by so much to either side."""
_LEAST, _SPAN = 1 - JITTER, 2 * JITTER
DATAGRAM_OVERHEAD_BYTES = 65 + 28
"""Header and seal, which the simulation leaves out, and IP and UDP."""


class Uplink:
    """The sending side of one node: bytes per second, and how much may wait."""

    __slots__ = ("bytes_per_s", "free_at", "queue_bytes")

    def __init__(self, bytes_per_s: float, queue_bytes: int) -> None:
        self.bytes_per_s = bytes_per_s
        self.queue_bytes = queue_bytes
        self.free_at = 0.0

    def departure(self, size: int, now: float) -> float | None:
        """Return when a datagram has left, or None when the queue was full."""
        start = max(now, self.free_at)
        if (start - now) * self.bytes_per_s > self.queue_bytes:
            return None
        self.free_at = start + size / self.bytes_per_s
        return self.free_at


class Links:
    """All paths of one world."""

    __slots__ = (
        "_rng",
        "_sides",
        "cuts",
        "duplication",
        "latency",
        "loss",
        "lost",
        "reordering",
        "reordering_s",
        "uplinks",
    )

    def __init__(self, latency: LatencyModel, rng: Random) -> None:
        self.latency = latency
        self._rng = rng
        self.loss = 0.0
        """Chance that a datagram is lost."""
        self.duplication = 0.0
        """Chance that it arrives twice."""
        self.reordering = 0.0
        """Chance that it is held up for up to `reordering_s`."""
        self.reordering_s = 0.05
        self.uplinks: dict[int, Uplink] = {}
        """Nodes (by number) whose bandwidth is bounded."""
        self.cuts: set[tuple[int, int]] = set()
        """One-way cuts: (from, to). Membership only; never iterated."""
        self._sides: dict[int, int] = {}
        self.lost = 0

    @property
    def is_split(self) -> bool:
        """Whether the network is cut in parts."""
        return bool(self._sides)

    def split(self, sides: list[list[int]]) -> None:
        """Let only nodes of the same side hear each other; those on no side are one of their own.

        No sides: heal.
        """
        self._sides = {number: i for i, side in enumerate(sides) for number in side}

    def arrivals(self, sender: int, receiver: int, size: int, now: float) -> tuple[float, ...]:
        """Return when each copy of a datagram arrives; none when it is lost."""
        if self._sides and self._sides.get(sender) != self._sides.get(receiver):
            self.lost += 1
            return ()
        if self.cuts and (sender, receiver) in self.cuts:
            self.lost += 1
            return ()
        start = now
        if self.uplinks and sender != receiver:  # within one machine nothing leaves it
            uplink = self.uplinks.get(sender)
            if uplink is not None:
                departed = uplink.departure(size + DATAGRAM_OVERHEAD_BYTES, now)
                if departed is None:
                    self.lost += 1
                    return ()
                start = departed
        random = self._rng.random
        if not (self.loss or self.duplication or self.reordering):
            delay = self.latency.delay_s(sender, receiver) * (_LEAST + _SPAN * random())
            return (start + delay,)
        if self.duplication and random() < self.duplication:
            return (*self._one(sender, receiver, start), *self._one(sender, receiver, start))
        return self._one(sender, receiver, start)

    def _one(self, sender: int, receiver: int, start: float) -> tuple[float, ...]:
        random = self._rng.random
        if self.loss and random() < self.loss:
            self.lost += 1
            return ()
        delay = self.latency.delay_s(sender, receiver) * (_LEAST + _SPAN * random())
        if self.reordering and random() < self.reordering:
            delay += self.reordering_s * random()
        return (start + delay,)
