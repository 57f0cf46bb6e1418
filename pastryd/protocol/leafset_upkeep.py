"""Leaf-set upkeep: MSPastry's probes (Castro, Costa, Rowstron 2004, fig. 2) with digests.

A node enters our leaf set when it answered (or sent) a probe itself, never on hearsay; it leaves on
our own verdict (`liveness.py`), on its `Leave`, never on hearsay. While we join we are not active;
we become active when no probe is outstanding and the leaf set is full or spans the ring: from then
on all its members know us.

Deviation: probes carry the members only when the digest changed; detected failures are announced by
the ring neighbours of the dead node alone, the others verify what they hear.
"""

from collections.abc import Callable

from pastryd.ids import NodeId, clockwise
from pastryd.protocol.context import Context
from pastryd.protocol.requests import Requests
from pastryd.state.deadlines import Timer
from pastryd.state.handle import Handle
from pastryd.state.peers import Liveness, Peer
from pastryd.wire.handles import pack_handle
from pastryd.wire.messages import FAILED_MAX, LeafSetProbe, LeafSetReply

TOMBSTONES_MAX = 1024
REPAIR_INTERVAL_S = 0.05
STEPPING_STONES = 3
PROBING_MAX = 64
"""Above this nobody is probed on hearsay. Honest leaf sets name at most some thirty at once."""
FULL_PROBE_BYTES_LEFT = 28
"""What one entry of `failed` costs; there must be room beside the members."""


