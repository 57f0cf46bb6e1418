"""Keeping an item on its k replicas: the putting half of the blob machine (DESIGN sec. 6).

Owns the puts under way. All k closest usable nodes are offered the item at once; who fails (silent,
suspected, dead, full) is replaced by the next closest, and repair moves the copy later if that was
too hasty. Who is busy is asked again a few times first. A put ends when k nodes, or all there are,
have the item durably, and those of the k closest who lack it were given up once; or at
`put_timeout_s` with how many have. A root that names fewer than there are, as far as we know, is
asked again. Much data that is still with the client is fetched only once a replica lacks it, so
that a repeated put costs a question; a little is fetched at once, while the replicas are looked up.
Equal puts at one time are one.
"""

from collections.abc import Sequence

from pastryd.ids import Name, NodeId
from pastryd.protocol import placement
from pastryd.protocol.context import Context
from pastryd.protocol.items import Value, verify
from pastryd.protocol.lookup import Lookup
from pastryd.protocol.outbox import WriteStatus
from pastryd.protocol.pull_state import Pulled, PullItem, PullResult
from pastryd.protocol.put_state import Put, PutResult, ThenPut
from pastryd.protocol.requests import Requests
from pastryd.protocol.storage import Storage
from pastryd.state.peers import Peer
from pastryd.state.rtt import AnswerTime
from pastryd.wire.messages import HaveQuery, HaveReply, Store, Stored
from pastryd.wire.verbs import AnswerStatus, StoreStatus

STORE_OVERHEAD_BYTES = 56
"""Of a `Store` or a `Request` around the data that it carries."""
FETCHED_AT_ONCE_BYTES = 32 << 10
"""So much from the client costs less than to ask the replicas first whether they have it."""
PUTS_MAX = 4096
JOINED_MAX = 1024
PATIENCE_S = 0.25
"""How long a replica may be busy (its disk, above all) before we wonder whether it lives, at least;
longer where stores have taken longer."""
PATIENCE_MAX_S = 2.0
RETRY_S = 0.25
REFUSED_MAX_S = 4.0
"""Who says that it cannot keep an item, as with a broken disk, is asked again after `RETRY_S`, and
twice as long each time up to this, if nobody else can take its place."""
BUSY_WAIT_S = 0.05
BUSY_REPEATS = 5
"""Who says BUSY is asked again after `BUSY_WAIT_S`, and twice as long each time: 1.6 s in all. To
replace it at once would put the copy where repair must move it away from."""


