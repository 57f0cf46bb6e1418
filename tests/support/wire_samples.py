"""One message of each kind with a value in every field, and what the codec says of each field.

The golden vectors and the table of `docs/wire.md` are made from here and compared in tests.
"""

from typing import Any

from pastryd.errors import RemoteProtocolError
from pastryd.ids import Name, Position
from pastryd.state.handle import Handle
from pastryd.wire import messages as m
from pastryd.wire.codec import SEGMENT_TAG, SPECIFICATIONS, Check

A = Handle(bytes(range(32)), "192.0.2.1", 4160, 1_700_000_000_000)
B = Handle(bytes(range(32, 64)), "2001:db8::2", 4161, 1_700_000_000_001)
NAME = Name(bytes(range(100, 132)))
OTHER = Name(bytes(range(132, 164)))
KEY = Position(0x0123456789ABCDEF0123456789ABCDEF)
END = Position(0xFEDCBA98765432100000000000000000)
NONCE = 0x1122334455667788

SAMPLES: tuple[m.Message, ...] = (
    m.Hello(NONCE, bytes(64)),
    m.Welcome(NONCE, A, "198.51.100.7", 50_000, False, "203.0.113.9", 4160, 9),
    m.Route(7, KEY, A, 2, "blobs", b"payload", True, (m.Hop(A, 250), m.Hop(B, 0))),
    m.HopAck((7, 8)),
    m.JoinReply(NONCE, (A, B)),
    m.LeafSetProbe(NONCE, "192.0.2.1", 4160, True, True, 13, b"abcd", (A, B), ((KEY, 5),)),
    m.LeafSetReply(NONCE, "", 0, False, False, 13, b"", (), ()),
    m.RowRequest(NONCE, 3, bytes(4)),
    m.RowReply(NONCE, 3, (m.Hop(B, 1500),)),
    m.Ping(NONCE, 1500),
    m.Pong(NONCE, 2500),
    m.Heartbeat(0xAABBCCDDEEFF0011),
    m.IndirectPing(NONCE, B),
    m.IndirectPong(NONCE, False),
    m.Suspect(KEY, 1_700_000_000_000, (A,)),
    m.Alive(1_700_000_000_001),
    m.Leave(1_700_000_000_000),
    m.Find(NONCE, NAME),
    m.Found(NONCE, 4, b"data", (b"record",)),
    m.Replicas(NONCE, (A, B)),
    m.Store(NONCE, NAME, 4, b"data"),
    m.Stored(NONCE, 1),
    m.HaveQuery(NONCE, True, (NAME, OTHER)),
    m.HaveReply(NONCE, 0b10),
    m.Pull(NONCE, NAME, 1118, 64, 0xFFFF),
    m.Absent(NONCE, NAME),
    m.PathProbe(NONCE, 8835),
    m.PathReply(NONCE, bytes(40)),
    m.Ranges(NONCE, False, (m.Range(KEY, END, 3, 0x77),)),
    m.Names(NONCE, KEY, END, True, (NAME,)),
    m.Request(NONCE, 2, NAME, 4, b"data"),
    m.Answer(NONCE, 0, 3, NAME, 4, b"data"),
    m.Measured(1500),
    m.Echo(NONCE),
    m.Segment(NONCE, 65, 1 << 20, b"data"),
)

_HANDLE = bytes(42) + b"\x7f\0\0\1"
_ID = bytes(16)
_ELEMENTS: dict[str, object] = {
    "u32": (1 << 32) - 1,
    "bytes ≤ 256": bytes(256),
    "handle": _HANDLE,
    "name": bytes(32),
    "[start id, end id, count u32, fingerprint 16 B]": [_ID, _ID, 1, _ID],
    "[handle, rtt_us u32]": [_HANDLE, 1],
    "[id, incarnation u64]": [_ID, 1],
}


def describe(check: Check) -> str:
    """Find out by trying what a field accepts."""
    if _accepts(check, True):
        return "flag"
    if _accepts(check, 1 << 20) and not _accepts(check, (1 << 20) + 1):
        return "size ≤ 1 MiB"
    for bits in (64, 32, 16, 8):
        if _accepts(check, (1 << bits) - 1):
            return f"u{bits}"
    if _accepts(check, "x"):
        return f"text ≤ {_longest(check, 'x')}"
    if _accepts(check, _HANDLE) and not _accepts(check, _HANDLE[1:]):
        return "handle"
    if _accepts(check, []):
        for name, element in _ELEMENTS.items():
            if _accepts(check, [element]):
                return f"list ≤ {_longest(check, [element])} of {name}"
    if _accepts(check, bytes(16)) and not _accepts(check, bytes(15)):
        return "host" if _accepts(check, bytes(4)) else "id"
    if _accepts(check, bytes(32)):
        longest = _longest(check, b"x")
        if longest > 32:
            return f"bytes ≤ {longest}"
        return "bytes ≤ 32" if _accepts(check, b"") else "name"
    raise AssertionError("a kind of field that this table does not know")


def _accepts(check: Check, value: object) -> bool:
    try:
        check(value)
    except (RemoteProtocolError, TypeError):
        return False
    return True


def _longest(check: Check, unit: Any) -> int:
    low, high = 1, 100_000
    while low < high:
        middle = (low + high + 1) // 2
        if _accepts(check, unit * middle):
            low = middle
        else:
            high = middle - 1
    return low


def message_table() -> str:
    """Return the table of all messages in Markdown."""
    lines = ["| tag | message | fields in order | meaning |", "| --- | --- | --- | --- |"]
    for tag, (kind, fields) in sorted(SPECIFICATIONS.items()):
        described = ", ".join(
            f"`{name}` {describe(field.check)}"
            for name, field in zip(kind._fields, fields, strict=True)
        )
        lines.append(f"| {tag} | `{kind.__name__}` | {described} | {_meaning(kind)} |")
    segment = "`nonce` u64, `index` u32, `size` u32, `data` the rest (binary, not msgpack)"
    lines.append(f"| 0x{SEGMENT_TAG:X} | `Segment` | {segment} | {_meaning(m.Segment)} |")
    return "\n".join(lines)


def _meaning(kind: type[Any]) -> str:
    return " ".join((kind.__doc__ or "").split()).replace("|", "\\|")
