"""Messages to bytes and back (DESIGN sec. 4): a msgpack array, the integer tag first.

One table says type and bound of every field; `decode` checks all of them and raises
`RemoteProtocolError` for anything else, in time and memory bounded by the input's length. Sealing
and datagram headers are not this module's business (`net/seal.py`).

Segments, nearly all bytes that a busy node sends, have a fixed binary header instead of msgpack
integers: constant width, and no copy of the data on decode.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.errors import RemoteProtocolError
from pastryd.ids import ID_BYTES, NAME_BYTES
from pastryd.wire import messages as m
from pastryd.wire.addresses import host_from_bytes, host_to_bytes
from pastryd.wire.handles import pack_handle, unpack_handle

_unpackb = msgpack.unpackb
_packb = msgpack.Packer(use_bin_type=True, autoreset=True).pack

SEGMENT_TAG = 0xC1
"""A byte that msgpack never uses: no message can be mistaken for a segment."""
SEGMENT_HEADER = struct.Struct(">BQII")
"""Tag, nonce, index, size."""
SEGMENT_HEADER_BYTES = SEGMENT_HEADER.size


class UnknownMessageError(RemoteProtocolError):
    """A tag of a later version: counted and ignored."""


Check = Callable[[Any], Any]
"""Turns a decoded msgpack value into a field, or raises `RemoteProtocolError` (or TypeError)."""


class Field(NamedTuple):
    """How one field travels: `pack` None means as it is.

    `condition` says in one expression, with `{0}` for the value, all that `check` checks, and
    `built` and `packed` what it turns into; without them the functions are called.
    """

    check: Check
    pack: Callable[[Any], Any] | None = None
    condition: str = ""
    built: str = "{0}"
    packed: str = "{0}"


def _expressed(condition: str, built: str = "{0}", packed: str = "{0}") -> Field:
    """A field that expressions say all about; as it stands it travels as it is."""
    # Our own text, never a peer's.
    holds = eval("lambda value: " + condition.format("value"))
    build = eval("lambda value: " + built.format("value"))
    pack = eval("lambda value: " + packed.format("value")) if packed != "{0}" else None

    def check(value: Any) -> Any:
        if not holds(value):
            raise RemoteProtocolError("a field of the wrong type or out of bounds")
        return build(value)

    return Field(check, pack, condition, built, packed)


def _uint(bits: int) -> Field:
    return _expressed(f"type({{0}}) is int and 0 <= {{0}} < {1 << bits}")


def _octets(longest: int, exact: bool = False) -> Field:
    return _expressed(f"type({{0}}) is bytes and len({{0}}) {'==' if exact else '<='} {longest}")


def _check_host(value: Any) -> str:
    if type(value) is not bytes:
        raise RemoteProtocolError("not an address")
    return host_from_bytes(value)


def _many(item: Field, most: int) -> Field:
    """A list of values; both ways are written out, as in `_compile`."""
    each, scope, condition, built, packed = _written_out(tuple, (item,))
    source = f"""
def check(values):
    if type(values) is not list or len(values) > {most}:
        raise Malformed("not a list of bounded length")
    for {each} in values:
        if not ({condition}):
            raise Malformed("a field of the wrong type or out of bounds")
    return tuple({"values" if built == each else f"[{built} for {each} in values]"})

def pack(values):
    return [{packed} for {each} in values]
"""
    exec(source, scope)  # our own text, never a peer's
    return Field(scope["check"], None if packed == each else scope["pack"])


def _records(kind: type[Any], most: int, *fields: Field) -> Field:
    """A list of tuples of a fixed length; both ways are written out, as in `_compile`."""
    listed, scope, condition, built, packed = _written_out(kind, fields)
    source = f"""
def check(values):
    if type(values) is not list or len(values) > {most}:
        raise Malformed("not a list of bounded length")
    records = []
    for value in values:
        if type(value) is not list or len(value) != {len(fields)}:
            raise Malformed("wrong number of fields")
        {listed} = value
        if not ({condition}):
            raise Malformed("a field of the wrong type or out of bounds")
        records.append(new(kind, ({built},)))
    return tuple(records)

