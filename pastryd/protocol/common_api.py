"""The Common API for structured overlays (Dabek, Zhao, Druschel, Kubiatowicz, Stoica 2003).

What an application that a node hosts may call; what it is called with in turn is `Application`.
"""

from pastryd.errors import LocalProtocolError
from pastryd.ids import Arc, Position
from pastryd.protocol.application import Application
from pastryd.protocol.context import Context
from pastryd.protocol.routing import Router
from pastryd.state.handle import Handle


class CommonApi:
    """The side of a node that its applications see. Whoever is one sets `context` and `router`."""

    __slots__ = ("context", "router")

    context: Context
    router: Router

    @property
    def identity(self) -> Handle:
        """Who we are, as of now."""
        return self.context.identity

    def register(self, application: Application) -> None:
        """Host an application."""
        self.router.register(application)

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
        if len(payload) > self.context.config.payload_bytes_max // 2:
            raise LocalProtocolError(
                f"a routed payload is at most {self.context.config.payload_bytes_max // 2} bytes"
            )
        first = None if hint is None else self.context.peers.of(hint)
        self.router.route(key, payload, application, now, hint=first, keep_trail=keep_trail)

    def send(self, handle: Handle, payload: bytes, application: str, now: float) -> None:
        """Send a payload to one node: a route to its id with it as the first hop."""
        self.route(handle.id, payload, application, now, hint=handle)

    def local_lookup(self, key: Position, num: int) -> list[Handle]:
        """Return up to `num` usable next hops towards `key`, best first."""
        hops: list[Handle] = []
        while len(hops) < num:
            hop = self.router.next_hop(key, tuple(h.id for h in hops))
            if hop is None:
                break
            hops.append(hop)
        return hops

    def neighbor_set(self, num: int) -> list[Handle]:
        """Return up to `num` members of the leaf set, nearest on the ring first."""
        return [h for h in self.replica_set(self.identity.id, num + 1) if h.id != self.identity.id]

    def replica_set(self, key: Position, max_rank: int) -> list[Handle]:
        """Return the `max_rank` nodes closest to `key` that our leaf set knows, root first."""
        chosen = self.context.leaf_set.replica_set(key, max_rank)
        return [self.identity if h is None else h for h in chosen]

    def range(self, handle: Handle, rank: int) -> Arc | None:
        """Return the arc where a node is among the `rank` closest; None: we do not know.

        start == end stands for the whole ring.
        """
        leaf_set = self.context.leaf_set
        if handle.id == self.identity.id:
            arc = leaf_set.replica_range(rank)
            return (Position(0), Position(0)) if arc is None else arc
        shared = leaf_set.shared_ranges(handle.id, rank)
        return shared[0] if len(shared) == 1 else None
