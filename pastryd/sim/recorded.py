"""Reads a recording (`pastryd/recording.py`): what the node was made from, then what it was told.

Owns what may be wrong with such a file; what becomes of the inputs is `replay.py`'s business.
"""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import msgpack

from pastryd.errors import PastryError
from pastryd.ids import NAME_BYTES, Name
from pastryd.node import PastryNode
from pastryd.protocol.outbox import ReadDone, WriteDone, WriteStatus
from pastryd.recording import RECORD_BYTES_MAX, Origin, Tag
from pastryd.state.handle import Endpoint, Handle

Step = Callable[[PastryNode], object]


class DamagedError(PastryError):
    """Bytes in the midst of a recording that are no record."""


class Input(NamedTuple):
    """Something that a recorded node was told."""

    tag: Tag
    now: float
    sender: Handle | None
    data: bytes
    """The datagram, if it is one."""
    give: Step
    """Tells it to a node."""


class Recording:
    """A recording, read once from its beginning: whatever whole records there are."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header; raises `ConfigError`, a line without its subject."""
        self._unpacker = msgpack.Unpacker(
            file, max_buffer_size=RECORD_BYTES_MAX, strict_map_key=False
        )
        self._peers: list[Handle] = []
        self.whole_bytes = 0
        """How many bytes the records have that were read so far."""
        try:
            header = self._next()
        except DamagedError:
            header = None
        self.origin = Origin.decode(header)
        self._now = self.origin.clock
        self._ahead = self._next()

    def names(self) -> Iterator[Name]:
        """Yield the names that the store held; read them before the inputs."""
        while self._ahead is not None and self._ahead[0] == Tag.NAMES:
            joined = self._ahead[1]
            for begin in range(0, len(joined), NAME_BYTES):
                yield Name(joined[begin : begin + NAME_BYTES])
            self._ahead = self._next()

    def inputs(self) -> Iterator[Input | bytes]:
        """Yield each input, and after it the hash over all outputs so far, if it had any.

        Raises `DamagedError`, a line without its subject.
        """
        while (record := self._ahead) is not None:
            try:
                found = self._parse(record)
            except (ValueError, TypeError, IndexError, AttributeError) as error:
                raise self._damaged() from error
            if found is not None:
                yield found
            self._ahead = self._next()

    def _damaged(self) -> DamagedError:
        return DamagedError(f"is damaged after byte {self.whole_bytes}")

    def _next(self) -> list[Any] | None:
        """Return the next record; None: no whole one follows."""
        try:
            record = self._unpacker.unpack()
        except msgpack.OutOfData:
            return None
        except (ValueError, msgpack.UnpackException) as error:
            raise self._damaged() from error
        if type(record) is not list or not record:
            raise self._damaged()
        self.whole_bytes = self._unpacker.tell()
        return record

    def _parse(self, record: list[Any]) -> Input | bytes | None:
        """Return what a record says; ValueError if it says nothing that we know."""
        match record:
            case [Tag.DATAGRAM | Tag.HELLO | Tag.TWIN as tag, float(now), int(number), bytes(data)]:
                return self._datagram(Tag(tag), now, self._peers[number], data)
            case [Tag.OUTPUTS, bytes(digest)]:
                return digest
            case [Tag.PEER, bytes(key), str(host), int(port), int(incarnation)]:
                self._peers.append(Handle(key, host, port, incarnation))
                return None
            case [Tag.PEERS_FORGOTTEN]:
                self._peers.clear()
                return None
            case [Tag.COUNTED, dict(counts)]:
                return self._input(Tag.COUNTED, self._now, lambda node: _count(node, counts))
            case [Tag.SEEDS, list(seeds)]:
                told = _endpoints(seeds)
                return self._input(Tag.SEEDS, self._now, lambda node: node.add_seeds(told))
            case [tag, float(now), *rest]:
                return self._input(Tag(tag), now, _step(Tag(tag), now, rest))
        raise ValueError

    def _datagram(self, tag: Tag, now: float, sender: Handle, data: bytes) -> Input:
        self._now = now
        if tag is Tag.HELLO:
            return Input(tag, now, sender, data, lambda node: node.receive_hello(data, sender, now))
        if tag is Tag.TWIN:
            return Input(tag, now, sender, data, lambda node: node.receive_twin(data, sender, now))
        return Input(tag, now, sender, data, lambda node: node.receive_datagram(data, sender, now))

    def _input(self, tag: Tag, now: float, give: Step) -> Input:
        self._now = now
        return Input(tag, now, None, b"", give)


def _step(tag: Tag, now: float, rest: list[Any]) -> Step:
    """Return how a node is told what is no datagram; ValueError if it says nothing we know."""
    match tag, rest:
        case Tag.TIMER, []:
            return lambda node: node.handle_timer(now)
        case Tag.READ, [int(ticket), bytes() | None as data, int(size)]:
            lent = None if data is None else memoryview(data)
            return lambda node: node.store_completed(ReadDone(ticket, lent, size), now)
        case Tag.WRITTEN, [int(ticket), int(number)]:
            status = WriteStatus(number)
            return lambda node: node.store_completed(WriteDone(ticket, status), now)
        case Tag.STALL, [float(lag_s)]:
            return lambda node: node.report_stall(lag_s, now)
        case Tag.START, [list(seeds), float() | None as alone_after_s]:
            told = _endpoints(seeds)
            return lambda node: node.start(told, now, alone_after_s)
        case Tag.FORGET, [bytes(name)]:
            return lambda node: node.forget(Name(name), now)
        case Tag.LEAVE, []:
            return lambda node: node.leave(now)
    raise ValueError


def _endpoints(pairs: list[Any]) -> list[Endpoint]:
    return [(str(host), int(port)) for host, port in pairs]


def _count(node: PastryNode, counts: dict[str, int]) -> None:
    for name, by in counts.items():
        node.stats.count(name, by)
