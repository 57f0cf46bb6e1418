"""A few `Transfer`s joined by a link that loses, repeats, delays and reorders, in virtual time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heappop, heappush
from random import Random

from pastryd.config import Config
from pastryd.ids import Name
from pastryd.protocol.context import DATAGRAM_OVERHEAD_BYTES, NOBODY, Context
from pastryd.protocol.pull_state import PullResult
from pastryd.protocol.segment_server import Then
from pastryd.protocol.transfer import Transfer
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import (
    Absent,
    Hello,
    Message,
    PathProbe,
    PathReply,
    Pull,
    Segment,
    Welcome,
)


def name_of(value: bytes) -> Name:
    """Return the name of an object."""
    return Name(sha256(value).digest())


@dataclass
class Faults:
    """What the link does to every datagram."""

    delay_s: float = 0.001
    jitter_s: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0
    bytes_per_s: float = 0.0
    """0: without limit. Per sender."""
    queue_bytes: float = 1e9
    datagram_bytes_max: float = 1e9
    """What is longer vanishes, as with DF set."""
    trains: bool = False
    """What arrives at one moment from one sender is taken in together, as with UDP_GRO."""


@dataclass(eq=False)
class Station:
    """One node: its machine, what it holds, and what is wrong with it."""

    context: Context
    transfer: Transfer
    items: dict[Name, bytes] = field(default_factory=dict)
    read_delay_s: float = 0.0
    alive: bool = True
    tamper: Callable[[Message], Message | None] = lambda message: message
    """Changes (None: swallows) what this node sends."""
    extra_delay_s: float = 0.0
    busy_until: float = 0.0
    sent: list[Message] = field(default_factory=list)


class Link:
    """All stations, one virtual clock."""

    def __init__(
        self,
        stations: int = 2,
        faults: Faults | None = None,
        seed: int = 0,
        config: Config | None = None,
        proven: bool = True,
    ) -> None:
        self.now = 100.0
        self.faults = faults or Faults()
        self.rng = Random(seed)
        self.config = config or Config.lan()
        self.proven = proven
        self.stations = [self._station(i) for i in range(stations)]
        self._by_id = {s.context.identity.id: s for s in self.stations}
        self._flying: list[tuple[float, int, Station, Station, bytes]] = []
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self.outstanding_most = 0
        self.checked = True
        """False for benchmarks: the checks cost far more than the steps."""

    def _station(self, number: int) -> Station:
        identity = Handle(bytes([number + 1]) * 32, "10.0.0.1", 4160 + number, 1)
        context = Context(identity, self.config, Random(number))
        station: Station

        def read(name: Name, offset: int, length: int, then: Then, now: float) -> None:
            value = station.items.get(name)
            data = None if value is None else memoryview(value)[offset : offset + length]
            size = 0 if value is None else len(value)
            if station.read_delay_s:
                context.deadlines.arm(now + station.read_delay_s, then, data, size)
            else:
                then(data, size, now)

        transfer = Transfer(context, read, lambda name, value: name_of(bytes(value)) == name)
        station = Station(context, transfer)
        return station

    def peer(self, at: int, of: int) -> Peer:
        """Return what station `at` believes of station `of`."""
        peer = self.stations[at].context.peers.of(self.stations[of].context.identity)
        if self.proven:
            peer.unproven = None
        return peer

    def hold(self, value: bytes, *stations: int) -> Name:
        """Store a value at some stations."""
        name = name_of(value)
        for number in stations:
            self.stations[number].items[name] = value
        return name

    def pull(
        self,
        name: Name,
        holders: list[int],
        size: int | None = None,
        background: bool = False,
        deadline_s: float | None = None,
        at: int = 0,
    ) -> list[PullResult]:
        """Start a pull at a station; its result is appended to the returned list."""
        results: list[PullResult] = []
        peers = [self.peer(at, number) for number in holders]
        self.stations[at].transfer.pull(
            name,
            size,
            peers,
            lambda result, _: results.append(result),
            self.now,
            background=background,
            deadline_s=deadline_s,
        )
        self.flush()
        return results

    def flush(self) -> None:
        """Put what all stations want sent on the link, and check them."""
        for station in self.stations:
            outbox = station.context.outbox
            for data, destination in outbox.datagrams:
                assert isinstance(destination, Handle)
                self._send(station, self._by_id[destination.id], data)
            outbox.datagrams.clear()
            if self.checked:
                station.transfer.check_invariants()
        most = self.stations[0].transfer.outstanding_bytes
        self.outstanding_most = max(self.outstanding_most, most)

    def _send(self, source: Station, target: Station, data: bytes) -> None:
        message = source.tamper(decode(data))
        if message is None or not source.alive:
            return
        source.sent.append(message)
        data = encode(message)
        faults = self.faults
        if len(data) + DATAGRAM_OVERHEAD_BYTES > faults.datagram_bytes_max:
            return
        leaves = self._leave(source, len(data))
        if leaves is None:
            return
        for _ in range(1 + (self.rng.random() < faults.duplication)):
            arrives = self._arrive(source, leaves)
            if arrives is not None:
                self._sequence += 1
                heappush(self._flying, (arrives, self._sequence, source, target, data))

    def _leave(self, source: Station, size: int) -> float | None:
        """Return when a datagram has left its sender's queue; None: there was no room in it."""
        faults = self.faults
        if not faults.bytes_per_s:
            return self.now
        if (source.busy_until - self.now) * faults.bytes_per_s > faults.queue_bytes:
            return None
        source.busy_until = max(self.now, source.busy_until) + size / faults.bytes_per_s
        return source.busy_until

    def _arrive(self, source: Station, leaves: float) -> float | None:
        """Return when it arrives; None: it is lost on the way."""
        faults = self.faults
        if self.rng.random() < faults.loss:
            return None
        jitter_s = self.rng.random() * faults.jitter_s
        return leaves + faults.delay_s + jitter_s + source.extra_delay_s

    def carry(self, source: Station, size: int) -> float | None:
        """Let something foreign use the link out of a station; return when it arrives, if so."""
        leaves = self._leave(source, size)
        return None if leaves is None else self._arrive(source, leaves)

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Call something of the foreign flow's later."""
        self._sequence += 1
        heappush(self._calls, (when, self._sequence, call))

    def next_event(self) -> float | None:
        """Return when something happens next."""
        times = [s.context.deadlines.next_deadline() for s in self.stations if s.alive]
        times += [queue[0][0] for queue in (self._flying, self._calls) if queue]
        return min((t for t in times if t is not None), default=None)

    def step(self) -> bool:
        """Let the next thing happen; False when nothing is left."""
        at = self.next_event()
        if at is None:
            return False
        self.now = max(self.now, at)
        if self._calls and self._calls[0][0] <= self.now:
            heappop(self._calls)[2]()
        elif self._flying and self._flying[0][0] <= self.now:
            _, _, source, target, data = heappop(self._flying)
            train = [data]
            while self.faults.trains and self._flying and len(train) < 54:
                at, _, *ends, data = self._flying[0]
                if at > self.now or ends != [source, target]:
                    break
                heappop(self._flying)
                train.append(data)
            if target.alive:
                self._receive_train(target, source, train)
        else:
            for station in self.stations:
                if station.alive:
                    station.context.deadlines.run_due(self.now)
        self.flush()
        return True

    def _receive_train(self, station: Station, source: Station, train: list[bytes]) -> None:
        rest: Sequence[bytes] = train
        if len(train) > 1:
            peer = station.context.heard(source.context.identity, 0, self.now)
            rest = station.transfer.take_segments(train, peer, self.now)
        for data in rest:
            self._receive(station, source, data)

    def _receive(self, station: Station, source: Station, data: bytes) -> None:
        context, transfer = station.context, station.transfer
        peer = context.heard(source.context.identity, len(data), self.now)
        if self.proven:
            peer.unproven = None
        match decode(data):
            case Pull() as message:
                transfer.on_pull(message, peer, self.now)
            case Segment() as message:
                transfer.on_segment(message, peer, self.now)
            case Absent() as message:
                transfer.on_absent(message, peer, self.now)
            case PathProbe() as message:
                transfer.prober.on_probe(message, peer, self.now)
            case PathReply() as message:
                transfer.prober.on_reply(message, peer, self.now)
            case Hello() as message:
                context.on_hello(message, source.context.identity, True, NOBODY, self.now)
            case Welcome() as message:
                context.on_welcome(message, peer, self.now)
            case other:
                raise AssertionError(other)

    def run(self, results: list[PullResult], for_s: float = 60.0) -> float:
        """Run until a result is there; return how long that took."""
        start = self.now
        while not results and self.now - start < for_s and self.step():
            pass
        return self.now - start

    def run_for(self, seconds: float) -> None:
        """Run for a while."""
        end = self.now + seconds
        while (at := self.next_event()) is not None and at <= end:
            self.step()
        self.now = end

    def count(self, name: str, station: int = 0) -> int:
        """Return a counter of a station."""
        return self.stations[station].context.stats.counters.get(name, 0)
