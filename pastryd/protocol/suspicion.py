"""Suspicion and self-doubt as pure arithmetic (SWIM, Das et al. 2002; Lifeguard, Dadgar et al.).

A suspect has until `deadline` to refute. Each distinct accuser brings the deadline nearer, on a log
scale from a maximum to a minimum, so that one node with a bad link convicts nobody quickly. A node
that misses what it should have seen doubts itself first: its score stretches its own timeouts.
Knows no messages and no clock.
"""

from math import log

from pastryd.ids import NodeId


class Suspicion:
    """One suspected peer: since when, by whom, and until when it may refute."""

    __slots__ = ("_accusers", "_confirmations_max", "_max_s", "_min_s", "deadline", "started_at")

    def __init__(
        self,
        started_at: float,
        accuser_id: NodeId,
        timeout_min_s: float,
        timeout_max_s: float,
        confirmations_max: int,
    ) -> None:
        """`confirmations_max` further accusers bring the timeout down to its minimum.

        Where nobody else knows the suspect and could confirm (0), the minimum holds at once.
        """
        assert 0 <= timeout_min_s <= timeout_max_s and confirmations_max >= 0
        self.started_at = started_at
        self._accusers: list[NodeId] = [accuser_id]
        self._min_s = timeout_min_s
        self._max_s = timeout_max_s
        self._confirmations_max = confirmations_max
        self.deadline = started_at + self.timeout_s
        """When the suspect is dead unless it has refuted; falls with each new accuser."""

    @property
    def confirmations(self) -> int:
        """How many accusers there are beside the first."""
        return len(self._accusers) - 1

    @property
    def accusers(self) -> tuple[NodeId, ...]:
        """Who accused, in order of arrival."""
        return tuple(self._accusers)

    @property
    def timeout_s(self) -> float:
        """How long the suspect has from `started_at`."""
        if self._confirmations_max == 0:
            return self._min_s
        share = log(self.confirmations + 1) / log(self._confirmations_max + 1)
        return max(self._min_s, self._max_s - (self._max_s - self._min_s) * share)

    def accuse(self, accuser_id: NodeId) -> bool:
        """Count one more accuser; return whether it is new and still moved the deadline."""
        if self.confirmations >= self._confirmations_max or accuser_id in self._accusers:
            return False
        self._accusers.append(accuser_id)
        self.deadline = self.started_at + self.timeout_s
        return True

    def postpone(self, by_s: float) -> None:
        """Give the suspect more time: we stood still and could not have heard its refutation."""
        assert by_s >= 0
        self.started_at += by_s
        self.deadline += by_s


class Awareness:
    """How well this node itself seems to be: 0 is healthy, `score_max` very doubtful."""

    __slots__ = ("score", "score_max")

    def __init__(self, score_max: int = 8) -> None:
        assert score_max >= 0
        self.score_max = score_max
        self.score = 0

    def doubt(self, by: int = 1) -> None:
        """Something came late or not at all that may well be our own fault."""
        self.score = min(self.score_max, self.score + by)

    def trust(self, by: int = 1) -> None:
        """Something came in time."""
        self.score = max(0, self.score - by)

    def scale(self, timeout_s: float) -> float:
        """Return a timeout stretched by our doubts in ourselves."""
        return timeout_s * (self.score + 1)
