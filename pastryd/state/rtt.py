"""Round trip times of one peer, smoothed, and the retransmission timeout (Jacobson; RFC 6298).

Karn's rule is the caller's: never pass the sample of a message that was sent more than once, for
nobody knows which copy was answered. The floor may lie far below TCP's second (MSPastry, sec. 3.2),
since a false alarm costs one detour and never removes anybody.
"""


class RttEstimator:
    """srtt, rttvar and the timeout that follows from them."""

    __slots__ = ("_max_s", "_min_s", "rto", "rttvar", "srtt")

    def __init__(self, rto_min_s: float, rto_max_s: float, rto_initial_s: float) -> None:
        assert 0 < rto_min_s <= rto_initial_s <= rto_max_s
        self._min_s = rto_min_s
        self._max_s = rto_max_s
        self.srtt: float | None = None
        """Smoothed RTT in seconds; None before the first sample."""
        self.rttvar = 0.0
        self.rto = rto_initial_s
        """How long to wait for an answer, in seconds: srtt + 4 rttvar within the bounds."""

    def sample(self, rtt_s: float) -> None:
        """Take in one measured round trip."""
        rtt_s = max(rtt_s, 0.0)
        srtt = self.srtt
        if srtt is None:
            self.srtt = srtt = rtt_s
            self.rttvar = rtt_s / 2
        else:
            error = rtt_s - srtt
            self.srtt = srtt = srtt + error / 8
            self.rttvar += (abs(error) - self.rttvar) / 4
        rto = srtt + 4 * self.rttvar
        self.rto = min(max(rto, self._min_s), self._max_s)
