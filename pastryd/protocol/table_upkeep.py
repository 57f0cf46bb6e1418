"""Routing-table upkeep: proximity, periodic repair, self-tuned probing (MSPastry 2004, sec. 4).

Fills slots at once with anything correct and improves them in the background: whoever looks nearer
is measured first. Correctness does not depend on this file; it lives in the leaf set alone. Entries
that are also leaf-set members are watched there and not probed here.
"""

from collections.abc import Callable, Sequence
from math import inf
from operator import itemgetter

from pastryd.ids import NodeId
from pastryd.protocol.context import Context
from pastryd.protocol.requests import Requests
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.state.tuning import (
    FailureHistory,
    expected_hops,
    median,
    ring_size,
    table_probe_period,
)
from pastryd.wire.messages import (
    DEEPEST_ROW,
    ROW_PADDING,
    RTT_US_MAX,
    Hop,
    Measured,
    Ping,
    Pong,
    RowReply,
    RowRequest,
    microseconds,
)

MEASURING_MAX = 32
RATE_SCALE = 1e9
CALM_PERIODS = 3
"""Of `table_probe_max_s`: a newcomer takes the time before it for calm, or the first failure that
it sees would be a rate of many."""
CANDIDATES_MAX = 2
"""How many nodes are measured of one row that may be nearer than those in our slots."""
MISSING_MEASURED_MAX = 3
"""How many of a row that fit in empty slots are measured, the nearest first: they choose among us
and others as we do, and are the likeliest to want us."""
WORTH_A_MESSAGE = 0.65
"""A newcomer says that it is nearer than our entry if it is by so much; its next ping says the
rest."""
UNANNOUNCED_MAX = 128
DENSE_ROW = 8
"""A row of so many entries is a sample of the ring that is good enough to begin a walk with."""


