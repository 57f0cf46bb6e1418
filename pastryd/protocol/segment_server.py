"""The holder's side of a transfer: a `Pull` in, a burst of `Segment`s out (DESIGN sec. 7).

Keeps no state about who pulls what: each request is one read and its answer. What one request may
cause is bounded here; what an unproven address may be sent is `Context`'s rule, and bulk that it
would only hold back is not even made.
"""

from collections.abc import Callable
from functools import partial

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.ids import Name
from pastryd.protocol.context import DATAGRAM_OVERHEAD_BYTES, Context
from pastryd.state.peers import Peer, Unproven
from pastryd.wire.codec import SEGMENT_HEADER_BYTES, encode_segment
from pastryd.wire.messages import Absent, Pull

Then = Callable[[memoryview | bytes | None, int, float], None]
"""Called with the bytes (None: no such item), the size of the whole item, and now."""

Read = Callable[[Name, int, int, Then, float], None]
"""Read (name, offset, length); calls `Then` at once or later, from cache or store."""

SEGMENT_BYTES_MIN = 256
HELD_SEGMENTS_MAX = 3
READS_MAX = 1024


class SegmentServer:
    """Answers pulls from whatever `read` reaches."""

    __slots__ = ("_context", "_read", "_reading", "_segment_bytes_max")

    def __init__(self, context: Context, read: Read) -> None:
        self._context = context
        self._read = read
        self._reading = 0
        config = context.config
        # What the path carries is the asker's to know (`path_prober.py`), not what our socket does.
        longest = max(config.payload_bytes_max, config.datagram_bytes_max - DATAGRAM_OVERHEAD_BYTES)
        self._segment_bytes_max = longest - SEGMENT_HEADER_BYTES

    def on_pull(self, message: Pull, peer: Peer, now: float) -> None:
        """Read the whole asked range once; the answer follows when the read is done."""
        segment_bytes = message.segment_bytes
        offset = message.first * segment_bytes
        if (
            not SEGMENT_BYTES_MIN <= segment_bytes <= self._segment_bytes_max
            or offset > OBJECT_BYTES_MAX
            or not message.mask
        ):
            self._context.stats.count("pulls_malformed")
            return
        if self._reading >= READS_MAX:
            self._context.stats.count("pulls_refused")
            return
        self._reading += 1
        length = min(message.mask.bit_length() * segment_bytes, OBJECT_BYTES_MAX - offset)
        self._read(message.name, offset, length, partial(self._answer, message, peer), now)

    def _answer(
        self, message: Pull, peer: Peer, data: memoryview | bytes | None, size: int, now: float
    ) -> None:
        self._reading -= 1
        nonce, name, segment_bytes, first, mask = message
        if data is None:
            self._context.send(Absent(nonce, name), peer, now)
            return
        if peer.unproven is not None:
            mask = self._affordable(mask, segment_bytes, peer.unproven)
        start = first * segment_bytes
        asked = min(mask.bit_length() * segment_bytes, max(size - start, 0))
        if len(data) < asked:
            self._context.stats.count("reads_short")
            asked = len(data) // segment_bytes * segment_bytes
        view = memoryview(data)[:asked]
        count = -(-len(view) // segment_bytes) or (not start)  # an empty item has one segment
        segments = [
            encode_segment(
                nonce, first + i, size, view[i * segment_bytes : (i + 1) * segment_bytes]
            )
            for i in range(count)
            if mask >> i & 1
        ]
        self._context.send_all(segments, peer, now)

    def _affordable(self, mask: int, segment_bytes: int, unproven: Unproven) -> int:
        """Keep what an unproven address may be sent, and a few to be held until it is proven."""
        cost = segment_bytes + SEGMENT_HEADER_BYTES + DATAGRAM_OVERHEAD_BYTES
        allowed = unproven.credit_bytes // cost + max(0, HELD_SEGMENTS_MAX - len(unproven.held))
        kept = 0
        while mask and allowed > 0:
            low = mask & -mask
            kept |= low
            mask ^= low
            allowed -= 1
        if mask:
            self._context.stats.count("segments_unproven", mask.bit_count())
        return kept
