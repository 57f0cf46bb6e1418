"""Addresses to join a ring, or to find a lost part of it, through: given ones and those met.

Bounded. Knows no nodes: an address may be anybody's, or nobody's.
"""

from collections.abc import Iterable

from pastryd.state.handle import Endpoint

SEEDS_MAX = 64
DEPARTED_MAX = 32


class Remembered:
    """Seeds, which are never given up, and the last of those whom we lost."""

    __slots__ = ("_departed", "_seeds")

    def __init__(self) -> None:
        self._seeds: dict[Endpoint, None] = {}
        self._departed: dict[Endpoint, None] = {}

    def __bool__(self) -> bool:
        return bool(self._seeds or self._departed)

    @property
    def endpoints(self) -> list[Endpoint]:
        """All, the seeds first."""
        return [*self._seeds, *self._departed]

    @property
    def seed_count(self) -> int:
        """How many seeds there are."""
        return len(self._seeds)

    def is_seed(self, endpoint: Endpoint) -> bool:
        """Tell whether we were given this address."""
        return endpoint in self._seeds

    def add_seeds(self, endpoints: Iterable[Endpoint]) -> None:
        """Remember addresses that we were given."""
        for endpoint in endpoints:
            if len(self._seeds) < SEEDS_MAX:
                self._seeds[endpoint] = None

    def add(self, endpoint: Endpoint) -> None:
        """Remember an address that we met, in place of the oldest if need be."""
        self._departed.pop(endpoint, None)
        self._departed[endpoint] = None
        if len(self._departed) > DEPARTED_MAX:
            del self._departed[next(iter(self._departed))]

    def note_found(self, endpoint: Endpoint) -> None:
        """Somebody answers there: it is not lost any more."""
        self._departed.pop(endpoint, None)

    def discard(self, endpoint: Endpoint) -> None:
        """Forget an address: it is our own."""
        self._seeds.pop(endpoint, None)
        self._departed.pop(endpoint, None)
