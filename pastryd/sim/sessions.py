"""Sessions: which node is up from when to when; drawn from a distribution, or read from a file.

Lengths are exponential or heavy-tailed; real ones are the latter, Weibull and log-normal fit them
(Stutzbach & Rejaie 2006). Arrivals are a Poisson process at the rate that holds the population, by
the hour of the day if it swings. Who is up at the beginning is in the middle of a session, and long
sessions are more likely to be met: those are drawn length-biased, so that nothing has to warm up.
"""

from cmath import exp as complex_exp
from cmath import phase
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import gamma, log, pi, sin, sqrt
from pathlib import Path
from random import Random
from typing import Protocol

from pastryd.errors import ConfigError

DAY_S = 86_400.0
SWING_DRAWS = 20_000
"""So many lengths tell how much of the arrivals' swing the population shows, to about 1 %."""
SHAPE_MIN, SHAPE_MAX = 0.1, 10.0
BISECTION_STEPS = 60


@dataclass(frozen=True, slots=True)
class Session:
    """One stay of a node: it starts (again) at `start_s` and dies, saying nothing, at `end_s`.

    Times are seconds from the beginning; who was up by then began at 0 or before.
    """

    node: int
    start_s: float
    end_s: float


class Lengths(Protocol):
    """A distribution of session lengths, in seconds."""

    @property
    def mean_s(self) -> float:
        """The mean."""

    def draw(self, rng: Random) -> float:
        """Return the length of a session that begins."""

    def draw_met(self, rng: Random) -> float:
        """Return the length of a session that is met under way: density x f(x) / mean."""


@dataclass(frozen=True, slots=True)
class Exponential:
    """No memory: f(x) = exp(-x / mean) / mean, median = mean ln 2."""

    mean_s: float

    @classmethod
    def of_median(cls, median_s: float) -> "Exponential":
        """Return the one with this median."""
        return cls(median_s / log(2))

    def draw(self, rng: Random) -> float:
        """Return the length of a session that begins."""
        return rng.expovariate(1 / self.mean_s)

    def draw_met(self, rng: Random) -> float:
        """Length-biased it is a gamma distribution of shape 2."""
        return rng.gammavariate(2, self.mean_s)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """exp of a normal variable: median = exp(mu), mean = median exp(sigma^2 / 2).

    Hence sigma^2 = 2 ln(mean / median).
    """

    mean_s: float
    median_s: float

    def draw(self, rng: Random) -> float:
        """Return the length of a session that begins."""
        return rng.lognormvariate(log(self.median_s), self._sigma)

    def draw_met(self, rng: Random) -> float:
        """Length-biased it is log-normal again, with mu + sigma^2."""
        return rng.lognormvariate(log(self.median_s) + self._sigma**2, self._sigma)

    @property
    def _sigma(self) -> float:
        return sqrt(2 * log(self.mean_s / self.median_s))


class Weibull:
    """P(X > x) = exp(-(x / scale)^shape); below a shape of 1 the tail is heavy.

    mean = scale Gamma(1 + 1/shape) and median = scale (ln 2)^(1/shape): the shape follows from
    their ratio, by bisection.
    """

    __slots__ = ("_scale_s", "mean_s", "median_s", "shape")

    def __init__(self, mean_s: float, median_s: float) -> None:
        self.mean_s = mean_s
        self.median_s = median_s
        low, high = SHAPE_MIN, SHAPE_MAX
        for _ in range(BISECTION_STEPS):
            shape = (low + high) / 2
            if gamma(1 + 1 / shape) / log(2) ** (1 / shape) > mean_s / median_s:
                low = shape
            else:
                high = shape
        self.shape = low
        self._scale_s = mean_s / gamma(1 + 1 / low)

    def draw(self, rng: Random) -> float:
        """Return the length of a session that begins."""
        return rng.weibullvariate(self._scale_s, self.shape)

    def draw_met(self, rng: Random) -> float:
        """Length-biased, (x / scale)^shape is a gamma variable of shape 1 + 1/shape."""
        power: float = rng.gammavariate(1 + 1 / self.shape, 1) ** (1 / self.shape)
        return self._scale_s * power


def steady(
    lengths: Lengths,
    size: int,
    duration_s: float,
    rng: Random,
    *,
    unique: int | None = None,
    swing: float = 0.0,
) -> list[Session]:
    """Return sessions, by start, that keep about `size` nodes up all the time.

    `unique`: so many nodes in all, of whom those that are away come back, any of them as likely;
    None: who goes never returns. `swing`: the population follows size (1 + swing sin(day)), which
    it can as long as the arrivals need not be negative.
    """
    met = [lengths.draw_met(rng) for _ in range(size)]
    begun = [-length * rng.random() for length in met]
    sessions = [
        Session(node, start, start + length)
        for node, (start, length) in enumerate(zip(begun, met, strict=True))
    ]
    up = [(session.end_s, session.node) for session in sessions]
    heapify(up)
    away = list(range(size, unique or 0))
    newcomer = size
    rate = size / lengths.mean_s
    amplitude, lag = _arrival_swing(lengths, swing, rng) if swing else (0.0, 0.0)
    now = 0.0
    while True:
        now += rng.expovariate(rate * (1 + amplitude))
        if now >= duration_s:
            return sorted(sessions, key=lambda session: session.start_s)
        accepted = 1 + amplitude * sin(2 * pi * now / DAY_S + lag)
        if rng.random() * (1 + amplitude) >= accepted:
            continue  # thinning (Lewis & Shedler 1979)
        if unique is None:
            node, newcomer = newcomer, newcomer + 1
        else:
            while up and up[0][0] <= now:
                away.append(heappop(up)[1])
            if not away:
                continue
            chosen = rng.randrange(len(away))
            away[chosen], away[-1] = away[-1], away[chosen]
            node = away.pop()
        end = now + lengths.draw(rng)
        heappush(up, (end, node))
        sessions.append(Session(node, now, end))


