"""Leaf-set upkeep: MSPastry's probes (Castro, Costa, Rowstron 2004, fig. 2) with summaries.

A node enters our leaf set when it answered (or sent) a probe itself, never on hearsay; it leaves on
our own verdict (`liveness.py`), on its `Leave`, never on hearsay. While we join we are not active;
we become active when no probe is outstanding and the leaf set is full or spans the ring: from then
on all its members know us.

Deviation: probes carry a summary of the members, and those alone whom the other side lacks;
detected failures are announced by the ring neighbours of the dead node alone (`succession.py`), the
others verify what they hear.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from pastryd.ids import NodeId
from pastryd.protocol.context import STAND_IN_BYTES_MAX, Context
from pastryd.protocol.leafset_repair import LeafSetRepair
from pastryd.protocol.requests import Requests
from pastryd.protocol.succession import Succession
from pastryd.state import leaf_set_summary as views
from pastryd.state.handle import Handle
from pastryd.state.peers import Liveness, Peer
from pastryd.state.settling import Settling
from pastryd.state.tombstones import Tombstones
from pastryd.wire.handles import pack_handle
from pastryd.wire.messages import FAILED_MAX, Heartbeat, LeafSetProbe, LeafSetReply

ASK_AGAIN_ONE_IN = 8
"""Of so many heartbeats that differ for the same reason one makes us ask again: whoever was told of
a node may have believed it dead."""
ANSWERED_BESIDE = 2
"""So many on either side must have answered before we answer for keys."""
PROBING_MAX = 64
"""Above this nobody is probed on hearsay. Honest leaf sets name at most some thirty at once."""
UNASKED_MAX = PROBING_MAX // 2
"""The same for the hearsay of those whom we did not ask: it must leave room for answers."""
CONTENT_BYTES = 80
"""The most that a probe takes besides its lists."""
FAILED_ENTRY_BYTES = 28
_Failed = tuple[tuple[NodeId, int], ...]


class LeafSetUpkeep:
    """Keeps the leaf set true. `on_change(handle, joined, now)` is told of each change."""

    __slots__ = (
        "_context",
        "_doubt",
        "_failure_rate",
        "_holds_items",
        "_on_active",
        "_on_change",
        "_repair",
        "_requests",
        "_settling",
        "_side_max",
        "_stopped",
        "_tombstones",
        "active",
        "succession",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        doubt: Callable[[Peer, NodeId | None, float], None],
        on_change: Callable[[Handle, bool, float], None],
        on_active: Callable[[float], None],
        failure_rate: Callable[[], int],
        holds_items: Callable[[], bool],
    ) -> None:
        """`doubt(peer, accuser, now)` starts the verification of a member."""
        self._context = context
        self._side_max = context.config.leaf_set_size // 2
        self._requests = requests
        self._doubt = doubt
        self._on_change = on_change
        self._on_active = on_active
        self._failure_rate = failure_rate
        self._holds_items = holds_items
        self._settling = Settling()
        self._tombstones = Tombstones()
        self.succession = Succession(
            context,
            lambda handle, now: self._probe_all([handle], (), now),
            lambda handles, now: self._probe_news(handles, UNASKED_MAX, now),
            self.welcome,
        )
        self._repair = LeafSetRepair(
            context, lambda handles, now: self._probe_all(handles, (), now), lambda: self.active
        )
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
        self._settling.root(now)
        self._become_active(now)

    def place(self, root: Handle, now: float) -> None:
        """The root of our id has answered our join: it leads us to our neighbours."""
        if not (self._settling.is_rooted and len(self._context.leaf_set)):
            timeout_s = self._timeout_s(self._context.peers.of(root))
            self._settling.root(now + self._silent_s(timeout_s))
        self.probe(root, now)

    def reconfirm(self, now: float) -> None:
        """After a long stall: answer for nothing until the members have confirmed us."""
        self.active = False
        self._settling.root(now + self._silent_s(self._context.config.probe_timeout_s))
        members = self._context.leaf_set.members()
        self._probe_all(members, (), now, tells_back=True)
        if not members:
            self._become_active(now)

    # -- probing --

    def probe(self, handle: Handle, now: float) -> None:
        """Probe a node, unless that is under way; if it lacks members of ours, tell it."""
        self._probe_all([handle], (), now, tells_back=True)

    def _probe_all(
        self,
        handles: Iterable[Handle],
        told: tuple[Handle, ...],
        now: float,
        *,
        tells_back: bool = False,
        is_hearsay: bool = False,
    ) -> None:
        """Probe nodes; `told`: members of ours whom they seem not to know.

        `tells_back`: probe them once more if their answers show whom they lack. While many repair
        their leaf sets at once they lack much, and learn it from those whom they miss.
        `is_hearsay`: they may not exist.
        """
        if self._stopped:
            return
        context = self._context
        own_id = context.identity.id
        fresh = [h for h in handles if h.id not in self._settling and h.id != own_id]
        if not fresh:
            return
        # All at once, so that each hears that we know of the others.
        nonces = [context.nonce() for _ in fresh]
        for handle, nonce in zip(fresh, nonces, strict=True):
            self._settling.begin(handle.id, nonce, is_hearsay, now)
        known, patience_s = self._known(), 0.0
        for handle, nonce in zip(fresh, nonces, strict=True):
            peer = context.peers.of(handle)
            timeout_s = self._timeout_s(peer)
            patience_s = max(patience_s, timeout_s)
            self._requests.ask(
                peer,
                LeafSetProbe(nonce, *self._content(peer, nonce, known, told)),
                partial(self._on_answer, peer, tells_back),
                now,
                attempts=context.config.probe_attempts + 1,
                timeout_s=timeout_s,
            )
        if not self.active:
            context.deadlines.arm(now + patience_s, self._settle)  # is who is left silent?

    def _timeout_s(self, peer: Peer) -> float:
        return max(self._context.config.probe_timeout_s, peer.rto_s)

    def _silent_s(self, timeout_s: float) -> float:
        """Return after how long a silent one is given up."""
        return (2.0 ** (self._context.config.probe_attempts + 1) - 1) * timeout_s

    def on_probe(self, message: LeafSetProbe, peer: Peer, now: float) -> None:
        """Somebody asks: learn from it, answer with our own and with whom it lacks."""
        if self._stopped:
            return
        certain_at = now + self._context.config.join_retry_s
        if message.members and self._settling.place(certain_at):  # it takes us for a neighbour
            self._context.deadlines.arm(certain_at, self._settle)
        if self._settling.is_placed:
            self._learn(message, peer, now)
        if peer.id not in self._context.leaf_set:
            self.succession.note_unfit(peer.id, now)
        content = self._content(peer, message.nonce, self._known(), self._lacking(message, peer))
        self._context.send(LeafSetReply(message.nonce, *content), peer, now)
        self._settle(now)

    def on_heartbeat(self, message: Heartbeat, peer: Peer, now: float) -> None:
        """A neighbour, or who takes itself for one, beats: ask why if our views differ."""
        if not self._settling.is_placed:
            return
        leaf_set = self._context.leaf_set
        mismatch = message.digest ^ leaf_set.right_digest
        right = leaf_set.immediate_right
        if right is not None and right.id == peer.id:
            if mismatch and peer.mismatch == ~mismatch:
                if self._context.rng.randrange(ASK_AGAIN_ONE_IN):
                    return  # we have asked why
                peer.mismatch = mismatch
            if not mismatch or peer.mismatch != mismatch:
                # News is on its way, mostly; if not, the next heartbeat will differ as much.
                peer.mismatch = mismatch
                return
        elif peer.id in leaf_set:
            if ~mismatch == peer.mismatch:
                return
        elif not leaf_set.would_enter(peer.id) or self._tombstones.covers(peer.handle):
            return
        peer.mismatch = ~mismatch
        stranger = peer.id not in leaf_set
        self._probe_all([peer.handle], (), now, tells_back=True, is_hearsay=stranger)

    def _on_answer(
        self, peer: Peer, tells_back: bool, answer: LeafSetReply | None, now: float
    ) -> None:
        self._settling.end(peer.id)
        if answer is not None:
            self._learn(answer, peer, now)
            unknown = self._lacking(answer, peer) if tells_back and self.active else ()
            if unknown:
                self._probe_all([peer.handle], unknown, now)
        elif peer.id in self._context.leaf_set:
            self._doubt(peer, None, now)
        else:
            if not self.active:
                self._note_named(len(self._settling) + 1)
                self.succession.tell_in_its_place(peer.handle, now)
            self._bury(peer.handle, now)
        self._settle(now)

    def _lacking(self, message: LeafSetProbe | LeafSetReply, peer: Peer) -> tuple[Handle, ...]:
        """Return whom the sender of a message lacks, as far as we know."""
        said = message.summary, message.nonce, self._side_max, message.failed
        return views.lacking(self._context.leaf_set, peer.id, *said)

    def _known(self) -> Sequence[NodeId]:
        """Return whom nobody needs to tell us, clockwise: the members, and who may be one soon."""
        leaf_set = self._context.leaf_set
        if self.active or not self._settling:
            return leaf_set.member_ids
        known = dict.fromkeys([*leaf_set.member_ids, *self._settling])
        return views.nearest_to(leaf_set.owner, known, self._side_max)

    def _content(
        self, peer: Peer, nonce: int, known: Sequence[NodeId], members: tuple[Handle, ...]
    ) -> tuple[str, int, bool, bool, int, bytes, tuple[Handle, ...], _Failed]:
        """Return what a probe and its reply say to this peer."""
        context = self._context
        failed: _Failed = ()
        if self._tombstones:
            # An address that must prove itself first gets as much as may stand for a Hello: the
            # last deaths are in it, which may be why we ask, and which nobody else tells that node.
            room = STAND_IN_BYTES_MAX if peer.unproven else context.config.payload_bytes_max
            room -= CONTENT_BYTES + sum(len(pack_handle(h)) + 2 for h in members)
            failed = self._tombstones.latest(max(0, min(FAILED_MAX, room // FAILED_ENTRY_BYTES)))
        return (
            *context.identity.endpoint,
            self.active,
            self._holds_items(),
            self._failure_rate(),
            views.summarize(known, nonce),
            members,
            failed,
        )

    # -- learning --

    def _learn(self, message: LeafSetProbe | LeafSetReply, peer: Peer, now: float) -> None:
        """Take in a probe or a reply: its sender lives; what it says of others is verified."""
        context, leaf_set = self._context, self._context.leaf_set
        peer.note_active(message.active)
        peer.advertise(message.host, message.port)
        peer.holds_items = message.holds_items
        context.items_near |= message.holds_items
        self.welcome(peer, now)
        for node_id, incarnation in message.failed:
            member = leaf_set.get(node_id)
            if member is not None and member.incarnation <= incarnation and node_id != peer.id:
                self._doubt(context.peers.of(member), peer.id, now)
        if message.active and message.summary and leaf_set.has_gap:
            named = [context.identity.id, *(h.id for h in (*leaf_set.members(), *message.members))]
            neighbours = views.neighbours_in(message.summary, message.nonce, peer.id, named)
            leaf_set.note_neighbours(peer.id, *neighbours)
        if message.members:
            asked = isinstance(message, LeafSetReply)
            self._probe_news(message.members, PROBING_MAX if asked else UNASKED_MAX, now)

    def _probe_news(self, handles: Sequence[Handle], probing_max: int, now: float) -> None:
        """Probe those of whom we heard that would enter: never us, never a member."""
        context = self._context
        would_enter = context.leaf_set.would_enter
        news = [h for h in handles if would_enter(h.id) and not self._tombstones.covers(h)]
        room = max(0, probing_max - len(self._settling))
        if len(news) > room:
            context.stats.count("hearsay_probes_refused", len(news) - room)
        self._probe_all(news[:room], (), now, is_hearsay=True)

    def welcome(self, peer: Peer, now: float) -> None:
        """A node spoke for itself as a member of the ring: take it (back) into the tables."""
        context = self._context
        leaf_set, told, srtt_s = context.leaf_set, peer.told, peer.srtt_s
        self._tombstones.lift(peer.id)
        fresh = peer.id not in leaf_set
        before = leaf_set.members() if fresh else ()
        changed = leaf_set.add(told)
        context.table.consider(told, srtt_s)
        if srtt_s is not None:
            context.neighborhood.consider(told, srtt_s)
        if changed and fresh:
            self._on_change(peer.handle, True, now)
            if len(leaf_set) == len(before):
                kept = set(leaf_set.member_ids)
                for handle in [handle for handle in before if handle.id not in kept]:
                    self._on_change(handle, False, now)

    def _bury(self, handle: Handle, now: float) -> None:
        """Believe no gossip about a node until it speaks for itself, or the tombstone expires."""
        expires = now + self._context.config.tombstone_s
        self._tombstones.bury(handle, expires)
        self._context.deadlines.arm(expires, self._tombstones.expire, handle.id)

    def remove(self, peer: Peer, announce: bool, now: float) -> None:
        """A node is dead or left: out of all tables. `announce`: tell the leaf set."""
        context = self._context
        leaf_set = context.leaf_set
        right = leaf_set.immediate_right
        is_ours = announce and right is not None and right.id == peer.id
        told = views.around_members(leaf_set, self._side_max) if is_ours else {}
        self._bury(peer.handle, now)
        context.table.discard(peer.id)
        context.neighborhood.discard(peer.id)
        nonce = self._settling.end(peer.id)
        if nonce is not None:
            self._requests.cancel(nonce)
        if leaf_set.discard(peer.id):
            self._on_change(peer.handle, False, now)
            self.succession.tell_of(peer.handle, told, now)
            self.succession.let_in_heirs(peer.id, now)
        self._settle(now)

    # -- completeness --

    def _settle(self, now: float) -> None:
        """When nobody is waited for: complete means active; otherwise look further outwards."""
        if not self._settling.may_settle(now):
            return
        awaited = self._settling.awaited
        if awaited:
            if not self.active and self._can_do_without(awaited):
                self._become_active_without_the_silent(now)
            return
        leaf_set = self._context.leaf_set
        if leaf_set.is_full or (len(leaf_set) and leaf_set.spans_ring):
            if not self.active:
                self._become_active_without_the_silent(now)
            return
        self._repair.begin(now)

    def _can_do_without(self, awaited: Mapping[NodeId, int]) -> bool:
        """Tell whether all who have not answered yet are silent, and far enough from us.

        Deviation: MSPastry waits for all. But who is silent is dead, mostly, and what is for us
        waits meanwhile. If it lives it routes our keys to nodes between us, who know us.
        """
        if not all(map(self._requests.is_repeated, awaited.values())):
            return False
        return views.answered_beside(self._context.leaf_set, awaited.keys(), ANSWERED_BESIDE)

    def _become_active_without_the_silent(self, now: float) -> None:
        if self._settling:
            leaf_set = self._context.leaf_set
            self._note_named(sum(node_id not in leaf_set for node_id in self._settling))
        self._become_active(now)

    def _note_named(self, others: int) -> None:
        """So many more nodes than answered were named: is the ring larger than our leaf set?"""
        leaf_set = self._context.leaf_set
        if len(leaf_set) + others >= 2 * self._side_max:
            leaf_set.note_larger()

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
        context = self._context
        of = context.peers.of
        members = [h for h in context.leaf_set.members() if of(h).liveness is Liveness.ALIVE]
        if members:
            self.probe(members[context.rng.randrange(len(members))], now)
        self._arm_exchange(now)
