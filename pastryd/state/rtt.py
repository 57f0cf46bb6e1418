"""Round trip times of one peer, smoothed, and the retransmission timeout (Jacobson; RFC 6298).

Karn's rule is the caller's: never pass the sample of a message that was sent more than once, for
nobody knows which copy was answered. The floor may lie far below TCP's second (MSPastry, sec. 3.2),
since a false alarm costs one detour and never removes anybody. The two numbers are kept in the peer
itself (`peers.py`), of which there are hundreds.
"""

from typing import NamedTuple


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
    return min(max(srtt_s + 4 * rttvar_s, shortest), longest)
