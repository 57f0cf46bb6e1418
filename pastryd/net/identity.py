"""What a node remembers about itself over a restart: key, incarnation, whom it knew.

Kept as the store's meta values. Decides when an incarnation may be used; knows no protocol.
"""

from collections.abc import Sequence
from typing import Protocol

import msgpack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pastryd.errors import StoreError
from pastryd.state.handle import Endpoint

KEY = "identity.key"
INCARNATION = "identity.incarnation"
REMEMBERED = "peers.remembered"
REMEMBERED_MAX = 64

RESERVED = 1000
"""How far a refutation may raise the incarnation without a write.

The stored value is the highest that may have been used: keys depend on the incarnation and their
counters start at 0, so that using one twice would use nonces twice."""


class Meta(Protocol):
    """A few small durable values."""

    def get_meta(self, key: str) -> bytes | None:
        """Return a value."""

    def put_meta(self, key: str, value: bytes) -> None:
        """Set a value durably."""


class Identity:
    """A node's key and its incarnation, strictly increasing over all of its lives."""

    __slots__ = ("_meta", "_reserved", "incarnation", "private_key", "public_key")

    def __init__(self, meta: Meta, now_ms: int) -> None:
        """Load the identity, or make one in an empty store; claim a new incarnation."""
        self._meta = meta
        stored = meta.get_meta(KEY)
        if stored is None:
            self.private_key = X25519PrivateKey.generate()
            meta.put_meta(KEY, self.private_key.private_bytes_raw())
        elif len(stored) == 32:
            self.private_key = X25519PrivateKey.from_private_bytes(stored)
        else:
            raise StoreError("the node's key in the data directory is damaged; restore it")
        self.public_key = self.private_key.public_key().public_bytes_raw()
        last = int.from_bytes(meta.get_meta(INCARNATION) or b"\0", "big")
        self.incarnation = max(now_ms, last + 1)
        self._reserved = 0
        self.claim(self.incarnation)

    def claim(self, incarnation: int) -> None:
        """Make sure that no later life uses this incarnation, before this one does."""
        if incarnation > self._reserved:
            reserved = incarnation + RESERVED
            self._meta.put_meta(INCARNATION, reserved.to_bytes(8, "big"))
            self._reserved = reserved  # only now: what could not be written is claimed again


def remember_peers(meta: Meta, endpoints: Sequence[Endpoint]) -> None:
    """Keep addresses of peers that live now, to ask them after a restart."""
    kept = [[host, port] for host, port in endpoints[:REMEMBERED_MAX]]
    meta.put_meta(REMEMBERED, msgpack.packb(kept))


def remembered_peers(meta: Meta) -> list[Endpoint]:
    """Return the addresses kept last; none if they cannot be read."""
    stored = meta.get_meta(REMEMBERED)
    if stored is None:
        return []
    try:
        return [(str(host), int(port)) for host, port in msgpack.unpackb(stored)]
    except (ValueError, TypeError, msgpack.UnpackException):
        return []
