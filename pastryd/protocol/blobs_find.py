"""Finding an item for a client of this node: the getting half of the blob machine (DESIGN sec. 6).

Owns the searches under way. Asks the nearest of the replica set first and the next one as soon as
that is late, so that a hung replica costs `rto_initial_s` at most; pulls what does not fit in
an answer; verifies everything. "Not found" is said only when the 2k closest nodes all answered no
while the leaf set stood still; otherwise it tries again until `get_timeout_s`, then says
"unreachable". A bad copy is fetched elsewhere, and its holder is offered the good one: who is
offered an item that it holds reads and verifies its own copy first (`Blobs.on_store`).

Index entries, which anybody may put at any key, end a search when most of the replica set hold the
same one, or all of it were asked: one that holds nothing but lies must not hide what others hold.
"""

from collections.abc import Callable, Sequence
from functools import partial

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.ids import Name, NodeId, position_of
from pastryd.protocol import placement
from pastryd.protocol.context import Context
from pastryd.protocol.items import ENTRIES_PER_KEY, is_record_of, verify
from pastryd.protocol.lookup import Lookup
from pastryd.protocol.pull_state import AddHolder, Pulled, PullItem, PullResult
from pastryd.protocol.requests import Requests
from pastryd.protocol.search_state import (
    RETRY_S,
    Entries,
    Failure,
    FindResult,
    Object,
    Search,
    ThenFound,
    read_records,
)
from pastryd.protocol.storage import Storage
from pastryd.state.peers import Peer
from pastryd.state.recently_slow import RecentlySlow
from pastryd.wire.messages import Find, Found, HaveQuery, Replicas, Store

SEARCHES_MAX = 4096
JOINED_MAX = 1024
CANDIDATES_MAX = 32
SLOW_RTOS = 40
"""Of `rto_initial_s`: for so long who was slower than others is not asked before them."""
RETRY_MAX_S = 1.0
FIND_ATTEMPTS = 2
PATIENCE_RTOS = 4
"""Of `rto_initial_s`: for so long at most entries wait for others. Who is told lies asks again
(`entry_reader.py`)."""


