"""Handles: how one node tells another who and where a third one is."""

from pastryd.ids import NodeId, node_id_of

Endpoint = tuple[str, int]
"""A numeric IP address and a UDP port."""


def show_endpoint(endpoint: Endpoint) -> str:
    """Return `host:port` as people write it, an IPv6 host in brackets."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Handle:
    """A node as others see it: public key, address, incarnation; the id follows from the key.

    A value: nothing of it changes. `host` may be empty in a handle that speaks of ourselves before
    anyone told us our address. `incarnation` is the boot time in ms; it grows with each boot and
    each refutation.
    """

    __slots__ = ("endpoint", "id", "incarnation", "packed", "public_key")

    def __init__(self, public_key: bytes, host: str, port: int, incarnation: int) -> None:
        self.public_key = public_key
        self.endpoint: Endpoint = (host, port)
        """Where to send."""
        self.incarnation = incarnation
        self.id: NodeId = node_id_of(public_key)
        self.packed = b""
        """What stands for it on the wire; kept here by `wire/handles.py`, which makes it once."""

    @property
    def host(self) -> str:
        """The address alone."""
        return self.endpoint[0]

    @property
    def port(self) -> int:
        """The UDP port alone."""
        return self.endpoint[1]

    def at(self, endpoint: Endpoint) -> "Handle":
        """Return the same node at another address."""
        handle = Handle(self.public_key, *endpoint, self.incarnation)
        handle.endpoint = endpoint  # this very pair: where it is looked up, it is found at once
        return handle

    def reborn(self, incarnation: int) -> "Handle":
        """Return the same node with another incarnation."""
        return Handle(self.public_key, *self.endpoint, incarnation)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Handle)
            and self.public_key == other.public_key
            and self.incarnation == other.incarnation
            and self.endpoint == other.endpoint
        )

    def __hash__(self) -> int:
        return hash(self.public_key)

    def __repr__(self) -> str:
        key = self.public_key.hex()
        return f"Handle({key}, {self.host!r}, {self.port}, {self.incarnation})"

    def __str__(self) -> str:
        return f"{self.id:032x}@{show_endpoint(self.endpoint)}"
