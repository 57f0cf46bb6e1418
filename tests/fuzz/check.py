"""What must hold for any bytes: one function, for the tests and for long runs."""

from contextlib import suppress

from pastryd.errors import RemoteProtocolError
from pastryd.protocol.items import IndexEntry, Manifest
from pastryd.wire.codec import decode, encode


def check_bytes(data: bytes) -> bool:
    """Decode as whatever bytes from the network may be; tell whether it was a message."""
    for size in (len(data), 5 << 20):
        with suppress(RemoteProtocolError):
            Manifest.decode(data, size)
    with suppress(RemoteProtocolError):
        IndexEntry.decode(data)
    try:
        message = decode(data)
    except RemoteProtocolError:
        return False
    again = encode(message)
    assert decode(again) == message
    assert len(again) <= len(data) + 64, "a message must not grow"
    return True
