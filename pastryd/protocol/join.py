"""Joining a ring, and merging rings (Pastry 2001, sec. 3.1; MSPastry 2004, sec. 3.1 and 4.3).

Says Hello to the seeds, walks from the nearest one towards a near node A, routes JOIN to our own id
through it; the nodes on the way give their rows, the root its leaf set. The leaf-set probes that
follow decide when we are active (`leafset_upkeep.py`). Tries again with backoff until that is so.

The same, now and then, through a remembered address whose node we have lost sight of, finds out
whether there are two rings: then our JOIN ends at somebody whom our leaf set does not know.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from pastryd.ids import NodeId, Position, shared_prefix
from pastryd.protocol import near_node
from pastryd.protocol.application import Application
from pastryd.protocol.context import NOBODY, Context
from pastryd.protocol.requests import Requests
from pastryd.state.deadlines import Timer
from pastryd.state.fellow_joiners import FellowJoiners
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.peers import Peer
from pastryd.state.remembered import SEEDS_MAX, Remembered
from pastryd.wire.messages import Echo, Hop, JoinReply, Welcome

SEEDS_AT_ONCE = 8
ASKED_MAX = 24
"""So many addresses we ask in one attempt, with those that joiners name."""
MET_MAX = 16
CHOICE_WAIT_S = 0.05
DENSE_ROW = 8
ROWS_PER_NODE_MAX = 4
POSTPONED_MAX = 6
"""How often in a row an attempt that makes progress may put off the next one."""
LOOK_WAIT_MAX = 4
LOOK_WAIT_LARGE_MAX = 16
LOOKS_AT_ONCE = 8
"""How many addresses a small ring asks at a time: few nodes look, and most whom they remember are
dead. In a large one many look, and more rarely (`LOOK_WAIT_LARGE_MAX`)."""
INACTIVE_PATIENCE = 32
"""So many `join_retry_s` all who answer must be joining too before one of them starts a ring."""

Route = Callable[[Position, bytes, str, float, Peer], None]


class Table(near_node.Table, Protocol):
    """What a join needs of `TableUpkeep`."""

    def fetch_row(self, peer: Peer, row: int, now: float) -> None:
        """Ask a node for a row and take what is better than ours."""


class Joiner(Application):
    """Brings one node into a ring, and two rings together."""

    name = "join"
    __slots__ = (
        "_activate_alone",
        "_alone",
        "_asked",
        "_attempts",
        "_choice",
        "_context",
        "_fellows",
        "_found",
        "_hellos",
        "_is_active",
        "_look",
        "_look_wait",
        "_looked_at",
        "_near_node",
        "_nonces",
        "_place",
        "_postponed",
        "_probe",
        "_progress_at",
        "_progress_version",
        "_retry",
        "_route",
        "_soon_at",
        "_soon_s",
        "_table",
        "_tried",
        "_wait_s",
        "ahead",
        "remembered",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        route: Route,
        probe: Callable[[Handle, float], None],
        place: Callable[[Handle, float], None],
        table: Table,
        is_active: Callable[[], bool],
        activate_alone: Callable[[float], None],
    ) -> None:
        """`route(key, payload, application, now, hint)`; the others as in their machines."""
        self._context = context
        self._route = route
        self._probe = probe
        self._place = place
        self._table = table
        self._is_active = is_active
        self._activate_alone = activate_alone
        self.remembered = Remembered()
        """Addresses to join, or to find a lost part of the ring, through."""
        self._hellos: dict[int, tuple[Endpoint, float, bool]] = {}
        self._found: dict[NodeId, tuple[float, Peer]] = {}
        self._tried: dict[NodeId, int] = {}
        """Through whom we have tried to join, and how often."""
        self._fellows = FellowJoiners()
        self._asked: dict[Endpoint, None] = {}
        """Whom we said Hello to in this attempt."""
        self.ahead: Endpoint = NOBODY
        """Whom we name to those who ask us while we join: the nearest to the ring that we know."""
        self._choice: Timer | None = None
        self._retry: Timer | None = None
        self._alone: Timer | None = None
        """When to begin a ring ourselves if nobody has answered."""
        self._look: Timer | None = None
        self._looked_at = float("-inf")
        self._soon_at = float("-inf")
        """When somebody last wanted us to look at once."""
        self._soon_s = context.config.heartbeat_s
        """So long after a look we do that."""
        self._look_wait = 1
        """After so many `merge_s` we look for another ring again."""
        self._nonces: dict[int, Endpoint] = {}
        self._near_node = near_node.NearNode(
            context, requests, table, self._note_progress, self._send_first_join
        )
        self._attempts = 0
        self._progress_at = float("-inf")
        self._progress_version = -1
        self._postponed = 0
        self._wait_s = context.config.join_retry_s

    # -- starting --

    def start(self, seeds: Sequence[Endpoint], alone_after_s: float | None, now: float) -> None:
        """Join through the seeds. No seeds: start a new ring.

        `alone_after_s`: when nobody has answered by then, start alone and go on looking (for seeds
        that are only remembered, not given). None: never.
        """
        self.remembered.add_seeds(seeds)
        self._arm_merge(now)
        if not self.remembered.seed_count:
            self._activate_alone(now)
            return
        if alone_after_s is not None:
            self._arm_give_up(alone_after_s, now)
        self._attempt(now)

    def rejoin(self, now: float) -> None:
        """We were given up for dead, or lost everybody: join again."""
        if self._retry is None:
            self._found.clear()
            self._tried.clear()
            self._fellows.clear()
            self._arm_give_up(4 * self._context.config.join_retry_s, now)
            self._wait_s = self._context.config.join_retry_s
            self._attempt(now)

    def _arm_give_up(self, alone_after_s: float, now: float) -> None:
        if self._alone is not None:
            self._alone.cancel()
        when = now + alone_after_s
        self._alone = self._context.deadlines.arm(when, self._give_up, alone_after_s)

    def _give_up(self, alone_after_s: float, now: float) -> None:
        self._alone = None
        if self._is_active():
            return
        lately = now - self._progress_at < alone_after_s
        if self._found or self._fellows or lately:
            self._arm_give_up(alone_after_s, now)  # who has answered may die before we are in
            return
        self._context.log("no_answer_starting_alone", seeds=self.remembered.seed_count)
        self._activate_alone(now)

    def _attempt(self, now: float) -> None:
        """Say Hello to some seeds; come back later if that has not made us active."""
        self._retry = None
        if self._is_active() or self._is_progressing(now):
            return
        context = self._context
        self._fellows.begin_attempt(self._attempts, bool(self._found), now)
        if self._fellows or self._found:
            # Backing off is for silence. Joiners will be ready soon, and an active seed is: then
            # only the network lost some message of the join.
            self._wait_s = context.config.join_retry_s
        patience_s = INACTIVE_PATIENCE * context.config.join_retry_s
        if self._fellows.is_first(context.identity.id, patience_s, now):
            context.log("all_seeds_are_joining_starting_the_ring")
            self._activate_alone(now)
            return
        endpoints = self.remembered.endpoints
        if self._attempts:
            # The seeds may have died since; whom we met in an earlier attempt will do as well. But
            # those are clients too: half of whom we ask are seeds, or joiners lose sight of others.
            met = [peer.endpoint for peer in context.peers][:MET_MAX]
            context.rng.shuffle(endpoints)
            context.rng.shuffle(met)
            endpoints = list(dict.fromkeys([*endpoints[: SEEDS_AT_ONCE // 2], *met, *endpoints]))
        self._attempts += 1
        self._hellos.clear()
        self._found.clear()
        self._nonces.clear()
        self._asked = dict.fromkeys(endpoints[:SEEDS_AT_ONCE])
        if self.ahead == NOBODY and endpoints:
            self.ahead = endpoints[0]
        for endpoint in self._asked:
            self._hellos[context.hello_endpoint(endpoint)] = (endpoint, now, False)
        jittered = self._wait_s * (0.75 + 0.5 * context.rng.random())
        self._retry = context.deadlines.arm(now + jittered, self._attempt)
        self._wait_s = min(2 * self._wait_s, context.config.join_retry_max_s)

    def _is_progressing(self, now: float) -> bool:
        """The last attempt still brings answers: look again when it has been silent for a while.

        On a wide network a join takes longer than the wait for a seed, and beginning anew would
        repeat all of it.
        """
        context = self._context
        if not self._found or self._postponed >= POSTPONED_MAX:
            self._postponed = 0
            return False
        if context.leaf_set.version != self._progress_version:
            self._progress_version = context.leaf_set.version
            self._progress_at = now
        silent_from = self._progress_at + context.config.join_retry_s
        if silent_from <= now:
            self._postponed = 0
            return False
        self._postponed += 1
        self._retry = context.deadlines.arm(silent_from, self._attempt)
        return True

    def postpone(self, by_s: float) -> None:
        """We stood still: that is part of nobody's round trip time."""
        for nonce, (endpoint, sent_at, merging) in self._hellos.items():
            self._hellos[nonce] = (endpoint, sent_at + by_s, merging)

    # -- Hello and Welcome --

    def on_own_hello(self, nonce: int) -> bool:
        """A Hello under our identity came: if it is ours, that seed is ourselves."""
        hello = self._hellos.pop(nonce, None)
        if hello is None:
            return False
        self.remembered.discard(hello[0])
        return True

    def on_welcome(self, message: Welcome, peer: Peer, now: float) -> None:
        """A seed answered."""
        hello = self._hellos.pop(message.nonce, None)
        if hello is None or peer.id == self._context.identity.id:
            return
        endpoint, sent_at, merging = hello
        context = self._context
        context.prove(peer, endpoint, now)
        if message.active:
            context.send(Echo(message.cookie), peer, now)
        peer.sample_rtt(now - sent_at)
        context.learn_address(message, peer, now)
        if merging:
            if message.active and peer.id not in context.leaf_set:
                # Not found yet: who answers a Hello may hear nothing else of us.
                self._send_join(peer, endpoint, now)
            else:
                self.remembered.note_found(endpoint)
            return
        if not message.active:
            ahead = (message.ahead_host, message.ahead_port)
            if ahead != NOBODY:
                # Who asks nobody does not join: a client, which will never begin a ring.
                self._fellows.add(peer.id, self._attempts)
                if not self.remembered.is_seed(endpoint):
                    # It may join another ring, which we find by it alone.
                    self.remembered.add(endpoint)
                self._ask_ahead(ahead, now)
            return
        self._fellows.discard(peer.id)
        self._progress_at = now
        self.ahead = peer.endpoint
        self._found[peer.id] = (peer.srtt_s or 0.0, peer)
        if self._choice is None:
            wait = min(CHOICE_WAIT_S, now - sent_at) if self._hellos else 0.0
            self._choice = context.deadlines.arm(now + wait, self._choose)

    def _ask_ahead(self, endpoint: Endpoint, now: float) -> None:
        """A joiner named whom it asks itself: ask there, too.

        Of a chain of joiners each knows the one before alone. It would wait until that has joined,
        and at the end so long that it took all for joiners and began a ring of its own.
        """
        context = self._context
        is_known = endpoint == context.identity.endpoint or endpoint in self._asked
        if is_known or self._found or len(self._asked) >= ASKED_MAX:
            return
        self._asked[endpoint] = None
        self._hellos[context.hello_endpoint(endpoint)] = (endpoint, now, False)
        self.ahead = endpoint

    def _choose(self, now: float) -> None:
        self._choice = None
        if self._found and not self._is_active():
            # The nearest, but not again and again one through whom nothing came of it.
            tried = self._tried
            _, best = min(self._found.values(), key=lambda f: (tried.get(f[1].id, 0), f[0]))
            tried[best.id] = tried.pop(best.id, 0) + 1
            if len(tried) > SEEDS_MAX:
                del tried[next(iter(tried))]
            self._near_node.search(best, now)

    def _note_progress(self, now: float) -> None:
        self._progress_at = now

    # -- JOIN --

    def _send_first_join(self, through: Peer, now: float) -> None:
        self._send_join(through, NOBODY, now)

    def _send_join(self, through: Peer, lost: Endpoint, now: float) -> None:
        """`lost`: where we look for another ring; `NOBODY`: we are in none."""
        nonce = self._context.nonce()
        self._nonces[nonce] = lost
        if len(self._nonces) > SEEDS_MAX:
            del self._nonces[next(iter(self._nonces))]
        own_id = self._context.identity.id
        self._route(own_id, nonce.to_bytes(8, "big"), self.name, now, through)

    def deliver(
        self,
        key: Position,
        payload: bytes,
        source: Handle,
        trail: Sequence[Hop],
        now: float,
    ) -> None:
        """A JOIN ended at us: we are the root of the joiner's id."""
        if len(payload) != 8 or source.id != key:
            self._context.stats.count("join_malformed")
            return
        if source.id == self._context.identity.id:  # our own: those through whom it went are ours
            self.remembered.note_found(self._nonces.pop(int.from_bytes(payload, "big"), NOBODY))
            return
        nodes = tuple(hop.handle for hop in trail if hop.handle.id != source.id)
        reply = JoinReply(int.from_bytes(payload, "big"), nodes)
        self._context.send(reply, self._context.peers.of(source), now)

    def on_join_reply(self, message: JoinReply, peer: Peer, now: float) -> None:
        """The root of our id has answered: probe it, and take the rows of the nodes on the way."""
        lost = self._nonces.pop(message.nonce, None)
        context = self._context
        if lost is None or peer.id == context.identity.id:
            return
        if lost != NOBODY:
            self.remembered.note_found(lost)
            if peer.id not in context.leaf_set:
                self._look_wait = 1
                context.log("merging_rings", root=f"{peer.id:032x}")
                self._probe(peer.handle, now)
            return
        self._progress_at = now
        self._place(peer.handle, now)
        known = 0
        for handle in message.trail:
            if handle.id == context.identity.id:
                continue
            if handle.id == self._near_node.id:
                known = 1  # its first row led us to it
            shared = shared_prefix(handle.id, context.identity.id, context.config.bits_per_digit)
            for row in range(known, min(shared + 1, known + ROWS_PER_NODE_MAX)):
                self._table.fetch_row(context.peers.of(handle), row, now)
            known = max(known, shared)

    def on_active(self, now: float) -> None:
        """Second stage: ask the nearest entry of each row for its row, and keep the nearer ones.

        Not for the first row, which comes from a near node, nor for sparse ones: few nodes fit
        there, and our leaf set knows most of them.
        """
        context = self._context
        if context.leaf_set.spans_ring:
            return
        for row in context.table.row_numbers[1:]:
            if len(context.table.row(row)) < DENSE_ROW:
                continue
            nearest = min(context.table.row(row), key=lambda h: context.table.rtt_of(h.id) or inf)
            self._table.fetch_row(context.peers.of(nearest), row, now)

    # -- merging --

    def remember_departed(self, handle: Handle) -> None:
        """A node was lost: perhaps only the network between us was."""
        if not handle.host:
            return
        self._look_wait = 1
        self.remembered.add(handle.endpoint)

    def _arm_merge(self, now: float) -> None:
        period = self._context.config.merge_s * (0.75 + 0.5 * self._context.rng.random())
        when = now + self._look_wait * period
        self._look = self._context.deadlines.arm(when, self._look_for_others)

    def look_soon(self, now: float) -> None:
        """Nobody seems to hear us: those whom we lost may say why.

        Ever more rarely while that brings nothing: whoever is greeted and answers, but does not
        hear us otherwise, is soon lost again.
        """
        config = self._context.config
        if now - self._soon_at > 2 * config.merge_s:
            self._soon_s = config.heartbeat_s
        self._soon_at = now
        when = max(now, self._looked_at + self._soon_s)
        if self._look is not None and when < self._look.when:
            self._soon_s = min(2 * self._soon_s, config.merge_s)
            self._look.cancel()
            self._look = self._context.deadlines.arm(when, self._look_for_others)

    def _look_for_others(self, now: float) -> None:
        """Say Hello to remembered addresses that none of our present members has.

        Less and less often while that brings nothing and nobody is lost.
        """
        context = self._context
        is_small = context.leaf_set.spans_ring
        wait_max = LOOK_WAIT_MAX if is_small else LOOK_WAIT_LARGE_MAX
        self._look_wait = min(2 * self._look_wait, wait_max)
        self._looked_at = now
        self._arm_merge(now)
        if not self._is_active():
            return
        present = {h.endpoint for h in (*context.leaf_set.members(), *context.table.entries())}
        absent = [e for e in self.remembered.endpoints if e not in present]
        self._hellos.clear()
        count = LOOKS_AT_ONCE if is_small else 1
        for endpoint in context.rng.sample(absent, min(count, len(absent))):
            self._hellos[context.hello_endpoint(endpoint)] = (endpoint, now, True)
