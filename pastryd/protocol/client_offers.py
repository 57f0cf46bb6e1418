"""What may be pulled from a client: values too large for a datagram, while they are being put."""

from pastryd.ids import Name
from pastryd.protocol.items import Value
from pastryd.protocol.segment_server import Then


class Offers:
    """Values by name; each may be offered for several puts at a time."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[Name, tuple[Value, int]] = {}

    def __len__(self) -> int:
        """Return for how many puts something is offered."""
        return sum(count for _, count in self._values.values())

    def add(self, name: Name, value: Value) -> None:
        """Offer a value, for one more put."""
        _, count = self._values.get(name, (value, 0))
        self._values[name] = (value, count + 1)

    def withdraw(self, name: Name) -> None:
        """Offer it for one put less."""
        value, count = self._values.pop(name)
        if count > 1:
            self._values[name] = (value, count - 1)

    def read(self, name: Name, offset: int, length: int, then: Then, now: float) -> None:
        """Hand out a part (`length` < 0: to the end) of what is offered, for a `SegmentServer`."""
        offered = self._values.get(name)
        if offered is None:
            then(None, 0, now)
            return
        value = memoryview(offered[0])
        then(value[offset : offset + length] if length >= 0 else value[offset:], len(value), now)