def _arrival_swing(lengths: Lengths, swing: float, rng: Random) -> tuple[float, float]:
    """Return by how much arrivals must swing for the population to swing so, and how far ahead.

    The population is the arrivals convolved with P(X > t), whose transform at the day's frequency w
    is (1 - E exp(-iwX)) / (iw); the first is at most 1.
    """
    w = 2 * pi / DAY_S
    drawn = [lengths.draw(rng) for _ in range(SWING_DRAWS)]
    transform = sum(1 - complex_exp(-1j * w * x) for x in drawn) / (1j * w * sum(drawn))
    return min(1.0, swing / abs(transform)), -phase(transform)


@dataclass(frozen=True, slots=True)
class Trace:
    """What was published of a measured trace (from memory of MSPastry 2004, sec. 5.1; to 10 %)."""

    active_min: int
    active_max: int
    unique: int
    mean_s: float
    median_s: float

    def sessions(self, size: int, duration_s: float, rng: Random) -> list[Session]:
        """Return log-normal sessions with its statistics, scaled to `size` nodes on the mean."""
        middle = (self.active_min + self.active_max) / 2
        return steady(
            LogNormal(self.mean_s, self.median_s),
            size,
            duration_s,
            rng,
            unique=round(self.unique * size / middle),
            swing=(self.active_max - self.active_min) / 2 / middle,
        )


HEAVY_TAIL = 2.3
"""Mean over median of Gnutella's sessions; an exponential distribution has 1.44."""

TRACES = {
    "gnutella": Trace(1_300, 2_700, 17_000, 2.3 * 3_600, 3_600),
    "overnet": Trace(260, 650, 1_468, 134 * 60, 79 * 60),
    # Its median was not published: Gnutella's tail.
    "microsoft": Trace(14_700, 15_600, 20_000, 37.7 * 3_600, 37.7 * 3_600 / HEAVY_TAIL),
}
"""Saroiu et al. 2002 (60 h), Bhagwan et al. 2003 (7 days), Bolosky et al. 2000 (37 days)."""

TRACE_CHARS_MAX = 1 << 26
"""Some two million sessions; a device or the wrong file must not be read for ever."""

DISTRIBUTIONS: dict[str, Callable[[float], Lengths]] = {
    "exponential": Exponential.of_median,
    "log-normal": lambda median_s: LogNormal(HEAVY_TAIL * median_s, median_s),
    "weibull": lambda median_s: Weibull(HEAVY_TAIL * median_s, median_s),
}
"""By name: the distribution with a given median, in seconds."""


def read_trace(path: Path) -> list[Session]:
    """Read a file of lines `node start_s end_s`, in any order; return its sessions by start.

    A node is any word. Raises `ConfigError` with the line that is wrong: not three fields, times
    that are no numbers or not ascending, a node that starts while it is up.
    """
    numbers: dict[str, int] = {}
    found: list[tuple[Session, int]] = []
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(TRACE_CHARS_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        names = ", ".join((*TRACES, *DISTRIBUTIONS))
        raise ConfigError(
            f"{path} cannot be read: {reason}; give a file of sessions or one of {names}"
        ) from None
    if len(text) > TRACE_CHARS_MAX:
        raise ConfigError(f"{path} is no file of sessions: it is too large")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            name, start, end = line.split()
            session = Session(numbers.setdefault(name, len(numbers)), float(start), float(end))
        except ValueError:
            raise _bad_line(path, number, f"want 'node start_s end_s', not {line[:80]!r}") from None
        if not 0 <= session.start_s < session.end_s < float("inf"):
            raise _bad_line(path, number, "want 0 <= start_s < end_s")
        found.append((session, number))
    if not found:
        raise ConfigError(f"{path} has no sessions: want lines 'node start_s end_s'")
    found.sort(key=lambda pair: pair[0].start_s)
    until: dict[int, float] = {}
    for session, number in found:
        if session.start_s < until.get(session.node, 0.0):
            raise _bad_line(path, number, "this node is up already at that time")
        until[session.node] = session.end_s
    return [session for session, _ in found]


def _bad_line(path: Path, number: int, text: str) -> ConfigError:
    return ConfigError(f"{path}, line {number}: {text}")
