"""Makes messages of every type, and damages them: what the fuzzers of decoder and node share.

Everything follows from the `Random` handed in. Values come from a mix: edges, small numbers, what
was seen before (so that nonces, names and handles meet state that exists), and noise.
"""

from collections import deque
from random import Random
from typing import Any, get_args, get_origin, get_type_hints

from pastryd.ids import RING_MASK, Position
from pastryd.state.handle import Handle
from pastryd.wire import messages as m
from pastryd.wire.codec import SPECIFICATIONS, encode
from pastryd.wire.verbs import Verb

KINDS = [kind for kind, _ in SPECIFICATIONS.values()] + [m.Segment]
EDGES = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    2**16 - 1,
    2**20,
    2**20 + 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
_BITS = {
    "nonce": 64,
    "seq": 32,
    "seqs/item": 32,
    "hops": 8,
    "row": 8,
    "status": 8,
    "verb": 8,
    "rtt_us": 32,
    "wanted_us": 32,
    "failure_rate": 32,
}
_BITS |= {
    "seen_port": 16,
    "ahead_port": 16,
    "port": 16,
    "segment_bytes": 16,
    "message_bytes": 16,
    "first": 32,
    "count": 32,
    "index": 32,
}
_BITS |= {"bitmap": 32, "id": 128, "key": 128, "start": 128, "end": 128, "fingerprint": 128}
_MANY_MAX = {"handles": 16, "holders": 16, "members": 16, "trail": 12, "names": 32, "records": 8}
_MANY_MAX |= {"failed": 8, "ranges": 16}


class Generator:
    """Random messages that look as if they belonged."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.handles: list[Handle] = [self.new_handle() for _ in range(4)]
        self.names: list[bytes] = [rng.randbytes(32) for _ in range(4)]
        self.numbers: deque[int] = deque(EDGES, maxlen=256)
        """Nonces and the like that were seen on the wire."""

    def new_handle(self) -> Handle:
        """Return a stranger."""
        rng = self.rng
        host = f"10.{rng.randrange(200, 250)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        return Handle(rng.randbytes(32), host, rng.randrange(1, 65536), rng.choice(EDGES))

    def learn(self, message: m.Message) -> None:
        """Remember what a real message carried."""
        for value in message:
            if type(value) is int:
                self.numbers.append(value)
            elif isinstance(value, bytes) and len(value) == 32 and len(self.names) < 64:
                self.names.append(value)

    def message(self, kind: type[Any] | None = None) -> m.Message:
        """Return a valid message."""
        kind = kind or self.rng.choice(KINDS)
        hints = get_type_hints(kind)
        values = [self._value(name, hints[name]) for name in kind._fields]
        message: m.Message = kind._make(values)
        if isinstance(message, m.Hello | m.Store | m.Found | m.Request) and self.rng.random() < 0.5:
            message = self._sensible(message)
        return message

    def _sensible(self, message: m.Message) -> m.Message:
        rng = self.rng
        if isinstance(message, m.Store | m.Found):
            return message._replace(size=len(message.data))
        if isinstance(message, m.Request):
            verb = rng.choice(list(Verb))
            number = rng.choice((len(message.data), 0, 5000, 1 << 20))
            return message._replace(verb=int(verb), name=rng.choice(self.names), number=number)
        return message

    def _value(self, name: str, hint: Any) -> Any:
        rng = self.rng
        if name == "failed/item":
            return (self._integer(128), self._integer(64))
        if get_origin(hint) is tuple:
            (item,) = [a for a in get_args(hint) if a is not ...]
            count = rng.choice((0, 1, 2, rng.randrange(_MANY_MAX.get(name, 4) + 1)))
            return tuple([self._value(f"{name}/item", item) for _ in range(count)])
        if hint is Handle:
            return rng.choice(self.handles) if rng.random() < 0.8 else self.new_handle()
        if hint is m.Hop:
            return m.Hop(self._value("", Handle), self._integer(32))
        if hint is m.Range:
            start, end = Position(self._integer(128)), Position(self._integer(128))
            return m.Range(start, end, self._integer(32), self._integer(128))
        if hint is bool:
            return rng.random() < 0.5
        if hint is str:
            return rng.choice(("10.0.0.1", "")) if name.endswith("host") else self._application()
        if hint is int or name in _BITS:
            if name == "size":
                return min(self._integer(64), 1 << 20)
            return self._integer(_BITS.get(name, 64))
        return self._bytes(name)

    def _application(self) -> str:
        return self.rng.choice(("blob", "access", "join", "unknown"))

    def _integer(self, bits: int) -> int:
        rng = self.rng
        roll = rng.random()
        if roll < 0.4:
            value = rng.choice(self.numbers)
        elif roll < 0.6:
            value = rng.choice(self.handles).id + rng.randrange(-2, 3)
        elif roll < 0.8:
            value = rng.choice(EDGES)
        else:
            value = rng.getrandbits(128) & RING_MASK
        return value & ((1 << bits) - 1)

    def _bytes(self, name: str) -> bytes:
        rng = self.rng
        if name == "name" or name.startswith("names"):
            return rng.choice(self.names) if rng.random() < 0.8 else rng.randbytes(32)
        if name == "summary":
            return rng.randbytes(rng.choice((0, 1, 32, m.SUMMARY_BYTES_MAX)))
        if name == "records/item":
            return rng.randbytes(rng.choice((0, 1, 86, 256)))
        if name == "payload" and rng.random() < 0.7:
            kind = rng.choice((m.Find, m.HaveQuery, m.Request, m.Hello, m.JoinReply))
            return encode(self.message(kind))[:1000]
        return rng.randbytes(rng.choice((0, 1, 32, 64, 86, 500)))

    def mutate(self, data: bytes) -> bytes:
        """Return damaged bytes."""
        rng = self.rng
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(damaged) + 1)
            roll = rng.randrange(6)
            if roll == 0 and damaged:
                damaged[min(at, len(damaged) - 1)] = rng.randrange(256)
            elif roll == 1 and damaged:
                damaged[min(at, len(damaged) - 1)] ^= 1 << rng.randrange(8)
            elif roll == 2:
                del damaged[at : at + rng.randrange(1, 9)]
            elif roll == 3:
                damaged[at:at] = rng.randbytes(rng.randrange(1, 9))
            elif roll == 4:
                del damaged[at:]
            else:
                # msgpack's own markers: lists, maps, bytes that claim to be huge, extensions
                marker = rng.choice((0x80, 0x90, 0xC1, 0xC4, 0xC6, 0xC9, 0xD3, 0xDB, 0xDD, 0xDF))
                damaged[at : at + 5] = bytes([marker]) + rng.choice((b"\xff" * 4, b"\0\0\0\1"))
        return bytes(damaged)

    def hybrid(self, message: m.Message) -> m.Message:
        """Return a real message with one field of another message of its kind."""
        other = self.message(type(message))
        name = self.rng.choice(message._fields)
        changed: m.Message = message._replace(**{name: getattr(other, name)})
        return changed
