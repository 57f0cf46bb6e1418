"""Routing table (Rowstron & Druschel 2001, sec. 2.1, 2.5): one node per prefix, the nearest known.

The slot (row, column) holds a node that shares exactly `row` leading digits with the owner and has
`column` as its next digit. Any such node is correct; a nearer one is better (proximity neighbour
selection). Knows nothing of liveness or time; round trip times are told by the caller.
"""

from array import array
from collections.abc import Iterator
from math import inf

from pastryd.ids import ID_BITS, NodeId
from pastryd.state.handle import Handle

NEARER_FACTOR = 0.9
"""A candidate's RTT must be below this part of the holder's, or slots flap with the noise."""


class _Row:
    """The slots of one row, each with the RTT in seconds (inf: not measured)."""

    __slots__ = ("handles", "rtts")

    def __init__(self, columns: int) -> None:
        self.handles: list[Handle | None] = [None] * columns
        self.rtts = array("d", [inf]) * columns


class RoutingTable:
    """Rows exist only once they hold something: log_16 N of them in a ring of N nodes."""

    __slots__ = ("_bits", "_count", "_mask", "_rows", "_shift", "owner")

    def __init__(self, owner: NodeId, bits_per_digit: int = 4) -> None:
        assert bits_per_digit > 0 and ID_BITS % bits_per_digit == 0, "digits must fill the id"
        self.owner = owner
        self._bits = bits_per_digit
        self._mask = (1 << bits_per_digit) - 1
        self._shift = ID_BITS - bits_per_digit
        self._rows: dict[int, _Row] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bits_per_digit(self) -> int:
        """The paper's b."""
        return self._bits

    @property
    def rows_filled(self) -> int:
        """How many rows hold at least one entry."""
        return len(self._rows)

    @property
    def row_numbers(self) -> list[int]:
        """The rows that hold at least one entry, ascending."""
        return sorted(self._rows)

    def slot_of(self, node_id: int) -> tuple[int, int]:
        """Return the (row, column) where this id belongs; the owner has none."""
        assert node_id != self.owner, "the owner has no slot in its own table"
        row = (ID_BITS - (node_id ^ self.owner).bit_length()) // self._bits
        return row, (node_id >> (self._shift - row * self._bits)) & self._mask

    def get(self, row: int, column: int) -> Handle | None:
        """Return the entry of a slot."""
        slots = self._rows.get(row)
        return None if slots is None else slots.handles[column]

    def lookup(self, key: int) -> Handle | None:
        """Return the entry for the first digit in which `key` differs from the owner."""
        row = (ID_BITS - (key ^ self.owner).bit_length()) // self._bits
        slots = self._rows.get(row)
        if slots is None:
            return None
        return slots.handles[(key >> (self._shift - row * self._bits)) & self._mask]

    def rtt_of(self, node_id: NodeId) -> float | None:
        """Return the RTT known of an entry; None when it is not measured, or no entry."""
        row = (ID_BITS - (node_id ^ self.owner).bit_length()) // self._bits
        slots = self._rows.get(row)
        if slots is None:
            return None
        column = (node_id >> (self._shift - row * self._bits)) & self._mask
        handle, rtt_s = slots.handles[column], slots.rtts[column]
        return None if handle is None or handle.id != node_id or rtt_s == inf else rtt_s

    def row(self, index: int) -> list[Handle]:
        """Return the entries of one row by column."""
        slots = self._rows.get(index)
        return [] if slots is None else [h for h in slots.handles if h is not None]

    def measured_row(self, index: int) -> list[tuple[Handle, float]]:
        """Return the same, each with its RTT (inf: not measured)."""
        slots = self._rows.get(index)
        if slots is None:
            return []
        return [(h, rtt) for h, rtt in zip(slots.handles, slots.rtts, strict=True) if h is not None]

    def entries(self) -> Iterator[Handle]:
        """Yield every entry, by row and column. The table must not change meanwhile."""
        for index in sorted(self._rows):
            for handle in self._rows[index].handles:
                if handle is not None:
                    yield handle

    def wanted_s(self, node_id: NodeId) -> float:
        """Return the RTT below which `consider` would give this node a slot (inf: with any).

        0 for an entry, which has one, and for the owner.
        """
        if node_id == self.owner:
            return 0.0
        row, column = self.slot_of(node_id)
        slots = self._rows.get(row)
        holder = None if slots is None else slots.handles[column]
        if slots is None or holder is None:
            return inf
        return 0.0 if holder.id == node_id else NEARER_FACTOR * slots.rtts[column]

    def consider(self, handle: Handle, rtt_s: float | None) -> bool:
        """Offer a node its slot; return whether the slot's handle changed.

        An empty slot takes anything; a holder gives way to one measured clearly nearer, and an
        unmeasured holder to any measured one. The holder itself is refreshed (never to an older
        incarnation; an `rtt_s` of None keeps what was measured).
        """
        node_id = handle.id
        if node_id == self.owner:
            return False
        row, column = self.slot_of(node_id)
        slots = self._rows.get(row)
        if slots is None:
            slots = self._rows[row] = _Row(1 << self._bits)
        holder = slots.handles[column]
        if holder is None:
            self._count += 1
        elif holder.id == node_id:
            if rtt_s is not None:
                slots.rtts[column] = rtt_s
            if holder == handle or handle.incarnation < holder.incarnation:
                return False
            slots.handles[column] = handle
            return True
        elif rtt_s is None or rtt_s >= NEARER_FACTOR * slots.rtts[column]:
            return False
        slots.handles[column] = handle
        slots.rtts[column] = inf if rtt_s is None else rtt_s
        return True

    def discard(self, node_id: NodeId) -> bool:
        """Empty the slot of this node; return whether it held it."""
        holder = self.lookup(node_id)
        if holder is None or holder.id != node_id:
            return False
        row, column = self.slot_of(node_id)
        slots = self._rows[row]
        slots.handles[column] = None
        slots.rtts[column] = inf
        self._count -= 1
        if not any(slots.handles):
            del self._rows[row]
        return True

    def check_invariants(self) -> None:
        """Assert what always holds."""
        count = 0
        for row, slots in self._rows.items():
            handles, rtts = slots.handles, slots.rtts
            assert len(handles) == len(rtts) == self._mask + 1
            assert any(handles), "an empty row was kept"
            below = self._shift - row * self._bits
            prefix = self.owner >> below
            own = prefix & self._mask
            assert handles[own] is None, "who shares our digit has its slot in a further row"
            prefix -= own
            for column, handle in enumerate(handles):
                if handle is None:
                    assert rtts[column] == inf
                else:
                    assert handle.id >> below == prefix + column
                    assert rtts[column] >= 0
                    count += 1
        assert count == self._count
