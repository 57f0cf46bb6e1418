"""The blob store as an application of the overlay: the holder's side, and its two asking halves.

Answers `Find`, takes in what it is offered by `Store`, and meets routed questions on their way:
whoever holds the item answers the source at once, and who knows the replica set, or can guess who
is of it, sends the question to the nearest of it rather than towards the root (ALGORITHMS sec. 4:
the last hop dominates). Nothing is stored or handed out as an answer that was not verified here;
segments are verified by who pulls.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from pastryd.errors import RemoteProtocolError
from pastryd.ids import Name, NodeId, Position, position_of
from pastryd.protocol import placement
from pastryd.protocol.application import Application, Forward
from pastryd.protocol.blobs_find import Finder
from pastryd.protocol.blobs_put import STORE_OVERHEAD_BYTES, Putter
from pastryd.protocol.context import Context
from pastryd.protocol.items import Value, verify
from pastryd.protocol.lookup import BLOB_APPLICATION, Lookup
from pastryd.protocol.outbox import WriteStatus
from pastryd.protocol.path_window import window_of
from pastryd.protocol.pull_state import AddHolder, OnDone, Pulled, PullItem, PullResult
from pastryd.protocol.put_state import ThenPut
from pastryd.protocol.requests import Requests
from pastryd.protocol.search_state import ThenFound, read_records
from pastryd.protocol.storage import Storage
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.state.token_bucket import TokenBuckets
from pastryd.wire.codec import decode
from pastryd.wire.messages import (
    HANDLES_MAX,
    RECORDS_MAX,
    Find,
    Found,
    HaveQuery,
    HaveReply,
    Hop,
    Replicas,
    Store,
    Stored,
)
from pastryd.wire.verbs import StoreStatus

STORES_MAX = 256
"""Items that others may have us pull at one time."""
STORES_FEW = 16
"""Once half of them are, only who has had us pull fewer than so many may add to it."""
STALE_S = 1.0
"""When there is no room for more: whoever sent nothing of anything for so long makes room."""
CHECKS_BURST = 32.0
CHECKS_PER_S = 8.0
"""Copies of ours that one node may have us read and hash: up to 1 MiB for a datagram of theirs."""
CHECKERS_MAX = 256
OFFERS_JOINED_MAX = 64

CancelPull = Callable[[Name, float, OnDone], None]
"""`Transfer.cancel`."""

_STATUS = {
    WriteStatus.OK: StoreStatus.OK,
    WriteStatus.FULL: StoreStatus.FULL,
    WriteStatus.FAILED: StoreStatus.FAILED,
    WriteStatus.TOO_MANY: StoreStatus.FULL,
    WriteStatus.BUSY: StoreStatus.BUSY,
}


class _Offered:
    """An item that we were offered and pull."""

    __slots__ = ("offers", "on_done", "since")

    def __init__(self, peer: Peer, nonce: int, now: float) -> None:
        self.offers = [(peer, nonce)]
        """Who offered it; the first of them is charged for it."""
        self.since = now
        self.on_done: OnDone | None = None
        """What the pull calls at its end; None: it is over, and what came is being written."""

    def is_stale(self, now: float) -> bool:
        """Tell whether none of them has sent us a segment of anything for a while."""
        if self.on_done is None or now - self.since < STALE_S:
            return False
        return all(now - window_of(peer).progress_at >= STALE_S for peer, _ in self.offers)


class Blobs(Application):
    """The blob machine of one node."""

    name = BLOB_APPLICATION

    __slots__ = (
        "_add_holder",
        "_cancel_pull",
        "_checks",
        "_context",
        "_finder",
        "_inline_max",
        "_lookup",
        "_pull",
        "_putter",
        "_requests",
        "_storage",
        "_stores",
        "_storing",
        "is_sure",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        storage: Storage,
        lookup: Lookup,
        pull: PullItem,
        add_holder: AddHolder,
        cancel_pull: CancelPull,
        is_active: Callable[[], bool],
    ) -> None:
        self._context = context
        self._requests = requests
        self._storage = storage
        self._lookup = lookup
        self._pull = pull
        self._add_holder = add_holder
        self._cancel_pull = cancel_pull
        self._finder = Finder(context, requests, storage, lookup, pull, add_holder, is_active)
        self._putter = Putter(context, requests, storage, lookup, pull)
        self._storing: dict[Name, _Offered] = {}
        """The oldest first."""
        self._stores: Counter[NodeId] = Counter()
        """How many pulls each is charged for."""
        self._checks = TokenBuckets(CHECKS_PER_S, CHECKS_BURST, CHECKERS_MAX)
        self.is_sure: Callable[[float], bool] = lambda now: True
        """Whether what ought to be here is here, as far as anybody can tell."""
        self._inline_max = context.config.payload_bytes_max - STORE_OVERHEAD_BYTES

    # -- local commands --

    def find(self, name: Name, then: ThenFound, now: float) -> None:
        """Get an object, or the index entries at a large blob's key; see `Finder`."""
        self._finder.find(name, then, now)

    def put(
        self,
        name: Name,
        size: int,
        value: Value | None,
        source: Peer | None,
        then: ThenPut,
        now: float,
    ) -> None:
        """Keep an item on k nodes; see `Putter`."""
        self._putter.put(name, size, value, source, then, now)

    @property
    def searches(self) -> int:
        """How many items are being looked for."""
        return len(self._finder)

    @property
    def puts(self) -> int:
        """How many items are being put."""
        return len(self._putter)

    # -- upcalls --

    def forward(
        self, key: Position, payload: bytes, source: Handle, next_hop: Handle, now: float
    ) -> Forward | None:
        """Answer a `Find` on its way if we hold the item, or turn it to who holds it nearby.

        Where the replica set is not known, to who is likely to be of it and near: asked in vain, it
        passes the question on as any hop does.
        """
        context = self._context
        message = self._parse(payload)
        if message is None:
            return Forward.STOP
        if not isinstance(message, Find):
            return None
        is_own = source.id == context.identity.id
        if not is_own and self._has(message.name, key):
            self.on_find(message, context.peers.of(source), now)
            return Forward.STOP
        if not placement.knows(context, key):
            nearer = placement.likely_holder(context, key, next_hop)
        else:
            # Whom we know we have asked before we route: only the root may know others.
            nearer = None if is_own else self._nearest_replica(key)
        return None if nearer is None else Forward(payload, nearer)

    def _nearest_replica(self, key: Position) -> Handle | None:
        context = self._context
        replicas = placement.closest(context, key, context.config.replicas)
        if None in replicas:
            return None  # we ought to hold it: the root decides what to say
        usable = [p for p in replicas if p is not None and context.usable(p.id)]
        if not usable:
            return None
        return min(usable, key=lambda peer: placement.distance_s(context, peer)).handle

    def deliver(
        self, key: Position, payload: bytes, source: Handle, trail: Sequence[Hop], now: float
    ) -> None:
        """We are the root: answer with the item or with who should hold it."""
        message = self._parse(payload)
        peer = self._context.peers.of(source)
        if isinstance(message, Find):
            self.on_find(message, peer, now)
        elif isinstance(message, HaveQuery):
            self._send_replicas(message.nonce, key, peer, now)

    def update(self, handle: Handle, joined: bool, now: float) -> None:
        """Puts under way may have other replicas now."""
        self._putter.reconsider(now)

    def _parse(self, payload: bytes) -> Find | HaveQuery | None:
        try:
            message = decode(payload)
        except RemoteProtocolError:
            message = None
        if isinstance(message, Find | HaveQuery):
            return message
        self._context.stats.count("blob_messages_malformed")
        return None

    # -- messages --

    def on_answer(
        self, message: Found | Replicas | Stored | HaveReply, peer: Peer, now: float
    ) -> None:
        """An answer to what we asked this peer, or routed and it answered."""
        if self._requests.answered(message, peer, now):
            return
        if isinstance(message, Found | Replicas) and self._lookup.answered(message, peer, now):
            return
        if isinstance(message, Stored) and self._putter.answered_late(message, peer, now):
            return
        self._context.stats.count("answers_unexpected")

    def on_find(self, message: Find, peer: Peer, now: float) -> None:
        """Answer with the item if we have it, whole if it is small, else with who should."""
        nonce, name = message
        if self._storage.cached(name) is None and not self._storage.holds(name):
            names = self._storage.records_at(name)
            if names:
                self._send_records(message, names, peer, now)
            else:
                self._send_replicas(nonce, position_of(name), peer, now)
            return

        def read(data: bytes | memoryview | None, size: int, now: float) -> None:
            whole = data is not None and size <= self._inline_max
            if data is None or (whole and not verify(name, data)):
                if data is not None:
                    self._storage.forget(name, now)
                self._send_replicas(nonce, position_of(name), peer, now)
                return
            self._reply(Found(nonce, size, bytes(data) if whole else b"", ()), peer, now)

        self._storage.read(name, 0, self._inline_max, read, now)

    def on_store(self, message: Store, peer: Peer, now: float) -> None:
        """Keep an item that we are offered: its bytes are here, or with who offers it."""
        nonce, name, size, data = message
        if self._storage.holds(name):
            # Who asks too often is told what a `HaveQuery` would be.
            if data or not self._checks.take(peer.id, now):
                self._stored(peer, nonce, StoreStatus.OK, now)
            else:
                self._check_own(message, peer, now)
        elif data or not size:
            if len(data) != size or not verify(name, data):
                self._context.stats.count("stores_corrupt")
                self._stored(peer, nonce, StoreStatus.CORRUPT, now)
                return
            self._storage.write(
                name,
                data,
                lambda status, now: self._stored(peer, nonce, _STATUS[status], now),
                now,
            )
        else:
            self._pull_offered(message, peer, now)

    def _check_own(self, message: Store, peer: Peer, now: float) -> None:
        """Who offers what we hold may have got a bad copy from us: read it before saying so."""

        def read(data: bytes | memoryview | None, size: int, now: float) -> None:
            if data is not None and verify(message.name, data):
                self._stored(peer, message.nonce, StoreStatus.OK, now)
                return
            self._storage.forget(message.name, now)
            self._pull_offered(message, peer, now)

        self._storage.read(message.name, 0, -1, read, now)

    def _pull_offered(self, message: Store, peer: Peer, now: float) -> None:
        nonce, name, size, _ = message
        offered = self._storing.get(name)
        if offered is not None:
            if (peer, nonce) in offered.offers:
                return
            if len(offered.offers) < OFFERS_JOINED_MAX:
                offered.offers.append((peer, nonce))
                self._add_holder(name, peer, now)
            return
        if not self._has_room_for(peer) and not self._make_room_for(peer, now):
            self._context.stats.count("stores_refused")
            self._stored(peer, nonce, StoreStatus.BUSY, now)
            return
        offered = self._storing[name] = _Offered(peer, nonce, now)
        self._stores[peer.id] += 1

        def pulled(result: PullResult, now: float) -> None:
            offered.on_done = None
            if isinstance(result, Pulled):
                self._storage.write(name, result.value, written, now)
            elif result.corrupt:
                self._context.stats.count("stores_corrupt")
                self._end_offer(name, StoreStatus.CORRUPT, now)
            else:
                self._end_offer(name, StoreStatus.FAILED, now)

        def written(status: WriteStatus, now: float) -> None:
            self._end_offer(name, _STATUS[status], now)

        offered.on_done = pulled
        wait_s = self._context.config.put_timeout_s
        self._pull(name, size, (peer,), pulled, now, deadline_s=wait_s)

    def _end_offer(self, name: Name, status: StoreStatus, now: float) -> None:
        """Tell all who offered an item what has become of it."""
        offers = self._storing.pop(name).offers
        charged = offers[0][0].id
        self._stores[charged] -= 1
        if not self._stores[charged]:
            del self._stores[charged]
        for offerer, nonce in offers:
            self._stored(offerer, nonce, status, now)

    def _has_room_for(self, peer: Peer) -> bool:
        """Tell whether a node may have us pull one item more: no one alone takes all the room."""
        pulled = len(self._storing)
        few = self._stores[peer.id] < STORES_FEW
        return pulled < STORES_MAX // 2 or (few and pulled < STORES_MAX)

    def _make_room_for(self, peer: Peer, now: float) -> bool:
        """Give up the oldest pull that is stale: several who send nothing can take all the room."""
        if self._stores[peer.id] >= STORES_FEW:
            return False
        for name, offered in self._storing.items():
            if offered.is_stale(now) and offered.on_done is not None:
                self._context.stats.count("stores_refused")
                self._cancel_pull(name, now, offered.on_done)
                self._end_offer(name, StoreStatus.BUSY, now)
                return True
        return False

    # -- answers --

    def _has(self, name: Name, position: Position) -> bool:
        """Tell whether to answer for those further on: not with entries that anybody put here."""
        storage = self._storage
        if storage.holds(name) or storage.cached(name) is not None:
            return True
        return placement.is_ours(self._context, position) and bool(storage.records_at(name))

    def _stored(self, peer: Peer, nonce: int, status: StoreStatus, now: float) -> None:
        self._context.send(Stored(nonce, status), peer, now)

    def _send_records(self, message: Find, names: Sequence[Name], peer: Peer, now: float) -> None:
        """Send the index entries of a key; of too many a sample, so that none stays unseen."""
        nonce, key = message
        if len(names) > RECORDS_MAX:
            names = self._context.rng.sample(names, RECORDS_MAX)

        def read(records: tuple[bytes, ...], now: float) -> None:
            if records:
                self._reply(Found(nonce, 0, b"", records), peer, now)
            else:
                self._send_replicas(nonce, position_of(key), peer, now)

        read_records(self._storage, key, names, read, now)

    def _send_replicas(self, nonce: int, key: Position, peer: Peer, now: float) -> None:
        # After a mass join the closest may all be empty still: then whoever else may have it, too.
        count = 2 * self._context.config.replicas if self.is_sure(now) else HANDLES_MAX
        self._reply(Replicas(nonce, placement.handles(self._context, key, count)), peer, now)

    def _reply(self, message: Found | Replicas, peer: Peer, now: float) -> None:
        """Answer a question that may have been our own, routed to ourselves."""
        if peer.id == self._context.identity.id:
            self._lookup.answered(message, peer, now)
        else:
            self._context.send(message, peer, now)
