"""`PastryNode`: one node, sans-IO (DESIGN sec. 3).

Wires the machines of `protocol/` together and dispatches messages to them. Bytes and `now` come in;
what is to be done leaves through `outbox`, which the driver or the simulator drains after each
step. Decides nothing itself. What applications call is `protocol/common_api.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from pastryd.config import Config
from pastryd.errors import LocalProtocolError, RemoteProtocolError
from pastryd.ids import Name, Position
from pastryd.item_machines import ITEM_HANDLERS, ItemMachines
from pastryd.protocol.common_api import CommonApi
from pastryd.protocol.context import NOBODY, Context
from pastryd.protocol.heartbeats import Heartbeats
from pastryd.protocol.join import Joiner
from pastryd.protocol.leafset_upkeep import LeafSetUpkeep
from pastryd.protocol.liveness import LivenessMonitor
from pastryd.protocol.outbox import Outbox, StoreReply
from pastryd.protocol.requests import Requests
from pastryd.protocol.routing import Router
from pastryd.protocol.table_upkeep import TableUpkeep
from pastryd.protocol.twins import Twins
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.peers import ALIVE, Liveness, Peer
from pastryd.stats import Stats
from pastryd.wire import messages as m
from pastryd.wire.codec import UnknownMessageError, decode


class PastryNode(CommonApi):
    """One node of a ring."""

    __slots__ = (
        "_heartbeats",
        "_requests",
        "_started",
        "_twins",
        "items",
        "joiner",
        "leafset_upkeep",
        "leaving",
        "liveness",
        "table_upkeep",
    )

    def __init__(
        self,
        identity: Handle,
        config: Config,
        rng: Random,
        names: Iterable[Name] = (),
        bytes_held: int = 0,
    ) -> None:
        """`identity.host` may be empty: the first peer tells us where it sees us.

        `names`: what the store holds already, ascending, `bytes_held` in all.
        """
        self.context = context = Context(identity, config, rng)
        self._requests = requests = Requests(context)
        self._twins = Twins(context)
        self.liveness = LivenessMonitor(
            context,
            requests,
            self._on_suspect,
            self._on_dead,
            self._twins.on_suspect,
        )
        self._heartbeats = Heartbeats(context, self.liveness)
        self.table_upkeep = TableUpkeep(
            context, requests, self.liveness.unanswered, lambda: self.active
        )
        self.leafset_upkeep = LeafSetUpkeep(
            context,
            requests,
            self.liveness.doubt,
            self._on_leaf_set_change,
            self._on_active,
            self.table_upkeep.failure_rate,
            self._holds_any,
        )
        self.router = Router(context, self._is_active, self._on_silent)
        self.joiner = Joiner(
            context,
            requests,
            self._route_join,
            self.leafset_upkeep.probe,
            self.leafset_upkeep.place,
            self.table_upkeep,
            self._is_active,
            self.leafset_upkeep.activate_alone,
        )
        self.items = ItemMachines(
            context,
            requests,
            self._route_item,
            self._is_active,
            names,
            bytes_held,
        )
        for application in (self.joiner, *self.items.applications):
            self.router.register(application)
        self._started = False
        self.leaving = False

    # -- what the driver calls --

    @property
    def outbox(self) -> Outbox:
        """What this step wants done."""
        return self.context.outbox

    @property
    def stats(self) -> Stats:
        """Counters."""
        return self.context.stats

    @property
    def active(self) -> bool:
        """Whether we answer for keys: our leaf set has confirmed us (MSPastry sec. 3.1)."""
        return self.leafset_upkeep.active

    def start(
        self, seeds: Sequence[Endpoint], now: float, alone_after_s: float | None = None
    ) -> None:
        """Join through the seeds; without any, start a new ring. See `Joiner.start`."""
        if self._started:
            raise LocalProtocolError("this node was started already")
        self._started = True
        self.context.start(now)
        self.leafset_upkeep.start(now)
        self._heartbeats.start(now)
        self.table_upkeep.start(now)
        self.items.start(now)
        self.joiner.start(seeds, alone_after_s, now)

    def add_seeds(self, seeds: Sequence[Endpoint]) -> None:
        """Remember more addresses to join through (names resolve differently over time)."""
        self.joiner.remembered.add_seeds(seeds)

    def receive_datagram(self, data: bytes, sender: Handle, now: float) -> None:
        """Take in what an authenticated peer sent. Never raises on a peer's bytes."""
        peer = self.context.heard(sender, len(data), now)
        if peer.liveness is not ALIVE:
            self._revive(peer, now)
        self._take(data, peer, now)

    def receive_train(self, train: Sequence[bytes], sender: Handle, now: float) -> None:
        """Take in messages that an authenticated peer sent in one go: segments, above all."""
        peer = self.context.heard(sender, sum(map(len, train)), now)
        if peer.liveness is not ALIVE:
            self._revive(peer, now)
        for data in self.items.transfer.take_segments(train, peer, now):
            self._take(data, peer, now)

    def _take(self, data: bytes, peer: Peer, now: float) -> None:
        try:
            message = decode(data)
        except UnknownMessageError:
            self.context.stats.count("messages_unknown")
            return
        except RemoteProtocolError:
            self.context.stats.count("messages_malformed")
            return
        kind = type(message)
        handler = HANDLERS.get(kind)
        if handler is not None:
            handler(self, message, peer, now)
        elif (item_handler := ITEM_HANDLERS.get(kind)) is not None:
            item_handler(self.items, message, peer, now)
        else:
            self.context.stats.count("messages_unexpected")

    def receive_hello(self, data: bytes, sender: Handle, now: float) -> None:
        """Take in what was sealed under the network key alone: only a `Hello` is believed.

        Its sender is not proven, so it changes nothing that we believe of anybody.
        """
        message = self._decoded(data)
        if message is None:
            return
        if type(message) is not m.Hello:
            self.context.stats.count("messages_unexpected")
        elif sender.id == self.identity.id:
            own = self.joiner.on_own_hello(message.nonce) or self._twins.on_own_hello(message.nonce)
            if not own and sender.incarnation != self.identity.incarnation:
                self._twins.on_hello(message, sender, self.active, now)
                return
            if not self.joiner.remembered and not self.active:
                self.leafset_upkeep.activate_alone(now)
        else:
            self._answer_hello(message, sender, now)

    def receive_twin(self, data: bytes, sender: Handle, now: float) -> None:
        """Take in what another holder of our own key sealed, in a later life than ours."""
        message = self._decoded(data)
        if type(message) is m.Welcome:
            self._twins.on_welcome(message, sender)
        elif message is not None:
            self.context.stats.count("messages_unexpected")

    def _decoded(self, data: bytes) -> m.Message | None:
        """Return a message of which only one kind is welcome; None, and counted: malformed."""
        try:
            return decode(data)
        except RemoteProtocolError:
            self.context.stats.count("messages_malformed")
            return None

    def handle_timer(self, now: float) -> None:
        """Run what is due."""
        self.context.deadlines.run_due(now)

    def next_deadline(self) -> float | None:
        """Return when `handle_timer` wants to be called."""
        return self.context.deadlines.next_deadline()

    def store_completed(self, reply: StoreReply, now: float) -> None:
        """Take in the store's answer to a request."""
        self.items.store_completed(reply, now)

    def forget(self, name: Name, now: float) -> None:
        """The scrubber found a bad copy: drop it; repair brings a good one."""
        self.items.forget(name, now)

    def report_stall(self, lag_s: float, now: float) -> None:
        """We stood still for `lag_s`: nobody's silence during it counts, and we doubt ourselves.

        After a stall long enough for the others to have given us up, we answer for nothing until
        they have confirmed us again.
        """
        context = self.context
        context.stats.count("stalls")
        context.deadlines.shift(lag_s)
        for peer in context.peers:
            peer.last_heard += lag_s
        self._requests.postpone(lag_s)
        self.router.postpone(lag_s)
        self.joiner.postpone(lag_s)
        self.items.transfer.postpone(lag_s)
        self.liveness.postpone(lag_s)
        self._heartbeats.postpone(lag_s)
        config = context.config
        if self.active and lag_s > config.heartbeat_s + config.heartbeat_grace_s:
            context.log("long_stall", lag_s=round(lag_s, 3))
            self.leafset_upkeep.reconfirm(now)

    # -- leaving --

    def leave(self, now: float, then: Callable[[float], None] = lambda now: None) -> None:
        """Hand over our items (bounded by `leave_timeout_s`), tell the leaf set, call `then`."""

        def handed_over(now: float) -> None:
            self._tell_leave(now)
            then(now)

        self.items.leave(handed_over, now)

    def _tell_leave(self, now: float) -> None:
        if self.leaving:
            return
        self.leaving = True
        self._heartbeats.stop()
        self.leafset_upkeep.stop()
        message = m.Leave(self.identity.incarnation)
        for handle in self.context.leaf_set.members():
            self.context.send(message, self.context.peers.of(handle), now)
        self.context.log("leaving", members=len(self.context.leaf_set))

    def check_invariants(self) -> None:
        """Assert what must hold after every step."""
        self.context.leaf_set.check_invariants()
        self.context.table.check_invariants()
        assert self.identity.id not in self.context.leaf_set
        self.items.check_invariants()

    # -- wiring --

    def _is_active(self) -> bool:
        return self.active

    def _holds_any(self) -> bool:
        return self.items.holds_any

    def _route_join(
        self, key: Position, payload: bytes, application: str, now: float, hint: Peer
    ) -> None:
        self.router.route(key, payload, application, now, hint=hint, keep_trail=True)

    def _route_item(
        self, key: Position, payload: bytes, application: str, now: float, keep_trail: bool
    ) -> None:
        self.router.route(key, payload, application, now, keep_trail=keep_trail)

    def _on_hello(self, message: m.Hello, peer: Peer, now: float) -> None:
        self._answer_hello(message, peer.handle, now)
        if self.active and peer.id in self.context.leaf_set:
            self.context.ask_own_address(peer, now)  # it may have seen us move

    def _answer_hello(self, message: m.Hello, sender: Handle, now: float) -> None:
        ahead = NOBODY if self.active else self.joiner.ahead
        self.context.on_hello(message, sender, self.active, ahead, now)

    def _on_welcome(self, message: m.Welcome, peer: Peer, now: float) -> None:
        self.context.on_welcome(message, peer, now)
        self.joiner.on_welcome(message, peer, now)

    def _on_heartbeat(self, message: m.Heartbeat, peer: Peer, now: float) -> None:
        self._heartbeats.on_heartbeat(peer, now)
        self.leafset_upkeep.on_heartbeat(message, peer, now)

    def _on_accusation(self, message: m.Suspect, peer: Peer, now: float) -> None:
        self.leafset_upkeep.succession.note_heirs(message.id, message.members, now)
        self.liveness.on_suspect(message, peer, now)

    def _on_leaf_set_probe(self, message: m.LeafSetProbe, peer: Peer, now: float) -> None:
        self.table_upkeep.hear_rate(peer.id, message.failure_rate)
        if not self.identity.host:
            self.context.ask_own_address(peer, now)
        self.leafset_upkeep.on_probe(message, peer, now)

    def _on_leaf_set_reply(self, message: m.LeafSetReply, peer: Peer, now: float) -> None:
        self.table_upkeep.hear_rate(peer.id, message.failure_rate)
        self._requests.answered(message, peer, now)

    def _on_leave(self, message: m.Leave, peer: Peer, now: float) -> None:
        if message.incarnation != peer.handle.incarnation:
            return
        if not peer.left:
            peer.left = True
            self.context.log("peer_left", peer=f"{peer.id:032x}")
        peer.active = False
        self.leafset_upkeep.remove(peer, False, now)

    def _revive(self, peer: Peer, now: float) -> None:
        was_dead = peer.liveness is Liveness.DEAD
        self.liveness.clear(peer, now)
        if was_dead and not self.leaving and self.context.leaf_set.would_enter(peer.id):
            self.leafset_upkeep.probe(peer.handle, now)

    def _on_silent(self, peer: Peer, now: float) -> None:
        self.liveness.doubt(peer, None, now)

    def _on_suspect(self, peer: Peer, now: float) -> None:
        self.router.leave_hop(peer, now)

    def _on_dead(self, peer: Peer, now: float) -> None:
        leaf_set = self.context.leaf_set
        right = leaf_set.immediate_right
        # Where a large ring breaks many lose their right neighbours; of a small one two may be left
        # that were nobody's neighbours.
        is_neighbour = right is not None and right.id == peer.id
        if is_neighbour or (leaf_set.spans_ring and peer.id in leaf_set):
            self.joiner.remember_departed(peer.handle)
        self.table_upkeep.record_failure(now)
        self.leafset_upkeep.remove(peer, not self.leaving, now)
        if self.liveness.awareness.score or not len(leaf_set):
            self.joiner.look_soon(now)
        if not self.active and not len(leaf_set) and self._started:
            self.joiner.rejoin(now)

    def _on_leaf_set_change(self, handle: Handle, joined: bool, now: float) -> None:
        self.items.update(handle, joined, now)
        for application in self.router.watching:
            application.update(handle, joined, now)

    def _on_active(self, now: float) -> None:
        self.table_upkeep.on_active(now)
        self.joiner.on_active(now)
        self.router.resume(now)

    def _on_answer(self, message: Any, peer: Peer, now: float) -> None:
        self._requests.answered(message, peer, now)


