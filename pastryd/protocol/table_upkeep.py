"""Routing-table upkeep: proximity, periodic repair, self-tuned probing (MSPastry 2004, sec. 4).

Fills slots at once with anything correct and improves them in the background: whoever looks nearer
is measured first. Correctness does not depend on this file; it lives in the leaf set alone. Entries
that are also leaf-set members are watched there and not probed here.
"""

from collections.abc import Callable

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
from pastryd.wire.messages import ROW_PADDING, Ping, Pong, RowReply, RowRequest

MEASURING_MAX = 32
RATE_SCALE = 1e9
REPAIR_CANDIDATES_MAX = 4
"""How many unmeasured nodes one periodic repair may measure: bounds its traffic."""


class TableUpkeep:
    """Keeps the routing table filled, near and alive."""

    __slots__ = (
        "_context",
        "_cursor",
        "_doubt",
        "_failures",
        "_heard_rates",
        "_measuring",
        "_requests",
        "period_s",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        doubt: Callable[[Peer, NodeId | None, float], None],
    ) -> None:
        self._context = context
        self._requests = requests
        self._doubt = doubt
        self._failures = FailureHistory(0.0)
        self._heard_rates: dict[NodeId, float] = {}
        self._measuring: dict[NodeId, None] = {}
        self._cursor = 0
        self.period_s = context.config.table_probe_max_s
        """T_rt: how often an entry that said nothing is probed."""

    def start(self, now: float) -> None:
        """Begin the periodic work."""
        self._failures = FailureHistory(now)
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
            if handle.id not in context.leaf_set and peer.last_heard + self.period_s / 2 <= now:
                self._ping(peer, self._on_entry, now)
        context.deadlines.arm(now + max(self._probe_gap(), 0.01), self._probe_next)

    def _ping(
        self, peer: Peer, then: Callable[[Peer, Pong | None, float], None], now: float
    ) -> None:
        known_us = int((peer.srtt_s or 0.0) * 1e6)
        self._requests.ask(
            peer,
            Ping(self._context.nonce(), known_us),
            lambda answer, now: then(peer, answer, now),
            now,
            attempts=self._context.config.probe_attempts,
            timeout_s=max(self._context.config.probe_timeout_s, peer.rto_s),
        )

    def _on_entry(self, peer: Peer, answer: Pong | None, now: float) -> None:
        if answer is None:
            self._doubt(peer, None, now)
        else:
            self._consider_measured(peer)

    # -- proximity --

    def suggest(self, handle: Handle, now: float, rtt_hint_s: float | None = None) -> bool:
        """Somebody knows this node: measure it if it may be better than what we have.

        `rtt_hint_s` is what the other side measured. Returns whether a measurement started.
        """
        context = self._context
        if handle.id == context.identity.id or handle.id in self._measuring:
            return False
        peer = context.peers.get(handle.id)
        rtt_s = peer.srtt_s if peer is not None else None
        rtt_s = rtt_hint_s if rtt_s is None else rtt_s
        if rtt_s is not None:
            if context.table.would_use(handle.id, rtt_s) and peer is not None:
                context.table.consider(peer.told, rtt_s)
            return False
        row, column = context.table.slot_of(handle.id)
        holder = context.table.get(row, column)
        if holder is not None and holder.id == handle.id:
            return False
        if len(self._measuring) >= MEASURING_MAX:
            context.stats.count("measurements_skipped")
            return False
        self._measuring[handle.id] = None
        self._ping(context.peers.of(handle), self._on_measured, now)
        return True

    def _on_measured(self, peer: Peer, answer: Pong | None, now: float) -> None:
        self._measuring.pop(peer.id, None)
        if answer is not None:
            self._consider_measured(peer)

    def _consider_measured(self, peer: Peer) -> None:
        rtt_s = peer.srtt_s
        self._context.table.consider(peer.told, rtt_s)
        if rtt_s is not None:
            self._context.neighborhood.consider(peer.told, rtt_s)

    # -- rows --

    def on_row_request(self, message: RowRequest, peer: Peer, now: float) -> None:
        """Answer with a row of ours."""
        handles = tuple(self._context.table.row(message.row))
        self._context.send(RowReply(message.nonce, message.row, handles), peer, now)

    def fetch_row(self, peer: Peer, row: int, now: float, candidates_max: int = 16) -> None:
        """Ask a node for a row and take what is better than ours (the join's second stage too)."""
        if peer.unproven is not None:

            def on_pong(peer: Peer, answer: Pong | None, now: float) -> None:
                if answer is not None:
                    self._consider_measured(peer)
                    self.fetch_row(peer, row, now, candidates_max)

            self._ping(peer, on_pong, now)  # the row's is too long to be the first question
            return

        def on_answer(answer: RowReply | None, now: float) -> None:
            if answer is None:
                return
            left = candidates_max
            for handle in answer.handles:
                if left and self.suggest(handle, now):
                    left -= 1

        self._requests.ask(
            peer, RowRequest(self._context.nonce(), row, ROW_PADDING), on_answer, now
        )

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
            self.fetch_row(context.peers.of(entry), row, now, REPAIR_CANDIDATES_MAX)
        self._arm_repair(now)