class Putter:
    """The puts of one node."""

    __slots__ = (
        "_context",
        "_inline_max",
        "_lookup",
        "_offered",
        "_pull",
        "_puts",
        "_requests",
        "_storage",
        "_store_time",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        storage: Storage,
        lookup: Lookup,
        pull: PullItem,
    ) -> None:
        self._context = context
        self._requests = requests
        self._storage = storage
        self._lookup = lookup
        self._pull = pull
        self._puts: dict[Name, Put] = {}
        self._offered: dict[int, tuple[Put, NodeId]] = {}
        """Of each `Store` that a put has sent, by nonce."""
        self._store_time = AnswerTime()
        self._inline_max = context.config.payload_bytes_max - STORE_OVERHEAD_BYTES

    def __len__(self) -> int:
        return len(self._puts)

    def put(
        self,
        name: Name,
        size: int,
        value: Value | None,
        source: Peer | None,
        then: ThenPut,
        now: float,
    ) -> None:
        """Keep an item: its value, or whom to fetch it from. `then` may be called at once."""
        if value is not None and not verify(name, value):
            self._context.stats.count("puts_corrupt")
            then(PutResult(AnswerStatus.CORRUPT, 0), now)
            return
        put = self._puts.get(name)
        if put is not None:
            if len(put.waiters) >= JOINED_MAX:
                self._context.stats.count("puts_refused")
                then(PutResult(AnswerStatus.BUSY, 0), now)
                return
            put.waiters.append(then)
            put.source = source or put.source
            return
        if len(self._puts) >= PUTS_MAX:
            self._context.stats.count("puts_refused")
            then(PutResult(AnswerStatus.BUSY, 0), now)
            return
        put = self._puts[name] = Put(name, size, source, then)
        put.deadline = self._context.deadlines.arm(
            now + self._context.config.put_timeout_s, self._handle_deadline, put
        )
        if value is None:
            value = self._storage.cached(name)
        if value is not None:
            self._take_value(put, value)
        elif self._storage.holds(name):
            put.local = True
        elif source is not None and size <= FETCHED_AT_ONCE_BYTES:
            self._fetch(put, now)
        self._resolve(put, now)

    def reconsider(self, now: float) -> None:
        """The leaf set changed: replicas may have."""
        for put in list(self._puts.values()):
            if not put.ended:
                self._resolve(put, now)

    def _take_value(self, put: Put, value: Value) -> None:
        put.value = value
        put.size = len(value)
        put.local = True
        if put.size > self._inline_max:
            put.pinned = True
            self._storage.pin(put.name, value)

    # -- who keeps it --

    def _resolve(self, put: Put, now: float) -> None:
        if put.resolving:
            return
        put.resolving = True

        def resolved(peers: Sequence[Peer | None] | None, now: float) -> None:
            put.resolving = False
            if put.ended:
                return
            if peers is not None:
                put.candidates = peers
            self._offer(put, now)

        self._lookup.resolve(put.position, resolved, now)

    def _offer(self, put: Put, now: float) -> None:
        """See to it that the k closest of those who work have it or are asked; end if they have."""
        own_id = self._context.identity.id
        if self._storage.holds(put.name):
            put.durable[own_id] = None
        wanted = self._wanted(put)
        chosen = 0
        kept = 0
        replaced = 0
        refused = 0
        to_ask: list[Peer | None] = []
        for peer in put.candidates:
            if chosen == wanted:
                break
            peer_id = own_id if peer is None else peer.id
            if peer_id in put.durable:
                kept += 1
            elif peer_id in put.full:
                refused += 1
                continue
            elif peer_id in put.failed or not self._context.usable(peer_id):
                put.given_up[peer_id] = None
                continue
            else:
                replaced += peer_id in put.given_up
                if peer_id not in put.asking:
                    to_ask.append(peer)
            chosen += 1
        if kept + replaced == wanted and self._kept(put) >= wanted:
            self._end(put, AnswerStatus.OK, now)
            return
        for peer in to_ask:
            if put.ended:
                return
            self._ask(put, peer, now)
        if put.ended or put.asking or put.fetching or put.resolving:
            return
        all_answered = refused + len(put.durable) >= len(put.candidates) > 0
        # A root that named too few may know more later; where we know ourselves, there are no more.
        if all_answered and (refused or placement.knows(self._context, put.position)):
            status = AnswerStatus.UNDER_REPLICATED if put.durable else AnswerStatus.FULL
            self._end(put, status, now)
        elif put.retry is None or not put.retry.pending:
            put.retry = self._context.deadlines.arm(now + RETRY_S, self._handle_retry, put)

    def _wanted(self, put: Put) -> int:
        """Return how many copies there should be: k, or one for each node that there is."""
        replicas = self._context.config.replicas
        named = min(replicas, len(put.candidates))
        return max(named, min(replicas, 1 + placement.others_known(self._context)))

    def _kept(self, put: Put) -> int:
        """Return how many of those close to it have it, whether or not of the closest k."""
        own_id = self._context.identity.id
        ids = [own_id if peer is None else peer.id for peer in put.candidates]
        return sum(peer_id in put.durable for peer_id in ids)

    def _handle_retry(self, put: Put, now: float) -> None:
        if put.ended:
            return
        self._context.stats.count("puts_retried")
        for node_id in list(put.failed):
            if put.refused.get(node_id, (0.0, now))[1] <= now:
                del put.failed[node_id]
        put.busy.clear()
        put.patience_s.clear()
        self._resolve(put, now)

    def _ask(self, put: Put, peer: Peer | None, now: float) -> None:
        if peer is None:
            self._keep_here(put, now)
        elif peer.id in put.asking:
            return  # a refusal at once, such as our own disk's, has led here before
        elif put.fetching:
            return  # it is offered when it is here
        elif not put.local and peer.id not in put.queried:
            self._query(put, peer, now)
        elif not put.local:
            self._fetch(put, now)
        else:
            self._store(put, peer, now)

    # -- the copy here --

    def _keep_here(self, put: Put, now: float) -> None:
        own_id = self._context.identity.id
        if own_id in put.asking:
            return
        if put.value is None:
            self._fetch(put, now)
        else:
            put.asking[own_id] = None

            def written(status: WriteStatus, now: float) -> None:
                if status is WriteStatus.BUSY and self._wait_for_busy(put, own_id, now):
                    return
                put.asking.pop(own_id, None)
                if status is WriteStatus.OK:
                    put.durable[own_id] = None
                elif status in (WriteStatus.FULL, WriteStatus.TOO_MANY):
                    put.full[own_id] = None
                else:
                    self._note_refusal(put, own_id, now)
                if not put.ended:
                    self._offer(put, now)

            self._storage.write(put.name, put.value, written, now)

    # -- copies elsewhere --

    def _query(self, put: Put, peer: Peer, now: float, patience_s: float | None = None) -> None:
        """Ask whether it is there already, before the client has to send it.

        `patience_s`: it was offered it, and speaks: it is slow, or our way to it alone is cut.
        """
        put.asking[peer.id] = None

        def answered(answer: HaveReply | None, now: float) -> None:
            put.asking.pop(peer.id, None)
            if answer is not None and answer.bitmap & 1:
                put.durable[peer.id] = None
            elif answer is None and patience_s is not None:
                put.failed[peer.id] = None
                self._context.stats.count("stores_unanswered")
            else:
                # A silent one is offered it, too: that has more patience, and on a busy machine
                # replacing whoever misses two short timeouts would make copies without need.
                put.queried[peer.id] = None
            if not put.ended:
                self._offer(put, now)

        message = HaveQuery(self._context.nonce(), False, (put.name,))
        self._requests.ask(peer, message, answered, now, attempts=2, timeout_s=patience_s)

    def _fetch(self, put: Put, now: float) -> None:
        """Pull the data from the client."""
        if put.fetching:
            return
        if put.source is None:
            self._end(put, AnswerStatus.UNREACHABLE, now)
            return
        put.fetching = True

        def pulled(result: PullResult, now: float) -> None:
            put.fetching = False
            if put.ended:
                return
            if isinstance(result, Pulled):
                self._take_value(put, result.value)
                self._offer(put, now)
            else:
                self._context.stats.count("puts_not_fetched")
                corrupt = AnswerStatus.CORRUPT if result.corrupt else AnswerStatus.UNREACHABLE
                self._end(put, corrupt, now)

        self._pull(put.name, put.size, (put.source,), pulled, now)

    def _store(self, put: Put, peer: Peer, now: float) -> None:
        """Offer it. A replica that hears us but is slow is asked again, a silent one replaced."""
        put.asking[peer.id] = None
        data = b""
        if put.value is not None and put.size <= self._inline_max:
            data = put.value if isinstance(put.value, bytes) else bytes(put.value)
        is_first = peer.id not in put.nonces
        if is_first:
            nonce = put.nonces[peer.id] = self._context.nonce()
            self._offered[nonce] = (put, peer.id)
        least_s = max(PATIENCE_S, 2 * peer.rto_s)
        usual_s = self._store_time.wait_s(least_s, PATIENCE_MAX_S)
        patience_s = max(put.patience_s.get(peer.id, 0.0), usual_s)
        put.patience_s[peer.id] = min(2 * patience_s, PATIENCE_MAX_S)
        asked_at = now

        def answered(answer: Stored | None, now: float) -> None:
            is_busy = answer is not None and answer.status == StoreStatus.BUSY
            if is_busy and self._wait_for_busy(put, peer.id, now):
                return
            put.asking.pop(peer.id, None)
            if answer is not None and is_first and not is_busy:
                self._store_time.sample(now - asked_at)
            if answer is None:
                self._store_time.note_expired(asked_at, now)
                if peer.last_heard > asked_at and not put.ended:
                    self._query(put, peer, now, patience_s)
                    return
                put.failed[peer.id] = None
                self._context.stats.count("stores_unanswered")
            elif answer.status == StoreStatus.OK:
                put.durable[peer.id] = None
                if put.asking and len(put.durable) < self._context.config.replicas:
                    return  # the others' answers decide
            elif answer.status == StoreStatus.FULL:
                put.full[peer.id] = None
            else:
                self._context.stats.count("stores_failed")
                if is_busy:
                    put.failed[peer.id] = None
                else:
                    self._note_refusal(put, peer.id, now)
            if not put.ended:
                self._offer(put, now)

        message = Store(put.nonces[peer.id], put.name, put.size, data)
        self._requests.ask(
            peer, message, answered, now, attempts=1, timeout_s=patience_s, measure=False
        )

    def _note_refusal(self, put: Put, node_id: NodeId, now: float) -> None:
        """Somebody says that it cannot keep it: others have their turn, and then it, later."""
        wait_s, _ = put.refused.get(node_id, (RETRY_S / 2, now))
        wait_s = min(2 * wait_s, REFUSED_MAX_S)
        put.refused[node_id] = wait_s, now + wait_s
        put.failed[node_id] = None

    def _wait_for_busy(self, put: Put, node_id: NodeId, now: float) -> bool:
        """Ask who is busy again in a moment; False: it was for long enough."""
        times = put.busy.get(node_id, 0)
        if times == BUSY_REPEATS:
            return False
        put.busy[node_id] = times + 1
        self._context.stats.count("stores_postponed")

        def ask_again(now: float) -> None:
            put.asking.pop(node_id, None)
            if not put.ended:
                self._offer(put, now)

        jitter = 0.75 + 0.5 * self._context.rng.random()  # others were refused with us
        self._context.deadlines.arm(now + jitter * BUSY_WAIT_S * 2.0**times, ask_again)
        return True

    def answered_late(self, message: Stored, peer: Peer, now: float) -> bool:
        """Take in that somebody who was given up has the item after all; False: of no put here."""
        put, peer_id = self._offered.get(message.nonce, (None, None))
        if put is None or peer_id != peer.id:
            return False
        if message.status == StoreStatus.OK:
            put.failed.pop(peer_id, None)
            put.durable[peer_id] = None
            self._offer(put, now)
        return True

    # -- the end --

    def _handle_deadline(self, put: Put, now: float) -> None:
        if put.ended:
            return
        if self._kept(put) >= self._wanted(put) > 0:
            status = AnswerStatus.OK
        elif put.durable:
            status = AnswerStatus.UNDER_REPLICATED
        else:
            status = AnswerStatus.FULL if put.full else AnswerStatus.UNREACHABLE
        self._end(put, status, now)

    def _end(self, put: Put, status: AnswerStatus, now: float) -> None:
        put.ended = True
        del self._puts[put.name]
        for nonce in put.nonces.values():
            del self._offered[nonce]
        put.deadline.cancel()
        if put.retry is not None:
            put.retry.cancel()
        if put.pinned:
            self._storage.unpin(put.name)
        result = PutResult(status, len(put.durable))
        for then in put.waiters:
            then(result, now)
