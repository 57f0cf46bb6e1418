"""Nodes come and go while lookups are made: how many of those are lost, and what upkeep costs.

As MSPastry's experiments (Castro, Costa, Rowstron 2004, sec. 5): sessions say who is up, whoever
goes dies without a word, who returns has its identity and a new incarnation, each node looks up
random keys at a steady rate. Owns the oracle that judges a lookup; every word here that a table
uses (lost, wrong, control message) is defined in `docs/simulation.md`.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from pastryd.errors import ConfigError
from pastryd.ids import NodeId, Position, rank
from pastryd.protocol.application import Application
from pastryd.sim.conditions import DELIVERED_WITHIN_S, Conditions
from pastryd.sim.direct import DirectRing, endpoint_of, settled_world
from pastryd.sim.sessions import Session
from pastryd.sim.world import EPOCH_S, SimNode
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import SPECIFICATIONS, decode
from pastryd.wire.messages import Route

SEEDS = 3
"""A node that starts knows so many that are in the ring."""
STUCK_S = 120.0
SAMPLED_S = 60.0
ROUTE_TAG = next(tag for tag, (kind, _) in SPECIFICATIONS.items() if kind is Route)


@dataclass(slots=True)
class Lookup:
    """One lookup, until it is judged."""

    number: int
    key: Position
    origin: SimNode
    begun_at: float
    delivered: bool = False
    wrong: bool = False
    steps: set[tuple[int, int]] = field(default_factory=set)
    """Who has sent it on (place, hop number)."""
    hops: dict[Endpoint, int] = field(default_factory=dict)
    """The hop number with which it was sent to each."""


@dataclass(slots=True)
class Outcome:
    """What was counted while it was measured."""

    lookups: int = 0
    """Those that were delivered, or whose origin lived long enough to miss the delivery."""
    orphaned: int = 0
    """Those of origins that died first; they count nowhere else."""
    lost: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    delivered: int = 0
    hops: int = 0
    delay_s: float = 0.0
    direct_s: float = 0.0
    control: Counter[str] = field(default_factory=Counter)
    """Control messages by type."""
    node_seconds: float = 0.0
    arrivals: int = 0
    departures: int = 0
    stuck: int = 0
    """The most nodes that at one time had been up for `STUCK_S` without having joined."""

    @property
    def control_per_s(self) -> float:
        """Control messages per second and node."""
        return _ratio(self.control.total(), self.node_seconds)

    @property
    def stretch(self) -> float:
        """Delay of the lookups, timeouts included, over the direct delay to where they ended."""
        return _ratio(self.delay_s, self.direct_s)

    @property
    def mean_hops(self) -> float:
        """Hops of the delivered lookups."""
        return _ratio(self.hops, self.delivered)

    def lines(self) -> list[str]:
        """Return all of it for a terminal."""
        rates = [
            f"  {kind} {count / self.node_seconds:.4f}"
            for kind, count in self.control.most_common()
        ]
        return [
            f"{self.node_seconds / 3600:.0f} node-hours, {self.arrivals} arrivals, "
            f"{self.departures} deaths; at most {self.stuck} at a time had not joined after "
            f"{STUCK_S:g} s",
            f"{self.lookups} lookup{'s' * (self.lookups != 1)}, "
            f"{self.orphaned} more of origins that died; "
            f"{self.mean_hops:.2f} hops, stretch {self.stretch:.2f}",
            f"{len(self.lost)} lost {self.lost}, {len(self.wrong)} delivered wrongly {self.wrong}",
            f"{self.control_per_s:.4f} control messages per second and node:",
            *rates,
        ]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


class _Lookups(Application):
    """The application at one node that lookups end at."""

    name = "lookup"

    def __init__(self, node: SimNode, churn: "Churn") -> None:
        self._node = node
        self._churn = churn

    def deliver(
        self, key: Position, payload: bytes, source: Handle, trail: Sequence[object], now: float
    ) -> None:
        """Tell the oracle."""
        self._churn.delivered(self._node, int.from_bytes(payload, "big"))


class Churn:
    """One run."""

    def __init__(self, conditions: Conditions) -> None:
        """Raises `ConfigError` for sessions that cannot be run."""
        self._conditions = conditions
        self._rng = Random(conditions.seed + 1)
        self.outcome = Outcome()
        self._identities: dict[int, tuple[bytes, Endpoint]] = {}
        self._running: dict[NodeId, SimNode] = {}
        self._ids: list[NodeId] = []
        self._open: dict[int, Lookup] = {}
        self._issued = 0
        self._measuring = False
        self._counts: Counter[int] = Counter()
        self._seconds_at = 0.0
        self._followed = 0
        self._write: Callable[[str], None]
        sessions = conditions.draw_sessions()
        first = [session for session in sessions if session.start_s <= 0]
        if not first:
            raise ConfigError("nobody is up at the beginning: let a session start at 0")
        seed, config = conditions.seed, conditions.config
        ring = DirectRing(len(first), seed, config, conditions.latency())
        self.world = world = settled_world(ring, seed, conditions.latency())
        world.links.loss = conditions.loss
        world.on_datagram = self._sent
        for session, node in zip(first, list(world.nodes), strict=True):
            self._identities[session.node] = (node.core.identity.public_key, node.endpoint)
            self._enter(node, session)
        for session in sessions[len(first) :]:
            world.at(EPOCH_S + session.start_s, self._start, session)

    def follow(self, number: int, write: Callable[[str], None]) -> None:
        """Write down, a line each, what becomes of one lookup."""
        self._followed, self._write = number, write

    def run(self) -> Outcome:
        """Run it to its end and return what was measured."""
        conditions, world = self._conditions, self.world
        world.run(conditions.settling_s)
        self._measuring = True
        self._seconds_at = world.now
        self._look_up(world.now + conditions.measured_s)
        self._sample()
        world.run(conditions.measured_s)
        self._tally()
        self._measuring = False
        world.run(DELIVERED_WITHIN_S)
        self._judge(float("inf"))
        self.outcome.control = Counter(
            {SPECIFICATIONS[tag][0].__name__: count for tag, count in self._counts.items()}
        )
        return self.outcome

    # -- who is up --

    def _start(self, session: Session) -> None:
        world = self.world
        self._tally()
        identity = self._identities.get(session.node)
        if identity is None:
            endpoint = endpoint_of(len(self._identities))
            identity = (self._rng.randbytes(32), endpoint)
            self._identities[session.node] = identity
        key, endpoint = identity
        before = self.world.by_endpoint.get(endpoint)
        if before is not None:
            self._end(before)  # at this very moment
        active = [node for node in self._running.values() if node.core.active]
        seeds = self._rng.sample(active, min(SEEDS, len(active)))
        node = world.add(seeds, public_key=key, endpoint=endpoint)
        self.outcome.arrivals += self._measuring
        self._enter(node, session)

    def _enter(self, node: SimNode, session: Session) -> None:
        node.core.register(_Lookups(node, self))
        self._running[node.id] = node
        insort(self._ids, node.id)
        self.world.at(EPOCH_S + session.end_s, self._end, node)

    def _end(self, node: SimNode) -> None:
        if not node.running:
            return
        self._tally()
        self.world.crash(node)
        self.world.forget(node)
        del self._running[node.id]
        del self._ids[bisect_left(self._ids, node.id)]
        self.outcome.departures += self._measuring
        followed = self._open.get(self._followed)
        place = self.world.place_of(node.endpoint)
        if followed is not None and any(place == sender for sender, _ in followed.steps):
            self._note(f"place {place} dies")

    def _sample(self) -> None:
        if not self._measuring:
            return
        now = self.world.now
        waiting = [node for node in self._running.values() if not node.core.active]
        stuck = sum(node.started_at + STUCK_S <= now for node in waiting)
        self.outcome.stuck = max(self.outcome.stuck, stuck)
        self.world.at(now + SAMPLED_S, self._sample)

    def _root_of(self, key: Position) -> NodeId | None:
        """Return the active node closest to a key."""
        ids, running = self._ids, self._running
        size = len(ids)
        at = bisect_left(ids, key)
        ahead = next((i for i in range(size) if running[ids[(at + i) % size]].core.active), None)
        if ahead is None:
            return None
        back = next(i for i in range(1, size + 1) if running[ids[(at - i) % size]].core.active)
        return min(ids[(at + ahead) % size], ids[(at - back) % size], key=lambda i: rank(key, i))

    # -- lookups --

    def _look_up(self, until: float) -> None:
        """Begin a lookup now, at a random node that is in the ring; come back for the next."""
        world, rng = self.world, self._rng
        rate = self._conditions.lookups_per_s * max(1, len(self._ids))
        following = world.now + rng.expovariate(rate)
        if following < until:
            world.at(following, self._look_up, until)
        self._judge(world.now - DELIVERED_WITHIN_S)
        if not self._ids:
            return
        origin = self._running[rng.choice(self._ids)]
        if not origin.core.active:
            return
        key = Position(rng.getrandbits(128))
        self._issued = number = self._issued + 1
        self._open[number] = Lookup(number, key, origin, world.now)
        if number == self._followed:
            self._note(f"lookup of {key:032x} at {origin.id:032x}")
        world.step(
            origin,
            lambda: origin.core.route(
                key, number.to_bytes(8, "big"), _Lookups.name, origin.local(world.now)
            ),
        )

    def delivered(self, node: SimNode, number: int) -> None:
        """A lookup has ended at a node: is it the right one?"""
        lookup = self._open.get(number)
        if lookup is None:
            return
        right = self._root_of(lookup.key) == node.id
        if number == self._followed:
            self._note(f"delivered at {node.id:032x}: {'right' if right else 'wrong'}")
        lookup.wrong |= not right
        if lookup.delivered:
            return
        lookup.delivered = True
        outcome, world = self.outcome, self.world
        outcome.delivered += 1
        if node is not lookup.origin:
            outcome.hops += lookup.hops[node.endpoint]
            outcome.delay_s += world.now - lookup.begun_at
            ends = (world.place_of(lookup.origin.endpoint), world.place_of(node.endpoint))
            outcome.direct_s += world.links.latency.delay_s(*ends)

    def _judge(self, begun_before: float) -> None:
        """Close the lookups that have had their time."""
        outcome = self.outcome
        while self._open:
            number, lookup = next(iter(self._open.items()))
            if lookup.begun_at >= begun_before:
                return
            del self._open[number]
            if not lookup.delivered and not lookup.origin.running:
                outcome.orphaned += 1
                continue
            outcome.lookups += 1
            if not lookup.delivered:
                outcome.lost.append(number)
            if lookup.wrong:
                outcome.wrong.append(number)

    # -- messages --

    def _sent(self, place: int, endpoint: Endpoint, data: bytes) -> None:
        if self._measuring:
            self._counts[data[1]] += 1
        if data[1] != ROUTE_TAG:
            return
        message = decode(data)
        assert type(message) is Route
        if message.application != _Lookups.name:
            return
        number = int.from_bytes(message.payload, "big")
        lookup = self._open.get(number)
        if lookup is None:
            return
        step = (place, message.hops)
        if step not in lookup.steps:
            lookup.steps.add(step)
            if self._measuring:
                self._counts[ROUTE_TAG] -= 1  # the lookup itself; only its repetition is upkeep
        lookup.hops[endpoint] = message.hops
        if number == self._followed:
            to = self.world.by_endpoint.get(endpoint)
            state = "dead" if to is None else "active" if to.core.active else "joining"
            where = self.world.place_of(endpoint)
            self._note(f"place {place} -> {where} ({state}) hop {message.hops}")

    def _tally(self) -> None:
        """Add up node-seconds, before the number of nodes changes."""
        if self._measuring:
            now = self.world.now
            self.outcome.node_seconds += len(self._ids) * (now - self._seconds_at)
            self._seconds_at = now

    def _note(self, text: str) -> None:
        self._write(f"{self.world.now:12.6f} {text}")