class TableUpkeep:
    """Keeps the routing table filled, near and alive."""

    __slots__ = (
        "_context",
        "_cursor",
        "_failures",
        "_heard_rates",
        "_is_active",
        "_measuring",
        "_on_unanswered",
        "_requests",
        "_unannounced",
        "period_s",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        on_unanswered: Callable[[Peer, float], None],
        is_active: Callable[[], bool],
    ) -> None:
        self._context = context
        self._is_active = is_active
        self._unannounced: list[Peer] = []
        self._requests = requests
        self._on_unanswered = on_unanswered
        self._failures = FailureHistory(0.0)
        self._heard_rates: dict[NodeId, float] = {}
        self._measuring: dict[NodeId, None] = {}
        self._cursor = 0
        self.period_s = context.config.table_probe_max_s
        """T_rt: how often an entry that said nothing is probed."""

    def start(self, now: float) -> None:
        """Begin the periodic work."""
        calm_s = CALM_PERIODS * self._context.config.table_probe_max_s
        self._failures = FailureHistory(now - calm_s)
        rng = self._context.rng
        self._context.deadlines.arm(now + self._probe_gap() * rng.random(), self._probe_next)
        self._arm_repair(now)

    # -- probing, self-tuned --

    def record_failure(self, now: float) -> None:
        """A node that we knew failed."""
        self._failures.record(now)
        self._tune(now)

    def failure_rate(self) -> int:
        """Return our estimate of mu for others to hear, in 1e-9 failures per node and second."""
        own = self._heard_rates.get(self._context.identity.id, 0.0)
        return min(int(own * RATE_SCALE), 0xFFFFFFFF)

    def hear_rate(self, peer_id: NodeId, failure_rate: int) -> None:
        """A leaf-set member told its estimate."""
        if peer_id in self._context.leaf_set:
            self._heard_rates[peer_id] = failure_rate / RATE_SCALE

    def _tune(self, now: float) -> None:
        context = self._context
        config = context.config
        own_id = context.identity.id
        known = len(context.leaf_set) + len(context.table)
        rates = {i: r for i, r in self._heard_rates.items() if i in context.leaf_set}
        rates[own_id] = self._failures.rate(known, now)
        self._heard_rates = rates
        rate = median(rates.values()) or 0.0
        detection = (2**config.probe_attempts - 1) * config.probe_timeout_s
        self.period_s = table_probe_period(
            config.lookup_loss_target,
            config.heartbeat_s,
            detection,
            rate,
            expected_hops(ring_size(context.leaf_set), config.bits_per_digit),
            config.table_probe_min_s,
            config.table_probe_max_s,
        )

    def _probe_gap(self) -> float:
        return self.period_s / max(1, len(self._context.table))

    def _probe_next(self, now: float) -> None:
        """Probe one entry if it was silent; each entry has its turn once in a period."""
        context = self._context
        entries = list(context.table.entries())
        if entries:
            self._cursor = (self._cursor + 1) % len(entries)
            handle = entries[self._cursor]
            if self._cursor == 0:
                self._tune(now)
            peer = context.peers.of(handle)
            # What we were told of a distance may be a lie, however much the teller says.
            is_due = peer.srtt_s is None or peer.last_heard + self.period_s / 2 <= now
            if is_due and handle.id not in context.leaf_set:
                self._ping(peer, self._on_entry, now)
        context.deadlines.arm(now + max(self._probe_gap(), 0.01), self._probe_next)

    def _ping(self, peer: Peer, then: Callable[[Peer, bool, float], None], now: float) -> None:
        """Ping a peer; take it into the tables if it answers; then tell whether it did."""

        def answered(answer: Pong | None, now: float) -> None:
            if answer is not None:
                self._consider_measured(peer)
                self._announce(peer, answer.wanted_us, now)
            then(peer, answer is not None, now)

        # Before we are active nobody should take us for somebody to route through.
        known_us = microseconds(peer.srtt_s) if self._is_active() else 0
        self._requests.ask(
            peer,
            Ping(self._context.nonce(), known_us),
            answered,
            now,
            attempts=self._context.config.probe_attempts,
            timeout_s=max(self._context.config.probe_timeout_s, peer.rto_s),
        )

    def _on_entry(self, peer: Peer, answered: bool, now: float) -> None:
        if not answered:
            self._on_unanswered(peer, now)

    # -- proximity --

    def on_ping(self, message: Ping, peer: Peer, now: float) -> None:
        """Answer, with how near the asker would have to be; it may say that it is."""
        wanted_us = microseconds(self._context.table.wanted_s(peer.id) * WORTH_A_MESSAGE)
        self._context.send(Pong(message.nonce, wanted_us), peer, now)
        if message.rtt_us:
            self._hear_distance(peer, message.rtt_us / 1e6, now)

    def on_measured(self, message: Measured, peer: Peer, now: float) -> None:
        """Somebody whom we would take says how far it is."""
        if message.rtt_us:
            self._hear_distance(peer, message.rtt_us / 1e6, now)

    def _announce(self, peer: Peer, wanted_us: int, now: float) -> None:
        """Tell a peer that we are near enough for a slot of its table; once we are active."""
        rtt_us = microseconds(peer.srtt_s)
        if not 0 < rtt_us < wanted_us:
            return
        if self._is_active():
            self._context.send(Measured(rtt_us), peer, now)
        elif len(self._unannounced) < UNANNOUNCED_MAX:
            self._unannounced.append(peer)

    def on_active(self, now: float) -> None:
        """Tell those who want us that we may be routed through now."""
        for peer in self._unannounced:
            self._context.send(Measured(microseconds(peer.srtt_s)), peer, now)
        self._unannounced.clear()

    def measure(
        self, handle: Handle, then: Callable[[Peer, bool, float], None], now: float
    ) -> None:
        """Ping a node unless its distance is known; then tell whether it answered."""
        peer = self._context.peers.of(handle)
        if peer.srtt_s is None:
            self._ping(peer, then, now)
        else:
            then(peer, True, now)

    def _hear_distance(self, peer: Peer, rtt_s: float, now: float) -> None:
        """A node says how far it is, which may be a lie: nobody whom we measured gives way to it.

        It takes a slot that nobody holds, or who was not measured either; else we measure it.
        """
        table, known = self._context.table, self._context.peers.get
        if rtt_s >= table.wanted_s(peer.id):
            return
        entry = table.lookup(peer.id)
        holder = None if entry is None else known(entry.id)
        if peer.srtt_s is None and (holder is None or holder.srtt_s is None):
            table.consider(peer.told, rtt_s)
        else:
            self.suggest(peer.handle, now)

    def suggest(self, handle: Handle, now: float) -> bool:
        """Somebody knows this node: measure it if it may be better than what we have.

        Returns whether a measurement started.
        """
        context = self._context
        wanted_s = context.table.wanted_s(handle.id)
        if not wanted_s or handle.id in self._measuring:
            return False
        peer = context.peers.get(handle.id)
        rtt_s = peer.srtt_s if peer is not None else None
        if peer is not None and rtt_s is not None:
            if rtt_s < wanted_s:
                context.table.consider(peer.told, rtt_s)
            return False
        if len(self._measuring) >= MEASURING_MAX:
            context.stats.count("measurements_skipped")
            return False
        self._measuring[handle.id] = None
        self._ping(context.peers.of(handle), self._on_measured, now)
        return True

    def _on_measured(self, peer: Peer, answered: bool, now: float) -> None:
        self._measuring.pop(peer.id, None)
        if not self._measuring:
            self._measuring.clear()  # a dict keeps the size that it once needed

    def _consider_measured(self, peer: Peer) -> None:
        context, told, rtt_s = self._context, peer.told, peer.srtt_s
        context.table.consider(told, rtt_s)
        if rtt_s is not None:
            context.neighborhood.consider(told, rtt_s)

    # -- rows --

    def on_row_request(self, message: RowRequest, peer: Peer, now: float) -> None:
        """Answer with a row of ours."""
        table = self._context.table
        dense = (r for r in reversed(table.row_numbers) if len(table.row(r)) >= DENSE_ROW)
        row = next(dense, 0) if message.row == DEEPEST_ROW else message.row
        entries = tuple(
            [
                # Others told us some of them, and may have told us anything.
                Hop(h, 0 if rtt_s == inf else microseconds(rtt_s))
                for h, rtt_s in table.measured_row(row)
            ]
        )
        self._context.send(RowReply(message.nonce, row, entries), peer, now)

    def fetch_row(self, peer: Peer, row: int, now: float) -> None:
        """Ask a node for a row and take what is better than ours (the join's second stage too)."""

        def on_answer(answer: RowReply | None, now: float) -> None:
            if answer is not None:
                self._consider_measured(peer)
                self.take_row(peer, answer.entries, now)
            else:
                self._on_unanswered(peer, now)  # as good as two pings

        self._requests.ask(
            peer,
            RowRequest(self._context.nonce(), row, ROW_PADDING),
            on_answer,
            now,
            attempts=self._context.config.probe_attempts,
            timeout_s=max(self._context.config.probe_timeout_s, peer.rto_s),
        )

    def take_row(self, teller: Peer, entries: Sequence[Hop], now: float) -> None:
        """Fill empty slots from a row; measure the nearest there, and who may be nearer than ours.

        From us an entry is at least as far as it is from the teller less the way to the teller, and
        at most as far as both together. That is believed of all others: whoever told us has heard
        from them within its period, and we shall within ours, or when we route through them.
        """
        table = self._context.table
        way_s = teller.srtt_s or 0.0
        missing: list[Hop] = []
        promising: list[tuple[float, Handle]] = []
        for hop in entries:
            wanted_s, rtt_s = table.wanted_s(hop.handle.id), hop.rtt_us / 1e6
            if wanted_s == inf:
                missing.append(hop)
            elif rtt_s - way_s < wanted_s:
                promising.append((rtt_s - wanted_s, hop.handle))
        missing.sort(key=lambda hop: hop.rtt_us or RTT_US_MAX)
        left = MISSING_MEASURED_MAX
        for handle, rtt_us in missing:
            if left and self.suggest(handle, now):
                left -= 1
            elif table.wanted_s(handle.id) == inf and self._context.usable(handle.id):
                table.consider(handle, rtt_us / 1e6 + way_s if rtt_us else None)
        promising.sort(key=itemgetter(0))
        left = CANDIDATES_MAX
        for _, handle in promising:
            if left and self.suggest(handle, now):
                left -= 1

    def _arm_repair(self, now: float) -> None:
        period = self._context.config.table_repair_s
        jittered = period * (0.5 + self._context.rng.random())
        self._context.deadlines.arm(now + jittered, self._repair)

    def _repair(self, now: float) -> None:
        """Ask a random entry of a random row for its row (Pastry 2001, sec. 3.2 and 5)."""
        context = self._context
        rows = context.table.row_numbers
        # A ring that the leaf set knows whole needs no table.
        if rows and not context.leaf_set.spans_ring:
            row = rows[context.rng.randrange(len(rows))]
            entries = context.table.row(row)
            entry = entries[context.rng.randrange(len(entries))]
            self.fetch_row(context.peers.of(entry), row, now)
        self._arm_repair(now)
