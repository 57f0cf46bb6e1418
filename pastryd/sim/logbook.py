"""How what travels is told in a readable log: of a soak, of a replay."""

from pastryd.errors import RemoteProtocolError
from pastryd.wire.codec import decode

_OPAQUE = ("Hello", "Segment")
"""Messages whose contents tell a reader nothing."""
_TOLD_BYTES_MAX = 200


def tell(data: bytes) -> str:
    """Return what a datagram says; a long one only what kind it is."""
    try:
        message = decode(data)
    except RemoteProtocolError:
        return f"{len(data)} bytes that are no message"
    kind = type(message).__name__
    return f"{kind}(...)" if len(data) > _TOLD_BYTES_MAX or kind in _OPAQUE else str(message)