HANDLERS: dict[type[Any], Callable[[PastryNode, Any, Peer, float], object]] = {
    m.Route: lambda node, message, peer, now: node.router.on_route(message, peer, now),
    m.HopAck: lambda node, message, peer, now: node.router.on_hop_ack(message, peer, now),
    m.Welcome: PastryNode._on_welcome,
    m.Hello: PastryNode._on_hello,
    m.Echo: lambda node, message, peer, now: node.context.on_echo(message, peer, now),
    m.JoinReply: lambda node, message, peer, now: node.joiner.on_join_reply(message, peer, now),
    m.LeafSetProbe: PastryNode._on_leaf_set_probe,
    m.LeafSetReply: PastryNode._on_leaf_set_reply,
    m.RowRequest: lambda node, message, peer, now: node.table_upkeep.on_row_request(
        message, peer, now
    ),
    m.RowReply: PastryNode._on_answer,
    m.Ping: lambda node, message, peer, now: node.table_upkeep.on_ping(message, peer, now),
    m.Measured: lambda node, message, peer, now: node.table_upkeep.on_measured(message, peer, now),
    m.Pong: PastryNode._on_answer,
    m.Heartbeat: PastryNode._on_heartbeat,
    m.IndirectPing: lambda node, message, peer, now: node.liveness.on_indirect_ping(
        message, peer, now
    ),
    m.IndirectPong: PastryNode._on_answer,
    m.Suspect: PastryNode._on_accusation,
    m.Alive: lambda node, message, peer, now: node.liveness.clear(peer, now),
    m.Leave: PastryNode._on_leave,
}
"""Who takes which message: one table for all nodes, since a process may simulate many."""
