"""The sliding window that accepts each counter once (RFC 6479's ring of blocks).

A datagram may arrive late, twice or never; its counter never comes back under the same key. Knows
no keys: whoever opens a seal asks `is_fresh` before and calls `accept` after the seal held.
"""

BLOCK_BITS = 64
BLOCKS = 128
WINDOW = (BLOCKS - 1) * BLOCK_BITS
"""How far behind the highest counter a datagram may be: 8,128, more than a full receive buffer."""

_BLOCK_MASK = BLOCKS - 1
_BIT_MASK = BLOCK_BITS - 1


class ReplayWindow:
    """Which of the last `WINDOW` counters were seen."""

    __slots__ = ("_blocks", "highest")

    def __init__(self) -> None:
        self.highest = -1
        """The highest counter that was accepted."""
        self._blocks = [0] * BLOCKS

    def is_fresh(self, counter: int) -> bool:
        """Tell whether `counter` is neither seen nor too old to know."""
        if counter > self.highest:
            return True
        if self.highest - counter >= WINDOW:
            return False
        return not self._blocks[(counter >> 6) & _BLOCK_MASK] >> (counter & _BIT_MASK) & 1

    def accept(self, counter: int) -> None:
        """Remember a fresh counter whose datagram was authentic."""
        block = counter >> 6
        if counter > self.highest:
            newest = self.highest >> 6
            if block != newest:
                for i in range(newest + 1, min(block, newest + BLOCKS) + 1):
                    self._blocks[i & _BLOCK_MASK] = 0
            self.highest = counter
        self._blocks[block & _BLOCK_MASK] |= 1 << (counter & _BIT_MASK)

    def accept_run(self, start: int, stop: int) -> None:
        """Remember the counters from `start` up to `stop`, all higher than any before."""
        while start < stop:
            self.accept(start)  # empties the blocks that it enters
            last = min(stop - 1, start | 63)
            count = last - start + 1
            self._blocks[(start >> 6) & _BLOCK_MASK] |= ((1 << count) - 1) << (start & _BIT_MASK)
            self.highest = last
            start = last + 1
