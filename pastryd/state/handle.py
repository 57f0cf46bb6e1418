"""Handles: how one node tells another who and where a third one is."""

from dataclasses import dataclass, field, replace

from pastryd.ids import NodeId, node_id_of

Endpoint = tuple[str, int]
"""A numeric IP address and a UDP port."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A node as others see it: public key, address, incarnation; the id follows from the key.

    `host` may be empty in a handle that speaks of ourselves before anyone told us our address.
    `incarnation` is the boot time in ms; it grows with each boot and each refutation.
    """

    public_key: bytes
    host: str
    port: int
    incarnation: int
    id: NodeId = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", node_id_of(self.public_key))

    @property
    def endpoint(self) -> Endpoint:
        """Where to send."""
        return (self.host, self.port)

    def at(self, endpoint: Endpoint) -> "Handle":
        """Return the same node at another address."""
        return replace(self, host=endpoint[0], port=endpoint[1])

    def reborn(self, incarnation: int) -> "Handle":
        """Return the same node with another incarnation."""
        return replace(self, incarnation=incarnation)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.id:032x}@{host}:{self.port}"
