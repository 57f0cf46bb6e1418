"""Round trip times of one peer, smoothed, and the retransmission timeout (Jacobson; RFC 6298).

Karn's rule is the caller's: never pass the sample of a message that was sent more than once, for
nobody knows which copy was answered. The floor may lie far below TCP's second (MSPastry, sec. 3.2),
since a false alarm costs one detour and never removes anybody. The two numbers are kept in the peer
itself (`peers.py`), of which there are hundreds.
"""

from typing import NamedTuple

FACTOR_MAX = 64
"""Beyond every bound that is asked for."""


class RtoBounds(NamedTuple):
    """Least and most that a retransmission timeout may be, and what it is before any sample."""

    min_s: float
    max_s: float
    initial_s: float


def smoothed(srtt_s: float | None, rttvar_s: float, rtt_s: float) -> tuple[float, float]:
    """Return `(srtt, rttvar)` after one more measured round trip; `srtt_s` None: the first."""
    rtt_s = max(rtt_s, 0.0)
    if srtt_s is None:
        return rtt_s, rtt_s / 2
    error = rtt_s - srtt_s
    return srtt_s + error / 8, rttvar_s + (abs(error) - rttvar_s) / 4


def retransmission_timeout(srtt_s: float | None, rttvar_s: float, bounds: RtoBounds) -> float:
    """Return how long to wait for an answer, in seconds: srtt + 4 rttvar within the bounds."""
    shortest, longest, initial = bounds
    if srtt_s is None:
        return initial
    wait_s = srtt_s + 4 * rttvar_s
    return shortest if wait_s < shortest else longest if wait_s > longest else wait_s


class AnswerTime:
    """How long answers of one kind take, and so how long to wait before asking again.

    Network, queue and work together: under load they take longer, and who asks again too early
    only adds to it. RFC 6298, section 5: after a question that was repeated no sample is due for a
    while (Karn's rule), so that all wait twice as long until there is one; once for all that were
    under way together.
    """

    __slots__ = ("_expired_at", "_factor", "_first_s", "_mean_s", "_variation_s")

    def __init__(self, first_s: float = 0.0) -> None:
        """`first_s`: how long to wait as long as nothing is known."""
        self._first_s = first_s
        self._mean_s: float | None = None
        self._variation_s = 0.0
        self._factor = 1
        self._expired_at = float("-inf")

    def sample(self, taken_s: float) -> None:
        """Take in how long an answer took to what was asked once."""
        self._mean_s, self._variation_s = smoothed(self._mean_s, self._variation_s, taken_s)
        self._factor = 1

    def note_expired(self, asked_at: float, now: float) -> None:
        """Nobody answered in time what was asked at `asked_at`, and it is repeated."""
        if asked_at >= self._expired_at:
            self._factor = min(2 * self._factor, FACTOR_MAX)
            self._expired_at = now

    def wait_s(self, least_s: float, most_s: float) -> float:
        """Return how long to wait for the next, within bounds of which the lower one is to hold."""
        mean_s = self._mean_s
        wait_s = self._first_s if mean_s is None else mean_s + 4 * self._variation_s
        return max(least_s, min(self._factor * max(wait_s, least_s), most_s))
