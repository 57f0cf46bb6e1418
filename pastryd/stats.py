"""Counters: everything dropped or refused is counted by name (`pastry status --json`)."""


class Stats:
    """Named counters; a name exists from its first count on."""

    __slots__ = ("counters",)

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counters[name] = self.counters.get(name, 0) + by

    def snapshot(self) -> dict[str, int]:
        """Return all counters, sorted by name."""
        return dict(sorted(self.counters.items()))
