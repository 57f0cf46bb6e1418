"""Keeping k copies of every item on its k closest live nodes: what we lack comes here (DESIGN 6).

Owns when to compare with whom (after a change of the leaf set about every second until all is
equal, less and less often if that moves nothing; else every `reconcile_s`) and when to pull what is
missing (`missing.py`): in the background under a token bucket, spread over the holders. A full disk
is tried again every `reconcile_s`, with one item. What is not ours any more is `handover.py`'s. How
two stores are compared is `reconcile.py`'s business.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.ids import Arc, Name, NodeId, position_of
from pastryd.protocol.context import Context
from pastryd.protocol.missing import Missing
from pastryd.protocol.outbox import WriteStatus
from pastryd.protocol.pull_state import Pulled, PullItem, PullResult
from pastryd.protocol.requests import Requests
from pastryd.protocol.storage import Storage
from pastryd.state.deadlines import Timer
from pastryd.state.handle import Handle
from pastryd.state.peers import ALIVE, Peer
from pastryd.wire.messages import HaveQuery, HaveReply, Leave, Store

SOON_S = 0.2
AGAIN_S = 1.0
PULL_DEADLINE_S = 120.0
"""Of one item: as many as are pulled at once, of 1 MiB each, over 70 KB/s. Who falls silent is left
long before; to give up what still arrives would only begin it anew."""
BURST_S = 0.25
BURST_BYTES_MIN = 2 << 20
ITEM_COST_BYTES = 2048
"""What a pull costs besides its bytes: it bounds how many small items move in a second."""


class Compare(Protocol):
    """`Reconcile.compare`."""

    def __call__(
        self,
        peer: Peer,
        arcs: Sequence[Arc],
        on_done: Callable[[bool | None, float], None],
        now: float,
    ) -> bool:
        """Compare arcs with a peer; False: already at it."""


class Replication:
    """What one node lacks, and how it comes by it."""

    __slots__ = (
        "_again_s",
        "_all_compared_at",
        "_changed",
        "_compare",
        "_context",
        "_full_until",
        "_is_active",
        "_missing",
        "_pull",
        "_refilled_at",
        "_requests",
        "_storage",
        "_tokens",
        "_unequal",
        "_unsettled_at",
        "_wake",
        "_wheel",
        "leaving",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        storage: Storage,
        compare: Compare,
        pull: PullItem,
        is_active: Callable[[], bool],
    ) -> None:
        self._context = context
        self._requests = requests
        self._storage = storage
        self._compare = compare
        self._pull = pull
        self._is_active = is_active
        self._missing = Missing(context)
        self._unequal: dict[NodeId, None] = {}
        """Partners with whom we have not been equal since something changed."""
        self._changed = False
        """Something did, and `_unequal` is of before: a join is a change for each of 16 members."""
        self._again_s = AGAIN_S
        """Until we compare with those again: longer and longer while neither side moves."""
        self._all_compared_at = 0.0
        self._full_until: float | None = None
        """The disk is full: until then nothing is pulled, then one item to see; None: it is not."""
        self._tokens = float(BURST_BYTES_MIN)
        self._refilled_at = 0.0
        self._unsettled_at = 0.0
        self._wake: Timer | None = None
        self._wheel: Timer | None = None
        self.leaving = False
        """We hand everything over and go: nobody may count on our copies any more."""

    # -- when to compare, and with whom --

    def start(self, now: float) -> None:
        """Begin the periodic rounds."""
        self._refilled_at = self._all_compared_at = now
        self._arm_round(now, SOON_S)

    def update(self, handle: Handle, joined: bool, now: float) -> None:
        """The leaf set changed: so did the ranges that we share, with everybody."""
        self._unsettled_at = now
        if self._wheel is None or self._changed:
            return  # a round is soon
        if not self._context.items_near and not self._holds_any:
            return  # nobody of whom we heard has anything to compare
        self._changed = True
        self._again_s = AGAIN_S
        self._arm_round(now, SOON_S)

    def recheck(self, now: float) -> None:
        """An item of ours was lost: compare soon, so that a good copy comes back."""
        if self._wheel is not None:
            for partner in self._partners():
                peer = self._context.peers.of(partner)
                peer.holds_items = True  # what they said before they got theirs means nothing now
            self._changed = True
            self._again_s = AGAIN_S
            self._arm_round(now, SOON_S)

    @property
    def settled(self) -> bool:
        """Nothing is missing, as far as we know, and no neighbour is known to differ."""
        return not self._differing() and not self._missing

    def is_sure(self, now: float) -> bool:
        """Tell whether what we lack is nobody's: settled, and for a whole period so.

        Right after a mass join our neighbours may be as empty as we are, and agree with us.
        """
        return self.settled and now - self._unsettled_at >= self._context.config.reconcile_s

    @property
    def missing(self) -> int:
        """How many items we know that we lack."""
        return len(self._missing)

    def _partners(self) -> tuple[Handle, ...]:
        """Return the nodes within k places on either side: nobody else shares a range with us."""
        return self._context.leaf_set.beside(self._context.config.replicas)

    def _differing(self) -> dict[NodeId, None]:
        """Return the partners with whom we have not been equal since something changed."""
        if self._changed:
            self._changed = False
            self._unequal = {partner.id: None for partner in self._partners()}
        return self._unequal

    def _arm_round(self, now: float, wait_s: float) -> None:
        """Have a round after about `wait_s`, but not later than one that is armed."""
        when = now + wait_s * (0.5 + self._context.rng.random())
        if self._wheel is not None and self._wheel.pending:
            if self._wheel.when <= when:
                return
            self._wheel.cancel()
        self._wheel = self._context.deadlines.arm(when, self._round)

    def _round(self, now: float) -> None:
        """Compare with all partners, or with those that differed; not while they have us pull.

        Some may differ for good, or have us pull for ever: all others have their turn in time.
        """
        context = self._context
        config = context.config
        if self.leaving:
            return
        partners, unequal, holds_any = self._partners(), self._differing(), self._holds_any
        is_due = now - self._all_compared_at >= config.reconcile_s
        if self._is_active() and (is_due or not self._missing.from_members):
            if is_due or not unequal:
                self._all_compared_at = now
            for partner in partners:
                differed = partner.id in unequal
                if (unequal and not differed and not is_due) or self._missing.is_due_to(partner.id):
                    continue
                peer = context.peers.of(partner)
                if not differed and not self._is_ours_to_ask(peer):
                    continue
                if peer.liveness is not ALIVE:
                    continue
                arcs: Sequence[Arc] = ()
                if holds_any or peer.holds_items:
                    arcs = context.leaf_set.shared_ranges(peer.id, config.replicas)
                if arcs:
                    self._start_comparing(peer, arcs, now)
                else:
                    unequal.pop(peer.id, None)
        if unequal:
            ids = {partner.id for partner in partners}
            self._unequal = {i: None for i in unequal if i in ids}
        wait_s = config.reconcile_s
        if self._unequal or self.missing:
            wait_s = self._again_s
            self._again_s = min(2 * self._again_s, config.reconcile_s)
        self._arm_round(now, wait_s)

    @property
    def _holds_any(self) -> bool:
        return len(self._storage.inventory) > 0

    def _is_ours_to_ask(self, peer: Peer) -> bool:
        """Of a pair one asks, the one with the smaller id; after a change both do.

        Who holds something asks whoever said that it holds nothing, for that node may think the
        same of us, and where neither side holds anything nobody asks.
        """
        return self._context.identity.id < peer.id or (self._holds_any and not peer.holds_items)

    def _start_comparing(self, peer: Peer, arcs: Sequence[Arc], now: float) -> None:
        version = self._context.leaf_set.version

        def compared(equal: bool | None, now: float) -> None:
            unequal = self._differing()
            if equal and version == self._context.leaf_set.version:
                unequal.pop(peer.id, None)
            elif equal is not None:
                if peer.id not in unequal:
                    self._again_s = AGAIN_S
                unequal[peer.id] = None
                self._arm_round(now, self._again_s)

        self._compare(peer, arcs, compared, now)

    # -- what others ask and tell --

    def on_have_query(self, message: HaveQuery, peer: Peer, now: float) -> None:
        """Tell what we hold durably. Who hands over expects us to fetch the rest."""
        storage = self._storage
        bitmap = 0
        if not self.leaving:
            for i, name in enumerate(message.names):
                if storage.holds(name):
                    bitmap |= 1 << i
        self._context.send(HaveReply(message.nonce, bitmap), peer, now)
        if self.leaving and message.expect:
            # Whoever hands over to us must look for others, above all if it is leaving, too.
            self._context.send(Leave(self._context.identity.incarnation), peer, now)
        if message.expect and not self.leaving:
            self.note_missing([n for n in message.names if not storage.holds(n)], peer, now)

    def note_missing(self, names: Sequence[Name], peer: Peer, now: float) -> None:
        """Queue what a peer has and we lack, if it is ours (or nearly, while the ring changes)."""
        if names:
            self._unsettled_at = now
        context = self._context
        if self._full_until is not None and names:
            if now < self._full_until or self._missing:
                return
            # Any of them: a smaller one may fit.
            names = [context.rng.choice(names)]
        for name in names:
            if self._missing.is_queued(name) or self._is_wanted(name):
                self._missing.add(name, peer)
        self._pump(now)

    def _is_wanted(self, name: Name) -> bool:
        if self._missing.is_pulled(name) or self.leaving or not self._is_nearly_ours(name):
            return False
        return self._storage.has_room_for(name)

    def _is_nearly_ours(self, name: Name) -> bool:
        near = 2 * self._context.config.replicas
        return None in self._context.leaf_set.replica_set(position_of(name), near)

    # -- pulls --

    def _refill(self, now: float) -> None:
        rate = self._context.config.repair_bytes_per_s
        burst = max(BURST_BYTES_MIN, rate * BURST_S)
        self._tokens = min(burst, self._tokens + rate * (now - self._refilled_at))
        self._refilled_at = now

    def _pump(self, now: float) -> None:
        """Pull the nearest missing items, as many at a time and as fast as the settings allow."""
        config, missing = self._context.config, self._missing
        self._refill(now)
        while missing.queued:
            if self._tokens <= 0:
                if self._wake is None or not self._wake.pending:
                    wait_s = (ITEM_COST_BYTES - self._tokens) / config.repair_bytes_per_s
                    self._wake = self._context.deadlines.arm(now + wait_s, self._pump)
                return
            taken = missing.take(config.repair_pulls)
            if taken is None:
                return
            name, holders = taken
            if self._storage.holds(name) or not self._is_nearly_ours(name):
                missing.ended(name)
                continue
            # Spread over the holders: each item begins at another one.
            turn = name[-1] % len(holders)
            self._pull_missing(name, holders[turn:] + holders[:turn], now)

    def _pull_missing(self, name: Name, holders: list[Peer], now: float) -> None:
        self._tokens -= ITEM_COST_BYTES

        def pulled(result: PullResult, now: float) -> None:
            self._missing.note_result(name, isinstance(result, Pulled))
            if not isinstance(result, Pulled):
                self._context.stats.count("repair_pulls_failed")
                # We have no better one, but who has a bad one should look at it, and drop it.
                self._report(name, OBJECT_BYTES_MAX, result.corrupt, now)
                ended(now)
                return
            self._refill(now)
            self._tokens -= len(result.value)
            size = len(result.value)

            def written(status: WriteStatus, now: float) -> None:
                if status is WriteStatus.OK:
                    self._full_until = None
                    self._again_s = AGAIN_S
                    self._context.stats.count("items_repaired")
                    self._report(name, size, result.corrupt, now)
                elif status is WriteStatus.FULL:
                    self._stop_pulling(now)
                ended(now)

            self._storage.write(name, result.value, written, now)

        def ended(now: float) -> None:
            self._missing.ended(name)
            self._pump(now)
            if not self._missing:
                self._arm_round(now, self._again_s)

        self._pull(name, None, holders, pulled, now, background=True, deadline_s=PULL_DEADLINE_S)

    def _stop_pulling(self, now: float) -> None:
        """The disk is full: what is missing stays missing for a while."""
        self._context.stats.count("repairs_refused_full")
        self._full_until = now + self._context.config.reconcile_s
        self._missing.clear()

    def _report(self, name: Name, size: int, corrupt: Sequence[Peer], now: float) -> None:
        """Have them look at their own who gave us a bad copy; see `Blobs.on_store`."""
        for peer in corrupt:
            self._context.stats.count("bad_copies_received")
            message = Store(self._context.nonce(), name, size, b"")
            self._requests.ask(
                peer, message, lambda answer, now: None, now, attempts=2, measure=False
            )

    def check_invariants(self) -> None:
        """Assert what always holds."""
        self._missing.check_invariants()
