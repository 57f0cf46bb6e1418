"""Handing over what is not ours any more, and all of it when we leave (DESIGN sec. 6).

Owns the walk over the items outside our range: their k closest are asked whether they have them
durably, and told to fetch what they lack from us; a copy is dropped only after k nodes, all others
than we, confirmed it while our leaf set stood still. Lazy and in small batches: a copy too many
costs space, a copy too few may cost the item. Leaving is the same walk over everything, bounded by
`leave_timeout_s`, and drops nothing: the data directory may come back.
"""

from collections.abc import Callable, Sequence

from pastryd.ids import Name, Position, position_of
from pastryd.protocol import placement
from pastryd.protocol.context import Context
from pastryd.protocol.lookup import Lookup
from pastryd.protocol.outbox import WriteStatus
from pastryd.protocol.requests import Requests
from pastryd.protocol.storage import Storage
from pastryd.state.deadlines import Timer
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire.messages import NAMES_MAX, HaveQuery, HaveReply

BATCH_NAMES = 256
RESOLVED_MAX = 16
"""Names in a batch whose replica set only a routed question can tell."""
CALM_S = 2.0
"""How long the leaf set must have stood still before anything is dropped."""
LOOK_AGAIN_S = 2 * CALM_S
"""About how long after a change the next walk begins."""
JITTER = 0.25
STEP_S = 0.5
LEAVE_STEP_S = 0.1
QUERY_ATTEMPTS = 3
CONFIRMED_S = 10.0
"""What was confirmed longer ago, before a stall of ours above all, says nothing of now."""

OnConfirmed = Callable[[list[Name], list[Name], float], None]
"""Takes the names that all k have, and the others, once per batch."""


class _Batch:
    """Collects the answers to one batch of names."""

    __slots__ = ("confirmed", "left", "on_done", "others")

    def __init__(self, on_done: OnConfirmed) -> None:
        self.on_done = on_done
        self.left = 1
        self.confirmed: list[Name] = []
        self.others: list[Name] = []

    def done(self, now: float) -> None:
        self.left -= 1
        if not self.left:
            self.on_done(self.confirmed, self.others, now)


