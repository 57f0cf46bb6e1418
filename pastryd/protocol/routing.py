"""Routing: forward, deliver, per-hop acknowledgements, rerouting (MSPastry 2004, sec. 3.2 and 4.2).

Rules of this file:
- who receives a `Route` acknowledges it to the previous hop before anything else;
- a hop that stays silent is excluded for that message and gone around at once; its silence starts a
  probe (through `on_silent`) and removes nobody by itself;
- at the last hop the root is retried while it is being probed: another node is not the root until
  the root is suspected, and then is so at once;
- a node that is not active delivers nothing: what is for it waits (bounded) until it is.
"""

from collections.abc import Callable

from pastryd.ids import NodeId, Position
from pastryd.protocol.application import Application, Forward
from pastryd.protocol.context import Context
from pastryd.protocol.outbox import Destination
from pastryd.state.deadlines import Timer
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.state.routing import next_hop
from pastryd.wire.codec import encode
from pastryd.wire.handles import HANDLE_BYTES_MAX
from pastryd.wire.messages import ACKS_MAX, TRAIL_MAX, Hop, HopAck, Route, microseconds

BUFFERED_MAX = 256
FIRST_WAIT_MAX = 1.5
"""Times `rto_initial_s`: the longest wait for an acknowledgement before the first detour."""
IN_FLIGHT_MAX = 8192
REMEMBERED_MAX = 4096
"""Messages seen, at least the last half as many of which are known again."""
REMEMBERED_S = 60.0
"""And for so long at least: nobody repeats a message later than that."""
ROUTE_BYTES = 128
"""The most that a `Route` takes besides its payload and its trail."""
HOP_BYTES = HANDLE_BYTES_MAX + 6
"""The most that one node of the trail takes."""


class _InFlight:
    """A message that the next hop has not acknowledged yet."""

    __slots__ = ("attempts", "excluded", "message", "peer", "repeats", "sent_at", "timer")

    def __init__(self, message: Route, excluded: tuple[NodeId, ...]) -> None:
        self.message = message
        self.excluded = excluded
        self.attempts = 0
        """How often it was sent on in vain, to anybody."""
        self.repeats = 0
        """How often to this peer, beyond the first."""
        self.peer: Peer
        self.sent_at: float
        self.timer: Timer