def pack(values):
    return [({packed},) for {listed} in values]
"""
    exec(source, scope)  # our own text, never a peer's
    return Field(scope["check"], scope["pack"])


def _written_out(
    kind: type[Any], fields: tuple[Field, ...]
) -> tuple[str, dict[str, Any], str, str, str]:
    """Return texts for some fields: names, condition, what they turn into, what of them travels.

    The second is what these texts refer to.
    """
    conditions: list[str] = []
    built: list[str] = []
    packed: list[str] = []
    scope: dict[str, Any] = {"kind": kind, "new": tuple.__new__, "Malformed": RemoteProtocolError}
    names = [f"v{i}" for i in range(len(fields))]
    for name, field in zip(names, fields, strict=True):
        if field.condition:
            conditions.append(field.condition.format(name))
            built.append(field.built.format(name))
            packed.append(field.packed.format(name))
            continue
        scope[f"check_{name}"] = field.check
        scope[f"pack_{name}"] = field.pack
        built.append(f"check_{name}({name})")
        packed.append(f"pack_{name}({name})" if field.pack else name)
    condition = " and ".join(conditions) or "True"
    return ", ".join(names), scope, condition, ", ".join(built), ", ".join(packed)


_U8, _U16, _U32, _U64 = _uint(8), _uint(16), _uint(32), _uint(64)
_FLAG = _expressed("type({0}) is bool")
_SIZE = _expressed(f"type({{0}}) is int and 0 <= {{0}} <= {OBJECT_BYTES_MAX}")
_APPLICATION = _expressed(f"type({{0}}) is str and 0 < len({{0}}) <= {m.APPLICATION_MAX}")
_ID = _expressed(
    f"type({{0}}) is bytes and len({{0}}) == {ID_BYTES}",
    'int.from_bytes({0}, "big")',
    f'{{0}}.to_bytes({ID_BYTES}, "big")',
)
_NAME = _octets(NAME_BYTES, exact=True)
_NO_NAME = _octets(NAME_BYTES)
_DATA = _octets(m.PAYLOAD_MAX)
_HOST = Field(_check_host, host_to_bytes)
_HANDLE = Field(unpack_handle, pack_handle)
_HANDLES = _many(_HANDLE, m.HANDLES_MAX)
_FAILED = _records(tuple, m.FAILED_MAX, _ID, _U64)
_FINGERPRINT = _ID
_RANGES = _records(m.Range, m.RANGES_MAX, _ID, _ID, _U32, _FINGERPRINT)
_NAMES = _many(_NAME, m.NAMES_MAX)
_SUMMARY = _octets(m.SUMMARY_BYTES_MAX)
_LEAF_SET = (_U64, _HOST, _U16, _FLAG, _FLAG, _U32, _SUMMARY, _HANDLES, _FAILED)


SPECIFICATIONS: dict[int, tuple[type[Any], tuple[Field, ...]]] = {
    1: (m.Hello, (_U64, _DATA)),
    2: (m.Welcome, (_U64, _HANDLE, _HOST, _U16, _FLAG, _HOST, _U16, _U64)),
    3: (
        m.Route,
        (
            _U32,
            _ID,
            _HANDLE,
            _U8,
            _APPLICATION,
            _DATA,
            _FLAG,
            _records(m.Hop, m.TRAIL_MAX, _HANDLE, _U32),
        ),
    ),
    4: (m.HopAck, (_many(_U32, m.ACKS_MAX),)),
    5: (m.JoinReply, (_U64, _HANDLES)),
    6: (m.LeafSetProbe, _LEAF_SET),
    7: (m.LeafSetReply, _LEAF_SET),
    8: (m.RowRequest, (_U64, _U8, _DATA)),
    9: (m.RowReply, (_U64, _U8, _records(m.Hop, m.HANDLES_MAX, _HANDLE, _U32))),
    10: (m.Ping, (_U64, _U32)),
    11: (m.Pong, (_U64, _U32)),
    12: (m.Heartbeat, (_U64,)),
    13: (m.IndirectPing, (_U64, _HANDLE)),
    14: (m.IndirectPong, (_U64, _FLAG)),
    15: (m.Suspect, (_ID, _U64, _HANDLES)),
    16: (m.Alive, (_U64,)),
    17: (m.Leave, (_U64,)),
    18: (m.Find, (_U64, _NAME)),
    19: (m.Found, (_U64, _SIZE, _DATA, _many(_octets(256), m.RECORDS_MAX))),
    20: (m.Replicas, (_U64, _HANDLES)),
    21: (m.Store, (_U64, _NAME, _SIZE, _DATA)),
    22: (m.Stored, (_U64, _U8)),
    23: (m.HaveQuery, (_U64, _FLAG, _NAMES)),
    24: (m.HaveReply, (_U64, _U32)),
    25: (m.Pull, (_U64, _NAME, _U16, _U32, _U64)),
    26: (m.Absent, (_U64, _NAME)),
    27: (m.Ranges, (_U64, _FLAG, _RANGES)),
    28: (m.Names, (_U64, _ID, _ID, _FLAG, _NAMES)),
    29: (m.Request, (_U64, _U8, _NO_NAME, _U64, _DATA)),
    30: (m.Answer, (_U64, _U8, _U64, _NO_NAME, _U64, _DATA)),
    31: (m.PathProbe, (_U64, _U16)),
    32: (m.PathReply, (_U64, _DATA)),
    33: (m.Measured, (_U32,)),
    34: (m.Echo, (_U64,)),
}


Encoder = Callable[[Any], bytes]
Decoder = Callable[[list[Any]], Any]


def _compile(tag: int, kind: type[Any], fields: tuple[Field, ...]) -> tuple[Encoder, Decoder]:
    """Write out both ways of one message, as `dataclass` writes `__init__`.

    A loop over the fields says the same and takes up to twice as long.
    """
    listed, scope, condition, built, packed = _written_out(kind, fields)
    source = f"""