class Handover:
    """The items of one node that others should hold."""

    __slots__ = (
        "_busy",
        "_changed_at",
        "_context",
        "_cursor",
        "_deadline",
        "_is_active",
        "_leave_all_seen",
        "_left_over",
        "_lookup",
        "_requests",
        "_storage",
        "_then_left",
        "_timer",
        "unconfirmed",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        storage: Storage,
        lookup: Lookup,
        is_active: Callable[[], bool],
    ) -> None:
        self._context = context
        self._requests = requests
        self._storage = storage
        self._lookup = lookup
        self._is_active = is_active
        self._cursor: Position | None = None
        self._changed_at = 0.0
        self._busy = False
        self._timer: Timer | None = None
        self._then_left: Callable[[float], None] | None = None
        self._left_over: list[Name] = []
        self._leave_all_seen = False
        self._deadline: Timer
        self.unconfirmed = 0
        """Items that are not ours and that the last walk could not drop."""

    def start(self, now: float) -> None:
        """Begin the walks."""
        self._changed_at = now
        self._arm(now, self._context.config.reconcile_s)

    def update(self, handle: Handle, joined: bool, now: float) -> None:
        """Our range may be another one."""
        self._changed_at = now
        timer = self._timer
        if timer is None or self._then_left is not None or not len(self._storage.inventory):
            return
        if not timer.pending or timer.when > now + (1 + JITTER) * LOOK_AGAIN_S:
            self._arm(now, LOOK_AGAIN_S)

    @property
    def outside(self) -> int:
        """How many items we hold that are not ours."""
        arc = self._context.leaf_set.replica_range(self._context.config.replicas)
        inventory = self._storage.inventory
        return 0 if arc is None else len(inventory) - inventory.fingerprint(*arc)[0]

    def _arm(self, now: float, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        when = now + wait_s * (1 - JITTER + 2 * JITTER * self._context.rng.random())
        self._timer = self._context.deadlines.arm(when, self._step)

    # -- the walk --

    def _step(self, now: float) -> None:
        """Take the next batch of items that are not ours."""
        if self._then_left is not None:
            return
        config = self._context.config
        arc = self._context.leaf_set.replica_range(config.replicas)
        calm = now - self._changed_at >= CALM_S
        if arc is None or not calm or self._busy or not self._is_active():
            self._cursor = None
            self._arm(now, config.reconcile_s if calm else LOOK_AGAIN_S)
            return
        start = arc[1] if self._cursor is None else self._cursor
        names = self._storage.inventory.names_in(start, arc[0], BATCH_NAMES)
        self._cursor = None
        if not names:
            self.unconfirmed = self.outside
            self._arm(now, config.reconcile_s)
            return
        if len(names) == BATCH_NAMES:
            self._cursor = position_of(names[-1])
        version, began = self._context.leaf_set.version, now
        self._busy = True

        def confirmed(have: list[Name], others: list[Name], now: float) -> None:
            self._busy = False
            unchanged = version == self._context.leaf_set.version
            is_sure = self._is_active() and self._then_left is None and now - began <= CONFIRMED_S
            if unchanged and is_sure:
                self._drop(have, now)
            elif self._cursor is not None:
                self._cursor = None
            self.unconfirmed = self.outside
            more = self._cursor is not None or others
            if self._then_left is None:
                self._arm(now, STEP_S if more and have else config.reconcile_s)

        self._confirm(names, confirmed, now)

    def _drop(self, names: list[Name], now: float) -> None:
        for name in names:
            if not placement.is_ours(self._context, position_of(name)):
                self._context.stats.count("items_handed_over")
                self._storage.delete(name, _ignore, now)

    # -- asking those who should hold them --

    def _confirm(self, names: Sequence[Name], on_done: OnConfirmed, now: float) -> None:
        """Ask the k closest nodes (without us) of each name; one message for up to 32 names."""
        context = self._context
        batch = _Batch(on_done)
        groups: dict[tuple[int, ...], tuple[list[Peer], list[Name]]] = {}
        to_resolve = 0
        # In any order: those that cannot be confirmed must not keep the others from their turn.
        for name in context.rng.sample(names, len(names)):
            position = position_of(name)
            if placement.knows(context, position):
                near = placement.closest(context, position, context.config.replicas + 1)
                peers = self._others(near)
                key = tuple([peer.id for peer in peers])
                groups.setdefault(key, (peers, []))[1].append(name)
            elif to_resolve < RESOLVED_MAX:
                to_resolve += 1
                self._resolve_one(batch, name, now)
            else:
                batch.others.append(name)
        for peers, group in groups.values():
            if not all(context.usable(peer.id) for peer in peers):
                batch.others += group
                continue
            for i in range(0, len(group), NAMES_MAX):
                self._ask_group(batch, peers, group[i : i + NAMES_MAX], now)
        batch.done(now)

    def _others(self, near: Sequence[Peer | None]) -> list[Peer]:
        return [peer for peer in near if peer is not None][: self._context.config.replicas]

    def _resolve_one(self, batch: _Batch, name: Name, now: float) -> None:
        batch.left += 1

        def resolved(near: Sequence[Peer | None] | None, now: float) -> None:
            if near:
                # Whom the root names lives, though we may once have taken it for dead: in no table
                # of ours, it would not be heard of again.
                self._ask_group(batch, self._others(near), [name], now)
            else:
                batch.others.append(name)
            batch.done(now)

        self._lookup.resolve(position_of(name), resolved, now)

    def _ask_group(self, batch: _Batch, peers: list[Peer], names: list[Name], now: float) -> None:
        if not peers:
            batch.others += names
            return
        # Fewer than there are may lie, or be cut off from the rest: they may fetch it, no more.
        context = self._context
        enough = len(peers) >= min(context.config.replicas, placement.others_known(context))
        common = (1 << len(names)) - 1 if enough else 0
        left = len(peers)
        batch.left += 1

        def answered(answer: HaveReply | None, now: float) -> None:
            nonlocal common, left
            common &= 0 if answer is None else answer.bitmap
            left -= 1
            if not left:
                for i, name in enumerate(names):
                    (batch.confirmed if common >> i & 1 else batch.others).append(name)
                batch.done(now)

        for peer in peers:
            message = HaveQuery(self._context.nonce(), True, tuple(names))
            self._requests.ask(peer, message, answered, now, attempts=QUERY_ATTEMPTS)

    # -- leaving --

    def leave(self, then: Callable[[float], None], now: float) -> None:
        """See to it that others hold everything that we hold, then call `then`; bounded in time."""
        if self._then_left is not None:
            return
        self._then_left = then
        self._cursor = None
        self._left_over = []
        self._leave_all_seen = False
        self.unconfirmed = len(self._storage.inventory)
        self._storage.on_stored = self._take_along
        wait_s = self._context.config.leave_timeout_s
        self._deadline = self._context.deadlines.arm(now + wait_s, self._end_leave)
        self._leave_step(now)

    def _take_along(self, name: Name) -> None:
        """An item arrived while we leave: our copy was or will be counted, so it is handed over."""
        self.unconfirmed += 1
        self._left_over.append(name)

    def _leave_step(self, now: float) -> None:
        if self._then_left is None:
            return
        if not len(self._context.leaf_set):
            self._end_leave(now)
            return
        names = self._next_to_leave()
        if not names:
            self._end_leave(now)
            return

        def confirmed(have: list[Name], others: list[Name], now: float) -> None:
            if self._then_left is None:
                return
            self.unconfirmed -= len(have)
            self._left_over += others
            if others:
                self._context.deadlines.arm(now + LEAVE_STEP_S, self._leave_step)
            else:
                self._leave_step(now)

        self._confirm(names, confirmed, now)

    def _next_to_leave(self) -> list[Name]:
        """Return new names first, so that all are being fetched while we ask again."""
        inventory = self._storage.inventory
        if not self._leave_all_seen:
            start = Position(0) if self._cursor is None else self._cursor
            names = inventory.names_in(start, Position(0), BATCH_NAMES)
            self._leave_all_seen = len(names) < BATCH_NAMES
            if not self._leave_all_seen:
                # An object and index entries may have one position: it is left whole to the next.
                self._cursor = position_of(names[-1])
                names = [name for name in names if position_of(name) != self._cursor]
            if names:
                return names
        names, self._left_over = self._left_over[:BATCH_NAMES], self._left_over[BATCH_NAMES:]
        return names

    def _end_leave(self, now: float) -> None:
        then, self._then_left = self._then_left, None
        if then is not None:
            self._deadline.cancel()
            self._context.log("handed_over", unconfirmed=self.unconfirmed)
            then(now)


def _ignore(status: WriteStatus, now: float) -> None:
    """Nobody waits for a copy to be gone."""
