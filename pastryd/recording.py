"""Recordings: what a node was made from and told, in order, so that it can be made and told again.

The core does nothing that does not follow from its inputs and its seed, hence a recording replays
one node of a ring (`pastryd sim replay`). It is a stream of msgpack arrays: first the header, then
the names that the store held, then each input before the node takes it, and after it a hash over
all outputs so far if there were new ones. No key that seals anything is in it; contents of items
are, as they came and went. Owns the format; files are `net/record_file.py`'s business.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from hashlib import blake2b
from random import Random

import msgpack

from pastryd.config import Config
from pastryd.errors import ConfigError
from pastryd.ids import Name
from pastryd.node import PastryNode
from pastryd.protocol.outbox import Logged, Outbox, ReadDone, ReadItem, StoreReply, WriteItem
from pastryd.state.handle import Endpoint, Handle
from pastryd.stats import Stats

MAGIC = "pastryd-recording"
FORMAT = 1
NAMES_PER_RECORD = 8192
PEERS_MAX = 65_536
"""Senders that have a number at a time; then they are numbered anew."""
RECORD_BYTES_MAX = 4 << 20
"""Of one record: an item that was read is in it whole."""
DIGEST_BYTES = 8


class Tag(IntEnum):
    """What a record is. Its fields follow, `now` first where time matters."""

    NAMES = 0  # names, joined
    PEER = 1  # public key, host, port, incarnation; peers are numbered as they come
    PEERS_FORGOTTEN = 2
    COUNTED = 3  # counter -> by how much, counted outside the core
    DATAGRAM = 4  # now, number of the sender, bytes
    HELLO = 5  # the same
    TIMER = 6  # now
    READ = 7  # now, ticket, bytes or nil, size
    WRITTEN = 8  # now, ticket, status
    STALL = 9  # now, lag_s
    START = 10  # now, seeds, alone_after_s or nil
    SEEDS = 11  # seeds
    FORGET = 12  # now, name
    LEAVE = 13  # now
    OUTPUTS = 14  # hash over all outputs so far
    TWIN = 15  # as DATAGRAM, sealed by another holder of the node's own key


class OutputHash:
    """A hash over what a node wanted done: each datagram and to whom, store requests, events."""

    __slots__ = ("_hash", "datagrams")

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self.datagrams = 0

    def take(self, outbox: Outbox, seen: tuple[int, int, int]) -> bool:
        """Take what the outbox holds beyond the first so many of each kind; False: nothing."""
        datagrams, store, events = (
            outbox.datagrams[seen[0] :],
            outbox.store[seen[1] :],
            outbox.events[seen[2] :],
        )
        update = self._hash.update
        for data, destination in datagrams:
            update(f"datagram {len(data)} {destination}".encode())
            update(data)
        for request in store:
            update(f"{type(request).__name__} {request.ticket} {request.name.hex()}".encode())
            if type(request) is ReadItem:
                update(f" {request.offset} {request.length}".encode())
            elif type(request) is WriteItem:
                update(request.value)
        for event in events:
            if type(event) is Logged:
                update(f"{event.event} {event.fields}".encode())
        self.datagrams += len(datagrams)
        return bool(datagrams or store or events)

    def digest(self) -> bytes:
        """Return the hash so far."""
        return self._hash.digest()


def seen_of(outbox: Outbox) -> tuple[int, int, int]:
    """Return how many effects of each kind an outbox holds."""
    return len(outbox.datagrams), len(outbox.store), len(outbox.events)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a node is made from, apart from the names that its store holds."""

    identity: Handle
    config: Config
    seed: bytes
    """Of its random numbers."""
    bytes_held: int
    began: float
    """When, in Unix time."""
    clock: float
    """What the driver's clock showed then."""

    @property
    def rng(self) -> Random:
        """The node's source of chance."""
        return Random(int.from_bytes(self.seed, "big"))

    def encode(self) -> bytes:
        """Return the header."""
        who = self.identity
        handle = [who.public_key, who.host, who.port, who.incarnation]
        rest = [self.seed, self.bytes_held, self.began, self.clock]
        packed: bytes = msgpack.packb([MAGIC, FORMAT, handle, asdict(self.config), *rest])
        return packed

    @classmethod
    def decode(cls, record: object) -> "Origin":
        """Parse a header; raises `ConfigError`, half a line."""
        if not isinstance(record, list) or len(record) < 2 or record[0] != MAGIC:
            raise ConfigError("is not a recording of `pastryd start --record`")
        if record[1] != FORMAT:
            raise ConfigError(f"has format {record[1]!r}; this pastryd reads format {FORMAT}")
        try:
            _, _, handle, config, *rest = record
            origin = cls(Handle(*handle), _config_of(config), *rest)
            origin.rng.random()
        except (ValueError, TypeError) as error:
            raise ConfigError("has a damaged header") from error
        return origin


