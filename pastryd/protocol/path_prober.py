"""How large a datagram the path from a peer to us carries (DPLPMTUD, RFC 8899), found by asking.

The receiver decides how long a transfer's segments are, so the receiver probes: it asks the peer
for messages of a few sizes, the largest first, and believes the largest that arrives. The peer
keeps no state, and its kernel refuses or the path drops what is too long, since the socket forbids
fragmentation. Owns the questions on their way; what was learnt is with the path's window.

Deviation: RFC 8899 searches between bounds, one probe at a time. Paths have few sizes in practice
(Ethernet, jumbo frames, loopback), and asked for together they cost one round trip.
"""

from collections.abc import Callable

from pastryd.protocol.context import DATAGRAM_OVERHEAD_BYTES, Context
from pastryd.protocol.path_window import window_of
from pastryd.state.peers import Peer
from pastryd.wire.codec import SEGMENT_HEADER_BYTES, encode
from pastryd.wire.messages import PathProbe, PathReply

DATAGRAM_SIZES = (65_000, 8_900, 1_452)
"""Loopback, jumbo frames, Ethernet with IPv6: what is asked for, whole datagrams."""
ROUNDS_MAX = 3
ROUNDS_ANSWERED = 2
"""Asked twice for each size: one loss is not a limit."""
AGAIN_S = 600.0
"""The path may have become wider (RFC 8899's PMTU_RAISE_TIMER)."""
AGAIN_AFTER_BLACK_HOLE_S = 5.0
WINDOW_SHARE = 16
"""A segment may take this part of the node's receive window, at twice its size."""


def padding_for(nonce: int, size: int) -> bytes:
    """Return what makes a `PathReply` `size` bytes long, for sizes above 300."""
    empty = len(encode(PathReply(nonce, b"")))
    return bytes(max(0, size - empty - 1))


class PathProber:
    """The probes of one node, or client."""

    __slots__ = ("_base", "_context", "_most", "_on_ready", "_sizes")

    def __init__(self, context: Context, on_ready: Callable[[Peer, float], None]) -> None:
        """`on_ready` is told when a path's size is known for now."""
        self._context = context
        self._on_ready = on_ready
        config = context.config
        self._base = config.payload_bytes_max
        self._most = config.datagram_bytes_max - DATAGRAM_OVERHEAD_BYTES
        """What our own socket may send without fragments."""
        receivable = config.receive_window_bytes // WINDOW_SHARE
        self._sizes = tuple(
            size - DATAGRAM_OVERHEAD_BYTES
            for size in DATAGRAM_SIZES
            if self._base < size - DATAGRAM_OVERHEAD_BYTES <= self._most and size <= receivable
        )
        """Of messages, without header and seal."""

    def probe(self, peer: Peer, now: float) -> None:
        """Find out what the path carries, unless that is known or being found out."""
        window = window_of(peer)
        if self._sizes and not window.probing and now >= window.probe_at:
            window.probing = True
            window.probes = {}
            self._begin_round(peer, 0, 0, now)

    def shrink(self, peer: Peer, now: float) -> None:
        """Believe in no more than what every path carries: larger segments vanish."""
        self._context.stats.count("path_black_holes")
        window = window_of(peer)
        window.segment_bytes = 0
        window.probes = {}
        window.vanished = 0
        window.probe_at = now + AGAIN_AFTER_BLACK_HOLE_S

    def _begin_round(self, peer: Peer, number: int, answered: int, now: float) -> None:
        window = window_of(peer)
        if number >= ROUNDS_MAX or answered >= ROUNDS_ANSWERED:
            self._end(peer, now)
            return
        window.probe_round = number
        # The last one arrives on every path: with it the round is over.
        for size in (*self._sizes, self._base):
            if size == self._base or size - SEGMENT_HEADER_BYTES > window.segment_bytes:
                nonce = self._context.nonce()
                window.probes[nonce] = (size, number, answered)
                self._context.send(PathProbe(nonce, size), peer, now)
        self._context.deadlines.arm(now + peer.rto_s, self._end_round, peer, number, answered)

    def _end_round(self, peer: Peer, number: int, answered: int, now: float) -> None:
        window = window_of(peer)
        if window.probing and window.probe_round == number:
            self._begin_round(peer, number + 1, answered, now)

    def _end(self, peer: Peer, now: float) -> None:
        window = window_of(peer)
        window.probing = False
        window.probe_at = now + AGAIN_S
        self._on_ready(peer, now)

    # -- messages --

    def on_probe(self, message: PathProbe, peer: Peer, now: float) -> None:
        """Answer as long as is wanted, but only who has shown that it is where it says."""
        nonce, size = message
        if size > self._base and (peer.unproven is not None or size > self._most):
            self._context.stats.count("path_probes_refused")
            self._context.ask_proof(peer, now)  # it asks once more
            return
        self._context.send(PathReply(nonce, padding_for(nonce, size)), peer, now)

    def on_reply(self, message: PathReply, peer: Peer, now: float) -> None:
        """Learn that a message of this size arrived."""
        window = window_of(peer)
        size, number, answered = window.probes.pop(message.nonce, (0, 0, 0))
        if not size or message.padding != padding_for(message.nonce, size):
            self._context.stats.count("path_replies_unexpected")
            return
        if size == self._base:
            # Small messages overtake large ones, in queues of the network and in our own driver.
            when = now + window.reorder_s(peer.srtt_s)
            self._context.deadlines.arm(when, self._end_round, peer, number, answered + 1)
            return
        # However late: it may have waited behind bulk, and the next pull can use it.
        window.segment_bytes = max(window.segment_bytes, size - SEGMENT_HEADER_BYTES)
        if size == self._sizes[0] and window.probing:
            self._end(peer, now)