class Finder:
    """The searches of one node."""

    __slots__ = (
        "_add_holder",
        "_context",
        "_is_active",
        "_lookup",
        "_patience_s",
        "_pull",
        "_requests",
        "_searches",
        "_slow",
        "_storage",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        storage: Storage,
        lookup: Lookup,
        pull: PullItem,
        add_holder: AddHolder,
        is_active: Callable[[], bool],
    ) -> None:
        self._context = context
        self._is_active = is_active
        self._requests = requests
        self._storage = storage
        self._lookup = lookup
        self._pull = pull
        self._add_holder = add_holder
        self._searches: dict[Name, Search] = {}
        self._slow = RecentlySlow()
        self._patience_s = PATIENCE_RTOS * context.config.rto_initial_s

    def __len__(self) -> int:
        return len(self._searches)

    def find(self, name: Name, then: ThenFound, now: float) -> None:
        """Get an item or the index entries at its key; `then` may be called before this returns."""
        storage = self._storage
        value = storage.cached(name)
        if value is not None:
            then(Object(value), now)
        elif storage.holds(name):
            self._read_own(name, then, now)
        elif not storage.records_at(name):
            self._search(name, then, now)
        elif placement.is_ours(self._context, position_of(name)):
            self._search_beside_own(name, then, now)
        else:
            # Anybody may have put them here, and those who ought to hold the item know better.
            self._search(name, partial(self._or_read_records, name, then), now)

    # -- what is here --

    def _read_own(self, name: Name, then: ThenFound, now: float) -> None:
        def read(data: bytes | memoryview | None, size: int, now: float) -> None:
            if data is not None and verify(name, data):
                value = bytes(data)
                self._storage.keep(name, value)
                then(Object(value), now)
                return
            if data is not None:
                self._storage.forget(name, now)
            self._search(name, then, now)

        self._storage.read(name, 0, -1, read, now)

    def _search_beside_own(self, key: Name, then: ThenFound, now: float) -> None:
        """We are of the replica set, but what we hold may be lies as well as what others do."""

        def read(records: tuple[bytes, ...], now: float) -> None:
            self._search(key, then, now, records)

        read_records(self._storage, key, self._storage.records_at(key), read, now)

    def _or_read_records(self, key: Name, then: ThenFound, result: FindResult, now: float) -> None:
        """Take what is here after all, where nobody else has anything."""
        names = self._storage.records_at(key) if isinstance(result, Failure) else []

        def read(records: tuple[bytes, ...], now: float) -> None:
            then(Entries(records[:ENTRIES_PER_KEY]) if records else result, now)

        if names:
            read_records(self._storage, key, names, read, now)
        else:
            then(result, now)

    # -- what is elsewhere --

    def _search(self, name: Name, then: ThenFound, now: float, own: tuple[bytes, ...] = ()) -> None:
        """Search elsewhere; `own`: the index entries that we hold, as one of the replica set."""
        search = self._searches.get(name)
        if search is not None:
            if len(search.waiters) >= JOINED_MAX:
                self._context.stats.count("searches_refused")
                then(Failure.BUSY, now)
            else:
                search.waiters.append(then)
            return
        if len(self._searches) >= SEARCHES_MAX:
            self._context.stats.count("searches_refused")
            then(Failure.BUSY, now)
            return
        search = Search(name, then, now + self._context.config.get_timeout_s)
        self._searches[name] = search
        if own:
            self._note_entries(search, self._context.identity.id, own, now)
        self._begin(search, now)

    def _begin(self, search: Search, now: float) -> None:
        """Begin a round: find out whom to ask."""
        if search.ended:
            return
        context = self._context
        search.candidates = []
        search.next = search.replicas = search.wanted = 0
        search.denied.clear()
        search.unsure = False
        search.root_asked = False
        search.version = context.leaf_set.version
        if placement.knows(context, search.position):
            peers = placement.closest(context, search.position, 2 * context.config.replicas)
            self._add_replicas(search, peers, now)
            self._advance(search, now)
        else:
            self._ask_root(search, now)

    def _ask_root(self, search: Search, now: float) -> None:
        """Route the question: any holder on the way answers, or the root with whom to ask."""
        context = self._context
        search.root_asked = True

        def routed(answer: Found | Replicas | None, peer: Peer | None, now: float) -> None:
            if search.ended:
                return
            if isinstance(answer, Found) and peer is not None:
                self._on_found(search, peer, answer, now)
                return
            self._on_replicas(search, answer, now)

        self._lookup.ask(search.position, Find(context.nonce(), search.name), routed, now)

    def _ask_who(self, search: Search, now: float) -> None:
        """Somebody on the way has index entries: find out who else should."""

        def routed(answer: Found | Replicas | None, peer: Peer | None, now: float) -> None:
            if not search.ended:
                self._on_replicas(search, answer, now)

        question = HaveQuery(self._context.nonce(), False, ())
        self._lookup.ask(search.position, question, routed, now)

    def _on_replicas(self, search: Search, answer: Found | Replicas | None, now: float) -> None:
        if isinstance(answer, Replicas) and answer.holders:
            self._add_replicas(search, self._lookup.peers_of(answer), now)
        else:
            search.unsure = True
        self._advance(search, now)

    def _add_replicas(self, search: Search, peers: Sequence[Peer | None], now: float) -> None:
        """Append the k closest, and then those after them."""
        replica_set = peers[: self._context.config.replicas]
        self._add_candidates(search, replica_set, now)
        if not search.wanted:
            search.wanted, search.replicas = len(replica_set), len(search.candidates)
        self._add_candidates(search, peers[self._context.config.replicas :], now)

    def _add_candidates(self, search: Search, peers: Sequence[Peer | None], now: float) -> None:
        """Append nodes to be asked, the nearest first, the slow and the doubtful last."""
        context = self._context
        known = {peer.id for peer in search.candidates}
        new = [peer for peer in peers if peer is not None and peer.id not in known]
        new.sort(
            key=lambda peer: (
                not context.usable(peer.id),
                self._slow.covers(peer.id, now),
                placement.distance_s(context, peer),
            )
        )
        room = CANDIDATES_MAX - len(search.candidates)
        search.candidates += new[:room]

    def _advance(self, search: Search, now: float) -> None:
        """Ask the next candidate; with none left, and nobody asked, conclude."""
        if search.ended:
            return
        if search.hedge is not None:
            search.hedge.cancel()
            search.hedge = None
        while search.next < len(search.candidates):
            of_set = search.next < search.replicas
            if search.given and not of_set and not search.pulling:
                if any(peer.id in search.asking for peer in search.candidates[: search.replicas]):
                    return  # until all of them have answered, or will not
                if search.agreed:
                    break
            peer = search.candidates[search.next]
            search.next += 1
            heard = (search.bad, search.asking, search.denied, search.given)
            if any(peer.id in those for those in heard):
                continue
            self._ask(search, peer, now)
            if search.given and of_set:
                continue  # all of them at once
            if not search.pulling:
                search.hedge = self._context.deadlines.arm(now + peer.rto_s, self._hedge, search)
            return
        if not search.asking and not search.pulling:
            self._conclude(search, now)

    def _hedge(self, search: Search, now: float) -> None:
        search.hedge = None
        if not search.ended and not search.pulling and search.next < len(search.candidates):
            self._context.stats.count("finds_hedged")
            self._advance(search, now)

    def _ask(self, search: Search, peer: Peer, now: float) -> None:
        def answered(answer: Found | Replicas | None, now: float) -> None:
            search.asking.pop(peer.id, None)
            if search.ended:
                return
            if isinstance(answer, Found):
                self._on_found(search, peer, answer, now)
                return
            if answer is None:
                search.unsure = True
            else:
                search.denied[peer.id] = None
                # Who is being filled itself names many more than the replica set.
                self._add_candidates(search, self._lookup.peers_of(answer), now)
            if not search.pulling:
                self._advance(search, now)

        message = Find(self._context.nonce(), search.name)
        search.asking[peer.id] = message.nonce
        self._requests.ask(peer, message, answered, now, attempts=FIND_ATTEMPTS)

    def _on_found(self, search: Search, peer: Peer, found: Found, now: float) -> None:
        name = search.name
        if found.records:
            records = tuple([r for r in found.records if is_record_of(name, r)])
            if records:
                self._note_entries(search, peer.id, records, now)
                if not search.wanted:
                    self._ask_who(search, now)
                elif search.settled and not search.pulling:
                    self._end_without(search, Failure.UNREACHABLE, now)
                elif not search.pulling:
                    self._advance(search, now)
                return
        elif len(found.data) == found.size:
            if verify(name, found.data):
                self._note_late(search, peer, now)
                self._storage.keep(name, found.data)
                self._end(search, Object(found.data), now)
                return
        elif not found.data and 0 < found.size <= OBJECT_BYTES_MAX:
            if not search.pulling:
                self._note_late(search, peer, now)
                self._pull_from(search, peer, found.size, now)
            return
        self._note_bad(search, (peer,))
        self._advance(search, now)

    def _note_entries(
        self, search: Search, holder: NodeId, records: tuple[bytes, ...], now: float
    ) -> None:
        if not search.given:
            self._context.deadlines.arm(now + self._patience_s, self._tire, search)
        search.given[holder] = records

    def _tire(self, search: Search, now: float) -> None:
        """Some have given entries, others are silent still."""
        if not search.ended and not search.pulling:
            self._end_without(search, Failure.UNREACHABLE, now)

    def _pull_from(self, search: Search, peer: Peer, size: int, now: float) -> None:
        """Pull from who has it; the others of the replica set join in if that takes long."""
        search.pulling = True
        if search.hedge is not None:
            search.hedge.cancel()
        search.hedge = self._context.deadlines.arm(
            now + self._context.config.rto_initial_s, self._add_holders, search
        )

        def pulled(result: PullResult, now: float) -> None:
            search.pulling = False
            if search.ended:
                return
            self._note_bad(search, result.corrupt)
            if isinstance(result, Pulled):
                if result.mostly_from is not None and result.mostly_from.id != peer.id:
                    self._note_slow(peer, now)
                self._storage.keep(search.name, result.value)
                self._end(search, Object(result.value), now)
                return
            search.unsure = True
            search.denied[peer.id] = None
            self._advance(search, now)

        wait_s = max(search.deadline - now, RETRY_S)
        self._pull(search.name, size, (peer,), pulled, now, deadline_s=wait_s)

    def _add_holders(self, search: Search, now: float) -> None:
        """The holder may hang: name those to the pull that may have it and did not stay silent."""
        search.hedge = None
        if search.ended or not search.pulling:
            return
        for peer in search.candidates[: self._context.config.replicas]:
            doubtful = peer.id in search.asking or not self._context.usable(peer.id)
            if not doubtful and peer.id not in search.denied and peer.id not in search.bad:
                self._add_holder(search.name, peer, now)

    def _note_late(self, search: Search, answered: Peer, now: float) -> None:
        """Those who were asked before this one are slower: it was asked only when they were late.

        Whether a single datagram of theirs was lost does not matter: they were asked again then.
        """
        for peer in search.candidates:
            if peer.id == answered.id:
                return
            if peer.id in search.asking and not search.given:
                self._note_slow(peer, now)

    def _note_slow(self, peer: Peer, now: float) -> None:
        self._context.stats.count("holders_slow")
        self._slow.note(peer.id, now + SLOW_RTOS * self._context.config.rto_initial_s)

    def _note_bad(self, search: Search, peers: Sequence[Peer]) -> None:
        for peer in peers:
            self._context.stats.count("bad_copies_received")
            search.bad[peer.id] = peer

    def _conclude(self, search: Search, now: float) -> None:
        """All were asked, and nobody gave it."""
        # Who is still joining knows nobody, and seems to itself to be the whole ring.
        certain = (
            self._is_active()
            and (search.candidates or self._context.leaf_set.spans_ring)
            and search.version == self._context.leaf_set.version
        )
        large = len(self._context.leaf_set) >= self._context.config.leaf_set_size // 2
        if search.agreed:
            self._end_without(search, Failure.UNREACHABLE, now)
        elif certain and not search.unsure and large and not search.root_asked:
            self._ask_root(search, now)  # the root may know nodes that we do not
        elif certain and not search.unsure:
            self._end_without(search, Failure.NOT_FOUND, now)
        elif now + search.retry_s >= search.deadline:
            self._end_without(search, Failure.UNREACHABLE, now)
        else:
            self._context.deadlines.arm(now + search.retry_s, self._begin, search)
            search.retry_s = min(2 * search.retry_s, RETRY_MAX_S)

    def _end_without(self, search: Search, why: Failure, now: float) -> None:
        """Nobody gave the object: end with index entries, if there are any."""
        if search.given:
            self._end(search, search.entries(self._context.rng), now)
        else:
            self._end(search, Failure.CORRUPT if search.bad else why, now)

    def _end(self, search: Search, result: FindResult, now: float) -> None:
        search.ended = True
        self._searches.pop(search.name, None)
        if search.hedge is not None:
            search.hedge.cancel()
        for nonce in search.asking.values():
            self._requests.cancel(nonce)
        if search.bad and isinstance(result, Object):
            self._offer_good(search, len(result.value), now)
        for then in search.waiters:
            then(result, now)

    def _offer_good(self, search: Search, size: int, now: float) -> None:
        """Report bad copies by offering the good one, which is in our cache for a while."""
        for peer in search.bad.values():
            self._context.log("bad_copy_reported", peer=f"{peer.id:032x}", name=search.name.hex())
            message = Store(self._context.nonce(), search.name, size, b"")
            self._requests.ask(peer, message, lambda answer, now: None, now, attempts=2)