def _config_of(values: Mapping[str, int | float]) -> Config:
    known = {f.name for f in fields(Config)}
    if other := sorted(known.symmetric_difference(values)):
        raise ConfigError(f"was made by a pastryd with other parameters ({other[0]})")
    return Config(**values)  # type: ignore[arg-type]


class RecordedNode(PastryNode):
    """A node that writes down what it is told, before it takes it, and a hash of what it does.

    Commands that applications beside ours give (`route`, `send`) are not written down.
    """

    def __init__(
        self,
        origin: Origin,
        names: Iterable[Name],
        write: Callable[[bytes], object],
        counted: Stats,
    ) -> None:
        """`write` takes records. `counted`: counts of the driver, moved to the node's own."""
        self._pack = msgpack.Packer().pack
        self._write = write
        self._counted = counted
        self._outputs = OutputHash()
        self._seen = (0, 0, 0)
        self._numbers: dict[Handle, int] = {}
        held = list(names)
        write(origin.encode())
        for begin in range(0, len(held), NAMES_PER_RECORD):
            self._note(Tag.NAMES, b"".join(held[begin : begin + NAMES_PER_RECORD]))
        super().__init__(origin.identity, origin.config, origin.rng, held, origin.bytes_held)

    def _note(self, tag: Tag, *what: object) -> None:
        self._write(self._pack([tag, *what]))

    def _begin(self, tag: Tag, *what: object) -> None:
        """Note an input that is about to be taken."""
        counters = self._counted.counters
        if counters:
            # What the driver counts shows in the status document, which is an output.
            self._note(Tag.COUNTED, counters)
            for name, by in counters.items():
                self.stats.count(name, by)
            counters.clear()
        self._note(tag, *what)
        self._seen = seen_of(self.outbox)

    def _end(self) -> None:
        """Note what came of it."""
        if self._outputs.take(self.outbox, self._seen):
            self._note(Tag.OUTPUTS, self._outputs.digest())

    def _number_of(self, sender: Handle) -> int:
        numbers = self._numbers
        number = numbers.get(sender)
        if number is None:
            if len(numbers) >= PEERS_MAX:
                numbers.clear()
                self._note(Tag.PEERS_FORGOTTEN)
            numbers[sender] = number = len(numbers)
            key, host, port = sender.public_key, sender.host, sender.port
            self._note(Tag.PEER, key, host, port, sender.incarnation)
        return number

    # -- inputs --

    def start(
        self, seeds: Sequence[Endpoint], now: float, alone_after_s: float | None = None
    ) -> None:
        """As `PastryNode.start`."""
        self._begin(Tag.START, now, seeds, alone_after_s)
        super().start(seeds, now, alone_after_s)
        self._end()

    def add_seeds(self, seeds: Sequence[Endpoint]) -> None:
        """As `PastryNode.add_seeds`."""
        self._begin(Tag.SEEDS, seeds)
        super().add_seeds(seeds)
        self._end()

    def receive_datagram(self, data: bytes, sender: Handle, now: float) -> None:
        """As `PastryNode.receive_datagram`."""
        self._begin(Tag.DATAGRAM, now, self._number_of(sender), data)
        super().receive_datagram(data, sender, now)
        self._end()

    def receive_train(self, train: Sequence[bytes], sender: Handle, now: float) -> None:
        """As `PastryNode.receive_train`, but one by one, which is how a replay gives them."""
        for data in train:
            self.receive_datagram(data, sender, now)

    def receive_hello(self, data: bytes, sender: Handle, now: float) -> None:
        """As `PastryNode.receive_hello`."""
        self._begin(Tag.HELLO, now, self._number_of(sender), data)
        super().receive_hello(data, sender, now)
        self._end()

    def receive_twin(self, data: bytes, sender: Handle, now: float) -> None:
        """As `PastryNode.receive_twin`."""
        self._begin(Tag.TWIN, now, self._number_of(sender), data)
        super().receive_twin(data, sender, now)
        self._end()

    def handle_timer(self, now: float) -> None:
        """As `PastryNode.handle_timer`."""
        self._begin(Tag.TIMER, now)
        super().handle_timer(now)
        self._end()

    def store_completed(self, reply: StoreReply, now: float) -> None:
        """As `PastryNode.store_completed`."""
        if isinstance(reply, ReadDone):
            self._begin(Tag.READ, now, reply.ticket, reply.data, reply.size)
        else:
            self._begin(Tag.WRITTEN, now, reply.ticket, reply.status)
        super().store_completed(reply, now)
        self._end()

    def report_stall(self, lag_s: float, now: float) -> None:
        """As `PastryNode.report_stall`."""
        self._begin(Tag.STALL, now, lag_s)
        super().report_stall(lag_s, now)
        self._end()

    def forget(self, name: Name, now: float) -> None:
        """As `PastryNode.forget`."""
        self._begin(Tag.FORGET, now, name)
        super().forget(name, now)
        self._end()

    def leave(self, now: float, then: Callable[[float], None] = lambda now: None) -> None:
        """As `PastryNode.leave`."""
        self._begin(Tag.LEAVE, now)
        super().leave(now, then)
        self._end()
