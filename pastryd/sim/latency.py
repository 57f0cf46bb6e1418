"""How long a datagram takes from one node to another: measured matrices and the papers' models.

A model places nodes as they are added and answers with one-way delays in seconds. Everything
follows from the seed that it was given.
"""

from array import array
from math import acos, cos, isfinite, pi, sin, sqrt
from pathlib import Path
from random import Random
from typing import Protocol

from pastryd.errors import ConfigError

SPHERE_RTT_MAX_S = 0.3
"""The round trip to the opposite side of the sphere."""
PLANE_RTT_MAX_S = 0.3
_S_PER_RADIAN = SPHERE_RTT_MAX_S / 2 / pi
LOCAL_S = 0.0002
"""One-way delay between two nodes at the same place."""


class LatencyModel(Protocol):
    """Places nodes, and tells the delay between two places."""

    def place(self) -> None:
        """Give the next node (numbered from 0) its place."""

    def delay_s(self, a: int, b: int) -> float:
        """Return the one-way delay from node number `a` to node number `b`."""


MATRIX_CHARS_MAX = 1 << 26
"""Some 3,000 rows; a device or the wrong file must not be read for ever."""


class Constant:
    """Every link takes the same time."""

    __slots__ = ("_delay_s",)

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def place(self) -> None:
        """All places are alike."""

    def delay_s(self, a: int, b: int) -> float:
        """Return the one delay."""
        return self._delay_s


class Matrix:
    """Round-trip times between real servers; nodes are mapped onto them at random."""

    __slots__ = ("_rng", "delays", "sites")

    def __init__(self, rtt_ms: list[list[float]], rng: Random) -> None:
        size = len(rtt_ms)
        if not size or any(len(row) != size for row in rtt_ms):
            raise ConfigError("a latency matrix is square and not empty")
        if not all(isfinite(value) for row in rtt_ms for value in row):
            raise ConfigError("a latency matrix has finite numbers only")
        self.delays = [[max(value, 0.0) / 2e3 for value in row] for row in rtt_ms]
        for i in range(size):
            self.delays[i][i] = LOCAL_S  # the diagonal of such files is a placeholder
        self._rng = rng
        self.sites: list[int] = []

    @classmethod
    def read(cls, path: Path, rng: Random) -> "Matrix":
        """Read a text file: N rows of N round-trip times in ms. Raises `ConfigError`."""
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(MATRIX_CHARS_MAX + 1)
            if len(text) > MATRIX_CHARS_MAX:
                raise ConfigError("it is too large")
            rows = [line.split() for line in text.splitlines() if line.strip()]
            return cls([[float(value) for value in row] for row in rows], rng)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is no latency matrix: it is not text") from None
        except (ValueError, ConfigError) as error:
            raise ConfigError(f"{path} is no latency matrix: {error}") from None

    def place(self) -> None:
        """Put the next node at one of the servers."""
        self.sites.append(self._rng.randrange(len(self.delays)))

    def delay_s(self, a: int, b: int) -> float:
        """Return half the round trip between the two nodes' servers."""
        return self.delays[self.sites[a]][self.sites[b]]


class Sphere:
    """Nodes evenly over a sphere; delay is the great-circle distance (Pastry 2001, sec. 4)."""

    __slots__ = ("_rng", "points")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.points = array("d")
        """x, y, z of one after the other: a hundred thousand tuples would lie all over the heap."""

    def place(self) -> None:
        """Pick a point of the surface, all equally likely."""
        z = 2 * self._rng.random() - 1
        angle = 2 * pi * self._rng.random()
        radius = sqrt(1 - z * z)
        self.points.extend((radius * cos(angle), radius * sin(angle), z))

    def delay_s(self, a: int, b: int) -> float:
        """Return the time along the great circle."""
        points, a, b = self.points, 3 * a, 3 * b
        dot = points[a] * points[b] + points[a + 1] * points[b + 1] + points[a + 2] * points[b + 2]
        if not -1.0 <= dot <= 1.0:  # rounding
            dot = 1.0 if dot > 0 else -1.0
        return LOCAL_S + acos(dot) * _S_PER_RADIAN


class Plane:
    """Nodes spread evenly over a square; delay is the distance (Pastry 2001's first network)."""

    __slots__ = ("_rng", "points")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.points: list[tuple[float, float]] = []

    def place(self) -> None:
        """Pick a point of the square."""
        self.points.append((self._rng.random(), self._rng.random()))

    def delay_s(self, a: int, b: int) -> float:
        """Return the time along the straight line."""
        (x, y), (u, v) = self.points[a], self.points[b]
        return LOCAL_S + sqrt((x - u) ** 2 + (y - v) ** 2) / sqrt(2) * PLANE_RTT_MAX_S / 2


class TransitStub:
    """Domains in domains (Zegura et al. 1996), as far as delays show it.

    Transit domains lie on a sphere; each has stub domains a few ms away, in which nodes are near
    each other.
    """

    __slots__ = ("_rng", "core", "homes", "stubs")

    def __init__(self, rng: Random, transit: int = 20, stubs_each: int = 30) -> None:
        self._rng = rng
        self.core = Sphere(rng)
        for _ in range(transit):
            self.core.place()
        self.stubs = [
            (number, 0.002 + 0.008 * rng.random())
            for number in range(transit)
            for _ in range(stubs_each)
        ]
        self.homes: list[tuple[int, float]] = []

    def place(self) -> None:
        """Put the next node into a stub domain, a local delay away from its router."""
        stub = self._rng.randrange(len(self.stubs))
        self.homes.append((stub, 0.0002 + 0.0008 * self._rng.random()))

    def delay_s(self, a: int, b: int) -> float:
        """Return the time up to the routers, across, and down."""
        (stub_a, local_a), (stub_b, local_b) = self.homes[a], self.homes[b]
        if stub_a == stub_b:
            return local_a + local_b
        transit_a, up = self.stubs[stub_a]
        transit_b, down = self.stubs[stub_b]
        across = 0.0 if transit_a == transit_b else self.core.delay_s(transit_a, transit_b)
        return local_a + up + across + down + local_b