def encode_fields(message):
    {listed}, = message
    return packb(({tag}, {packed}))

def decode_fields(values):
    if len(values) != {len(fields) + 1}:
        raise Malformed("wrong number of fields")
    _, {listed} = values
    if not ({condition}):
        raise Malformed("a field of the wrong type or out of bounds")
    return new(kind, ({built},))
"""
    scope["packb"] = _packb
    exec(source, scope)  # our own text, never a peer's
    return scope["encode_fields"], scope["decode_fields"]


_ENCODERS: dict[type[Any], Encoder] = {
    m.Segment: lambda message: encode_segment(*message),
}
_DECODERS: dict[int, Decoder] = {}
for _tag, (_kind, _fields) in SPECIFICATIONS.items():
    _ENCODERS[_kind], _DECODERS[_tag] = _compile(_tag, _kind, _fields)


def encode(message: m.Message) -> bytes:
    """Return the bytes of a message."""
    return _ENCODERS[type(message)](message)


def encode_segment(nonce: int, index: int, size: int, data: bytes | memoryview) -> bytes:
    """Return the bytes of a `Segment`; the one copy of its data is made here."""
    return SEGMENT_HEADER.pack(SEGMENT_TAG, nonce, index, size) + data


def decode(data: bytes) -> m.Message:
    """Return the message that `data` is.

    Raises `UnknownMessageError` for a tag of a later version, `RemoteProtocolError` for anything
    else that the protocol does not allow.
    """
    if data and data[0] == SEGMENT_TAG:
        if len(data) < SEGMENT_HEADER_BYTES:
            raise RemoteProtocolError("short segment")
        _, nonce, index, size = SEGMENT_HEADER.unpack_from(data)
        return m.Segment(nonce, index, size, memoryview(data)[SEGMENT_HEADER_BYTES:])
    try:
        values = _unpackb(data, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack raises many kinds; all of them mean malformed bytes
        raise RemoteProtocolError("not msgpack") from error
    if type(values) is not list or not values or type(values[0]) is not int:
        raise RemoteProtocolError("not a message")
    decode_fields = _DECODERS.get(values[0])
    if decode_fields is None:
        raise UnknownMessageError(f"unknown tag {values[0]}")
    return decode_fields(values)  # type: ignore[no-any-return]
