"""Handles as they travel: 32 bytes of public key, incarnation, port, and 0, 4 or 16 of address.

A node decodes the same few thousand handles again and again, and the id of each costs a hash. So
there is one object per handle in a process: what was decoded lately is found by its bytes. Hence
equal handles are mostly the same object, in the tables of all nodes of a simulation too.
"""

import struct
from typing import Any

from pastryd.errors import RemoteProtocolError
from pastryd.state.handle import Handle
from pastryd.wire.addresses import host_from_bytes, host_to_bytes

_FIXED = struct.Struct(">32sQH")
_LENGTHS = (_FIXED.size, _FIXED.size + 4, _FIXED.size + 16)
HANDLE_BYTES_MAX = _LENGTHS[-1] + 2
"""With msgpack's header."""

KEPT_MIN = 16_384


class _Kept:
    """Handles by their bytes: those met since the last turn, and those of the turn before.

    A turn is over after `most` of them. Who is not met for a whole turn is forgotten, so that
    strangers' handles take no room for long.
    """

    __slots__ = ("before", "lately", "most")

    def __init__(self) -> None:
        self.most = KEPT_MIN
        self.lately: dict[bytes, Handle] = {}
        self.before: dict[bytes, Handle] = {}

    def keep(self, packed: bytes, handle: Handle) -> Handle:
        """Return the handle that is kept under these bytes: this one, unless there is one."""
        handle = self.before.get(packed, handle)
        if len(self.lately) >= self.most:
            self.before, self.lately = self.lately, {}
        return self.lately.setdefault(packed, handle)


_kept = _Kept()


def keep_handles(count: int) -> None:
    """Keep at least so many: as many as a simulation has nodes."""
    _kept.most = max(_kept.most, count)


def unpack_handle(packed: Any) -> Handle:
    """Return the handle that these bytes are. Raises `RemoteProtocolError` for anything else."""
    try:
        return _kept.lately[packed]
    except KeyError:
        pass
    except TypeError:
        raise RemoteProtocolError("not a handle") from None
    if type(packed) is not bytes or len(packed) not in _LENGTHS:
        raise RemoteProtocolError("not a handle")
    known = _kept.before.get(packed)
    if known is None:
        public_key, incarnation, port = _FIXED.unpack_from(packed)
        known = Handle(public_key, host_from_bytes(packed[_FIXED.size :]), port, incarnation)
    return _kept.keep(packed, known)


def pack_handle(handle: Handle) -> bytes:
    """Return the bytes of a handle."""
    packed = handle.packed
    if not packed:
        fixed = _FIXED.pack(handle.public_key, handle.incarnation, handle.port)
        handle.packed = packed = fixed + host_to_bytes(handle.host)
    return packed


def intern_handle(handle: Handle) -> Handle:
    """Return the one object that stands for this handle here; itself if its bytes lack something.

    A zone of a link-local address means something on this machine only and does not travel.
    """
    packed = pack_handle(handle)
    if host_from_bytes(packed[_FIXED.size :]) != handle.host:
        return handle
    return _kept.keep(packed, handle)