class Router:
    """The routing machine of one node."""

    __slots__ = (
        "_applications",
        "_buffered",
        "_context",
        "_in_flight",
        "_is_active",
        "_last_ack",
        "_on_silent",
        "_seen",
        "_seen_before",
        "_seen_since",
        "_sequence",
        "watching",
    )

    def __init__(
        self,
        context: Context,
        is_active: Callable[[], bool],
        on_silent: Callable[[Peer, float], None],
    ) -> None:
        """`on_silent` is told of a peer that did not acknowledge in time."""
        self._context = context
        self._is_active = is_active
        self._on_silent = on_silent
        self._applications: dict[str, Application] = {}
        self.watching: list[Application] = []
        """Of the applications those that have an `update` of their own."""
        self._in_flight: dict[int, _InFlight] = {}
        self._buffered: list[Route] = []
        self._seen: dict[tuple[NodeId, int], None] = {}
        self._seen_before: dict[tuple[NodeId, int], None] = {}
        self._seen_since = 0.0
        self._last_ack: tuple[int, tuple[bytes, Destination] | None, list[int]] = (0, None, [])
        """Where in the outbox the newest `HopAck` is, what it is, and which messages it names."""
        self._sequence = context.rng.getrandbits(31)

    def register(self, application: Application) -> None:
        """Host an application: its upcalls are made for messages under its name."""
        self._applications[application.name] = application
        self.watching = [
            each
            for each in self._applications.values()
            if type(each).update is not Application.update
        ]

    @property
    def applications(self) -> list[Application]:
        """The hosted applications, in order of registration."""
        return list(self._applications.values())

    # -- down calls --

    def route(
        self,
        key: Position,
        payload: bytes,
        application: str,
        now: float,
        *,
        hint: Peer | None = None,
        keep_trail: bool = False,
    ) -> None:
        """Route a message to the root of `key`; with a `hint`, that node is the first hop."""
        identity = self._context.identity
        message = Route(0, key, identity, 0, application, payload, keep_trail, ())
        if hint is not None:
            self._send(_InFlight(message, ()), hint, now)
        else:
            self._step(message, now)

    def resume(self, now: float) -> None:
        """The node became active: what waited for that is routed on."""
        waiting, self._buffered = self._buffered, []
        for message in waiting:
            self._step(message, now)

    def leave_hop(self, peer: Peer, now: float) -> None:
        """A peer is suspected: what still waits for it goes around it now."""
        for seq in [seq for seq, waiting in self._in_flight.items() if waiting.peer is peer]:
            waiting = self._in_flight.pop(seq)
            waiting.timer.cancel()
            self._go_on(waiting, now)

    def postpone(self, by_s: float) -> None:
        """We stood still: that is part of nobody's round trip time."""
        for waiting in self._in_flight.values():
            waiting.sent_at += by_s

    # -- messages --

    def on_route(self, message: Route, peer: Peer, now: float) -> None:
        """Take over a message: acknowledge, then forward or deliver."""
        self._acknowledge(message.seq, peer, now)
        seen = (peer.id, message.seq)
        if seen in self._seen or seen in self._seen_before:
            self._context.stats.count("route_duplicates")
            return
        if len(self._seen) >= REMEMBERED_MAX // 2 or now >= self._seen_since + REMEMBERED_S:
            self._seen_before, self._seen = self._seen, {}
            self._seen_since = now
        self._seen[seen] = None
        if message.hops >= self._context.config.hops_max:
            self._context.stats.count("route_dropped_hops")
            return
        if not self._fits(message, 0):
            self._context.stats.count("route_too_long")
            return
        self._step(message, now)

    def on_hop_ack(self, message: HopAck, peer: Peer, now: float) -> None:
        """The next hop has them."""
        for seq in message.seqs:
            waiting = self._in_flight.get(seq)
            if waiting is None or waiting.peer is not peer:
                self._context.stats.count("hop_acks_unexpected")
                continue
            del self._in_flight[seq]
            waiting.timer.cancel()
            if not waiting.repeats:
                peer.sample_rtt(now - waiting.sent_at)

    def _acknowledge(self, seq: int, peer: Peer, now: float) -> None:
        """Acknowledge one message; those of one batch of datagrams share an acknowledgement.

        The last one is still in the outbox as long as the driver has not drained it: then it is
        replaced by one that says more.
        """
        datagrams = self._context.outbox.datagrams
        index, entry, seqs = self._last_ack
        if (
            index < len(datagrams)
            and entry is not None
            and datagrams[index] is entry
            and entry[1] is peer.handle
            and peer.unproven is None
            and len(seqs) < ACKS_MAX
        ):
            seqs.append(seq)
            datagrams[index] = entry = (encode(HopAck(tuple(seqs))), peer.handle)
        else:
            index, seqs = len(datagrams), [seq]
            self._context.send(HopAck((seq,)), peer, now)
            if index == len(datagrams):
                return  # it is held
            entry = datagrams[index]
        self._last_ack = (index, entry, seqs)

    # -- the work --

    def next_hop(self, key: Position, exclude: tuple[NodeId, ...] = ()) -> Handle | None:
        """Return the next hop for a key; None: we are its root as far as we know."""
        context = self._context
        return next_hop(
            key, context.leaf_set, context.table, context.neighborhood, context.usable, exclude
        )

    def _step(self, message: Route, now: float, excluded: tuple[NodeId, ...] = ()) -> None:
        """Forward or deliver one message."""
        hop = self.next_hop(message.key, _around(message, excluded))
        application = self._applications.get(message.application)
        if hop is None:
            self._deliver(message, application, now)
            return
        if application is not None:
            decision = application.forward(message.key, message.payload, message.source, hop, now)
            if decision is Forward.STOP:
                return
            if decision is not None:
                message, hop = decision.applied_to(message, hop)
        self._send(_InFlight(message, excluded), self._context.peers.of(hop), now)

    def _deliver(self, message: Route, application: Application | None, now: float) -> None:
        if not self._is_active():
            if len(self._buffered) >= BUFFERED_MAX:
                del self._buffered[0]
                self._context.stats.count("route_dropped_inactive")
            self._buffered.append(message)
        elif application is None:
            self._context.stats.count("route_unknown_application")
        else:
            application.deliver(message.key, message.payload, message.source, message.trail, now)

    def _send(self, waiting: _InFlight, peer: Peer, now: float) -> None:
        context = self._context
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            context.stats.count("route_dropped_queue")
            return
        message = waiting.message
        self._sequence = seq = (self._sequence + 1) & 0xFFFFFFFF
        trail = message.trail
        if message.keep_trail and len(trail) < TRAIL_MAX and self._fits(message, 1):
            trail = (*trail, Hop(context.identity, microseconds(peer.srtt_s)))
        waiting.peer = peer
        waiting.sent_at = now
        _, key, source, hops, application, payload, keep_trail, _ = message
        onward = Route(seq, key, source, hops + 1, application, payload, keep_trail, trail)
        # Table entries may be hearsay: to greet them first would double the time of this hop.
        context.send_bytes(encode(onward), peer, now, is_question=True)
        # A jittery path must not make us slow to go around a hop that has died.
        wait_s = min(peer.rto_s, FIRST_WAIT_MAX * context.config.rto_initial_s)
        if waiting.repeats > 1:
            wait_s = min(wait_s * (1 << (waiting.repeats - 1)), context.config.rto_max_s)
        waiting.timer = context.deadlines.arm(now + wait_s, self._handle_silence, seq)
        self._in_flight[seq] = waiting

    def _fits(self, message: Route, more_hops: int) -> bool:
        """Tell whether a message fits in a datagram, with so many more nodes in its trail."""
        trail_bytes = HOP_BYTES * (len(message.trail) + more_hops)
        length = ROUTE_BYTES + trail_bytes + len(message.payload)
        return length <= self._context.config.payload_bytes_max

    def _handle_silence(self, seq: int, now: float) -> None:
        waiting = self._in_flight.pop(seq, None)
        if waiting is None:
            return
        context = self._context
        context.stats.count("route_silent_hops")
        peer = waiting.peer
        self._on_silent(peer, now)
        waiting.attempts += 1
        if waiting.attempts >= context.config.route_attempts:
            context.stats.count("route_dropped_attempts")
            return
        self._go_on(waiting, now)

    def _go_on(self, waiting: _InFlight, now: float) -> None:
        """Send a message again whose hop was silent: there once more, around it, or deliver it."""
        context, message, peer = self._context, waiting.message, waiting.peer
        if context.leaf_set.covers(message.key):
            hop = self.next_hop(message.key, _around(message, waiting.excluded))
            if hop is not None and hop.id == peer.id:
                waiting.repeats += 1
                self._send(waiting, peer, now)
                return
        if message.source.id == context.identity.id == message.key:
            return  # our own join; its machine tries again through another node
        waiting.excluded = (*waiting.excluded, peer.id)
        waiting.repeats = 0
        hop = self.next_hop(message.key, _around(message, waiting.excluded))
        if hop is None:
            self._deliver(message, self._applications.get(message.application), now)
        else:
            self._send(waiting, context.peers.of(hop), now)


def _around(message: Route, excluded: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    """Whoever routes for its own id (a join) asks for the closest other node."""
    source_id = message.source.id
    return (*excluded, source_id) if message.key == source_id else excluded
