"""The Common API (Dabek et al. 2003, sec. 3): what a node and its applications owe each other.

An application is registered with a node under its `name`; the node calls the upcalls `forward`,
`deliver` and `update`, the application calls the methods of `Overlay`. The blob
store is one application among others and unknown here (`examples/` has a smaller one).

Deviation: `forward` is told the source too, so that a node on the way may answer it directly; sec.
3.2 leaves that to the message. `deliver_traced` is ours; who does not override it pays nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pastryd.ids import Position
from pastryd.state.handle import Handle
from pastryd.wire.messages import Hop


class Forward(NamedTuple):
    """What becomes of a message on its way; `next_hop` None: it ends here, undelivered."""

    payload: bytes
    next_hop: Handle | None


STOP = Forward(b"", None)


class Overlay(Protocol):
    """What a node offers to its applications."""

    identity: Handle

    def route(
        self,
        key: Position,
        payload: bytes,
        application: str,
        now: float,
        *,
        hint: Handle | None = None,
        keep_trail: bool = False,
    ) -> None:
        """Send a payload towards the root of `key`; `hint`: try this node as the first hop."""

    def send(self, handle: Handle, payload: bytes, application: str, now: float) -> None:
        """Send a payload to one node: a route to its id with it as the first hop."""

    def local_lookup(self, key: Position, num: int) -> Sequence[Handle]:
        """Return up to `num` usable next hops towards `key`, best first."""

    def neighbor_set(self, num: int) -> Sequence[Handle]:
        """Return up to `num` nodes of the leaf set, nearest first."""

    def replica_set(self, key: Position, max_rank: int) -> Sequence[Handle]:
        """Return the `max_rank` nodes closest to `key` that our leaf set knows, root first."""

    def range(self, handle: Handle, rank: int) -> tuple[Position, Position] | None:
        """Return the arc [start, end) where a node is among the `rank` closest; None: not known."""


class Application:
    """Base of all applications: lets everything pass, keeps nothing.

    Upcalls must not raise on any payload: it comes from another node.
    """

    name = ""
    """At most 16 characters; it travels in every message."""

    def forward(
        self, key: Position, payload: bytes, source: Handle, next_hop: Handle, now: float
    ) -> Forward | None:
        """Called on every node of the way, source and root included, before the message goes on.

        None lets it pass as it is, `STOP` ends it here, a `Forward` changes payload or next hop.
        `next_hop` is our own handle when we are the root.
        """
        return None

    def deliver(self, key: Position, payload: bytes, source: Handle, now: float) -> None:
        """Called at the root of `key`."""

    def deliver_traced(
        self,
        key: Position,
        payload: bytes,
        source: Handle,
        trail: Sequence[Hop],
        now: float,
    ) -> None:
        """Called instead of `deliver` for a message that kept its trail, source first."""
        self.deliver(key, payload, source, now)

    def update(self, handle: Handle, joined: bool, now: float) -> None:
        """Called when a node has entered or left our leaf set."""