class LeafSetUpkeep:
    """Keeps the leaf set true. `on_change(handle, joined, now)` is told of each change."""

    __slots__ = (
        "_context",
        "_doubt",
        "_failed",
        "_failure_rate",
        "_on_active",
        "_on_change",
        "_probing",
        "_repair_at",
        "_repair_timer",
        "_repair_version",
        "_repair_wait_s",
        "_requests",
        "_stopped",
        "active",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        doubt: Callable[[Peer, NodeId | None, float], None],
        on_change: Callable[[Handle, bool, float], None],
        on_active: Callable[[float], None],
        failure_rate: Callable[[], int],
    ) -> None:
        """`doubt(peer, accuser, now)` starts the verification of a member."""
        self._context = context
        self._requests = requests
        self._doubt = doubt
        self._on_change = on_change
        self._on_active = on_active
        self._failure_rate = failure_rate
        self._probing: dict[NodeId, int] = {}
        self._failed: dict[NodeId, tuple[int, float]] = {}
        self._repair_at = float("-inf")
        self._repair_wait_s = REPAIR_INTERVAL_S
        self._repair_version = -1
        self._repair_timer: Timer | None = None
        self._stopped = False
        self.active = False

    def start(self, now: float) -> None:
        """Begin the periodic exchange (Bamboo 2004, sec. 3)."""
        self._arm_exchange(now)

    def stop(self) -> None:
        """We are leaving: probe nobody and answer nobody, so that nobody takes us back."""
        self._stopped = True

    def activate_alone(self, now: float) -> None:
        """Start a new ring: nobody else is in it, so nothing needs to be asked."""
        self._become_active(now)

    def reconfirm(self, now: float) -> None:
        """After a long stall: answer for nothing until the members have confirmed us."""
        self.active = False
        members = self._context.leaf_set.members()
        for handle in members:
            self._context.peers.of(handle).digest_told = 0
            self.probe(handle, now)
        if not members:
            self._become_active(now)

    # -- probing --

    def probe(self, handle: Handle, now: float) -> None:
        """Probe a node, unless that is under way."""
        if self._stopped or handle.id in self._probing or handle.id == self._context.identity.id:
            return
        peer = self._context.peers.of(handle)
        config = self._context.config
        message = LeafSetProbe(self._context.nonce(), *self._content(peer))

        def on_answer(answer: LeafSetReply | None, now: float) -> None:
            self._on_answer(peer, answer, now)

        self._probing[handle.id] = self._requests.ask(
            peer,
            message,
            on_answer,
            now,
            attempts=config.probe_attempts + 1,
            timeout_s=max(config.probe_timeout_s, peer.rto_s),
        )

    def on_probe(self, message: LeafSetProbe, peer: Peer, now: float) -> None:
        """Somebody asks: learn from it and answer with our own."""
        if self._stopped:
            return
        self._learn(message, peer, now)
        self._context.send(LeafSetReply(message.nonce, *self._content(peer)), peer, now)
        self._settle(now)

    def _on_answer(self, peer: Peer, answer: LeafSetReply | None, now: float) -> None:
        self._probing.pop(peer.id, None)
        if answer is not None:
            self._learn(answer, peer, now)
        elif peer.id in self._context.leaf_set:
            self._doubt(peer, None, now)
        else:
            self.bury(peer.handle, now)
        self._settle(now)

    def _content(
        self, peer: Peer
    ) -> tuple[str, int, bool, int, int, int, tuple[Handle, ...], tuple[tuple[NodeId, int], ...]]:
        """Return what a probe and its reply say to this peer."""
        context = self._context
        identity = context.identity
        digest = context.leaf_set.digest()
        members: tuple[Handle, ...] = ()
        room = context.config.payload_bytes_max - 64
        if peer.digest_told != digest:
            members = tuple(context.leaf_set.members())
            room -= sum(len(pack_handle(h)) + 2 for h in members)
        most = max(0, min(FAILED_MAX, room // FULL_PROBE_BYTES_LEFT))
        failed = tuple((i, self._failed[i][0]) for i in list(self._failed)[-most:]) if most else ()
        return (
            identity.host,
            identity.port,
            self.active,
            digest,
            peer.digest,
            self._failure_rate(),
            members,
            failed,
        )

    # -- learning --

    def _learn(self, message: LeafSetProbe | LeafSetReply, peer: Peer, now: float) -> None:
        """Take in a probe or a reply: its sender lives; what it says of others is verified."""
        context = self._context
        peer.active = message.active
        peer.advertise(message.host, message.port)
        peer.digest_told = message.seen_digest
        if message.members or message.digest == peer.digest:
            peer.digest = message.digest
        self.welcome(peer, now)
        leaf_set = context.leaf_set
        for node_id, incarnation in message.failed:
            member = leaf_set.get(node_id)
            if member is not None and member.incarnation <= incarnation and node_id != peer.id:
                self._doubt(context.peers.of(member), peer.id, now)
        if message.active and message.members and not leaf_set.spans_ring:
            leaf_set.note_neighbours(peer.id, message.members[-1].id, message.members[0].id)
        for handle in message.members:
            # Never us, never a member.
            if not leaf_set.would_enter(handle.id) or self.is_buried(handle):
                continue
            if len(self._probing) >= PROBING_MAX:
                context.stats.count("hearsay_probes_refused")
                peer.digest = 0  # it shall name them again
                break
            self.probe(handle, now)

    def welcome(self, peer: Peer, now: float) -> None:
        """A node spoke for itself as a member of the ring: take it (back) into the tables."""
        context = self._context
        self._failed.pop(peer.id, None)
        fresh = peer.id not in context.leaf_set
        before = context.leaf_set.members() if fresh else ()
        changed = context.leaf_set.add(peer.told)
        context.table.consider(peer.told, peer.srtt_s)
        if peer.srtt_s is not None:
            context.neighborhood.consider(peer.told, peer.srtt_s)
        if changed and fresh:
            self._on_change(peer.handle, True, now)
            for handle in before:
                if handle.id not in context.leaf_set:
                    self._on_change(handle, False, now)

    def is_buried(self, handle: Handle) -> bool:
        """Tell whether gossip about this node is a ghost: declared dead, and not reborn since."""
        tombstone = self._failed.get(handle.id)
        return tombstone is not None and handle.incarnation <= tombstone[0]

    def bury(self, handle: Handle, now: float) -> None:
        """Believe no gossip about a node until it speaks for itself, or the tombstone expires."""
        if len(self._failed) >= TOMBSTONES_MAX:
            self._failed.pop(next(iter(self._failed)))
        expires = now + self._context.config.tombstone_s
        self._failed.pop(handle.id, None)
        self._failed[handle.id] = (handle.incarnation, expires)
        self._context.deadlines.arm(expires, self._expire, handle.id)

    def _expire(self, node_id: NodeId, now: float) -> None:
        tombstone = self._failed.get(node_id)
        if tombstone is not None and tombstone[1] <= now:
            del self._failed[node_id]

    def remove(self, peer: Peer, announce: bool, now: float) -> None:
        """A node is dead or left: out of all tables. `announce`: tell the leaf set."""
        context = self._context
        leaf_set = context.leaf_set
        was_neighbour = peer.id in {h.id for h in (*leaf_set.left[:1], *leaf_set.right[:1])}
        self.bury(peer.handle, now)
        context.table.discard(peer.id)
        context.neighborhood.discard(peer.id)
        nonce = self._probing.pop(peer.id, None)
        if nonce is not None:
            self._requests.cancel(nonce)
        if leaf_set.discard(peer.id):
            self._on_change(peer.handle, False, now)
            if announce and was_neighbour:
                for handle in leaf_set.members():
                    self.probe(handle, now)
        self._settle(now)

    # -- completeness --

    def _settle(self, now: float) -> None:
        """When nothing is outstanding: complete means active; otherwise look further outwards."""
        if self._probing:
            return
        leaf_set = self._context.leaf_set
        if leaf_set.is_full or (len(leaf_set) and leaf_set.spans_ring):
            if not self.active:
                self._become_active(now)
            return
        if self._repair_timer is None:
            self._repair_timer = self._context.deadlines.arm(
                max(now, self._repair_at + self._repair_wait_s), self._repair
            )

    def _repair(self, now: float) -> None:
        """Extend the short sides; slower and slower while that brings nothing."""
        self._repair_timer = None
        self._repair_at = now
        leaf_set = self._context.leaf_set
        if leaf_set.version != self._repair_version:
            self._repair_version = leaf_set.version
            self._repair_wait_s = REPAIR_INTERVAL_S
        else:
            longest = self._context.config.leaf_set_exchange_s
            self._repair_wait_s = min(2 * self._repair_wait_s, longest)
        wanted = self._context.config.leaf_set_size // 2
        for side, to_right in ((leaf_set.left, False), (leaf_set.right, True)):
            if len(side) < wanted:
                self._extend(side, to_right, now)

    def _extend(self, side: list[Handle], to_right: bool, now: float) -> None:
        """Ask the outermost of a short side; an empty side: the nearest that we know that way."""
        if side:
            outermost = side[-1]
            self._context.peers.of(outermost).digest = 0
            self.probe(outermost, now)
            return
        own_id = self._context.identity.id
        known = {h.id: h for h in self._context.leaf_set.members()}
        known.update((h.id, h) for h in self._context.table.entries())
        for node_id in sorted(
            known, key=lambda i: clockwise(own_id, i) if to_right else clockwise(i, own_id)
        )[:STEPPING_STONES]:
            self._context.peers.of(known[node_id]).digest = 0
            self.probe(known[node_id], now)

    def _become_active(self, now: float) -> None:
        self.active = True
        self._context.log("node_active", members=len(self._context.leaf_set))
        self._on_active(now)

    # -- periodic exchange --

    def _arm_exchange(self, now: float) -> None:
        period = self._context.config.leaf_set_exchange_s
        jittered = period * (0.75 + 0.5 * self._context.rng.random())
        self._context.deadlines.arm(now + jittered, self._exchange)

    def _exchange(self, now: float) -> None:
        """Exchange leaf sets with one random member; periodic repair does not feed back."""
        members = [
            h
            for h in self._context.leaf_set.members()
            if self._context.peers.of(h).liveness is Liveness.ALIVE
        ]
        if members:
            self.probe(members[self._context.rng.randrange(len(members))], now)
        self._arm_exchange(now)
