"""The Common API (Dabek et al. 2003, sec. 3): what a node and its applications owe each other.

An application is registered with a node under its `name`; the node calls the upcalls `forward`,
`deliver` and `update`, the application calls the methods of `Overlay`. The blob store is one
application among others and unknown here (`examples/` has a smaller one).

Deviation: `forward` is told the source too, so that a node on the way may answer it directly; sec.
3.2 leaves that to the message. It is not called at the root, where `deliver` is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pastryd.ids import Position
from pastryd.state.handle import Handle
from pastryd.wire.messages import Hop, Route


@dataclass(frozen=True, slots=True)
class Forward:
    """What becomes of a message on its way: the upcall may change its payload and its next hop."""

    payload: bytes
    next_hop: Handle

    STOP: ClassVar["Forward"]
    """The message ends here; nobody delivers it."""

    def applied_to(self, message: Route, next_hop: Handle) -> tuple[Route, Handle]:
        """Return what goes on, and where."""
        if self.payload is not message.payload:
            message = message._replace(payload=self.payload)
        return message, self.next_hop


_NOBODY = Handle(bytes(32), "", 0, 0)
Forward.STOP = Forward(b"", _NOBODY)


class Overlay(Protocol):
    """What a node offers to its applications."""

    @property
    def identity(self) -> Handle:
        """Who this node is."""

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

    __slots__ = ()

    name = ""
    """At most 16 characters; it travels in every message."""

    def forward(
        self, key: Position, payload: bytes, source: Handle, next_hop: Handle, now: float
    ) -> Forward | None:
        """Called on every node of the way, the source included, before the message goes on.

        None lets it pass as it is, `Forward.STOP` ends it here. Not called at the root.
        """
        return None

    def deliver(
        self,
        key: Position,
        payload: bytes,
        source: Handle,
        trail: Sequence[Hop],
        now: float,
    ) -> None:
        """Called at the root of `key`. `trail`: the nodes of the way if the message kept it."""

    def update(self, handle: Handle, joined: bool, now: float) -> None:
        """Called when a node has entered or left our leaf set."""
