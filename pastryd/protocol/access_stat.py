"""Where the copies of a blob lie: finds its parts, asks who holds them (the STAT verb).

Owns the inquiries of one access node. Bounded: for a blob of many chunks the first ones are listed
and the document says how many there are. All that one node may hold is one question of `NAMES_MAX`
names: the holders of a part are told apart by `Lookup`, and so many parts there are at most.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from pastryd.errors import RemoteProtocolError
from pastryd.ids import Name, NodeId, position_of
from pastryd.protocol.access_report import Document, show_node
from pastryd.protocol.context import Context
from pastryd.protocol.items import ENTRIES_PER_KEY, IndexEntry, Manifest, chunks_of
from pastryd.protocol.lookup import Lookup
from pastryd.protocol.requests import Requests
from pastryd.protocol.search_state import Entries, Failure, FindResult, Object, ThenFound
from pastryd.protocol.storage import Storage
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire.messages import NAMES_MAX, HaveQuery, HaveReply

ThenStat = Callable[[Document | Failure, float], None]


class Find(Protocol):
    """`Blobs.find`."""

    def __call__(self, name: Name, then: ThenFound, now: float) -> None:
        """Get an item."""


class Part:
    """One item of a blob and who turned out to hold it."""

    __slots__ = ("holders", "kind", "name")

    def __init__(self, kind: str, name: Name) -> None:
        self.kind = kind
        self.name = name
        self.holders: dict[NodeId, Handle] = {}

    def document(self) -> Document:
        """Return it for people, holders in the order of their ids."""
        holders = [show_node(self.holders[node_id]) for node_id in sorted(self.holders)]
        return {"kind": self.kind, "name": self.name.hex(), "holders": holders}


class Stat:
    """Answers where the copies of a key lie."""

    __slots__ = ("_context", "_find", "_lookup", "_requests", "_storage")

    def __init__(
        self,
        context: Context,
        requests: Requests,
        storage: Storage,
        lookup: Lookup,
        find: Find,
    ) -> None:
        self._context = context
        self._requests = requests
        self._storage = storage
        self._lookup = lookup
        self._find = find

    def stat(self, key: Name, then: ThenStat, now: float) -> None:
        """Find out size, parts and holders of a blob."""

        def found(result: FindResult, now: float) -> None:
            if isinstance(result, Failure):
                then(result, now)
            elif isinstance(result, Object):
                self._locate(key, len(result.value), 1, [Part("object", key)], then, now)
            else:
                self._stat_large(key, result, then, now)

        self._find(key, found, now)

    def _stat_large(self, key: Name, entries: Entries, then: ThenStat, now: float) -> None:
        """Describe what the first entry says; a blob that it lies about is found out by a get."""
        parsed = [IndexEntry.decode(record) for record in entries.records[:ENTRIES_PER_KEY]]
        parts = [Part("index", entry.name) for entry in parsed]
        entry = parsed[0]
        chunks = chunks_of(entry.size)

        def descend(name: Name, size: int, level: int | None, now: float) -> None:
            parts.append(Part("manifest", name))

            def found(result: FindResult, now: float) -> None:
                if isinstance(result, Failure):
                    then(result, now)
                    return
                try:
                    if not isinstance(result, Object):
                        raise RemoteProtocolError("index entries where a manifest should be")
                    manifest = Manifest.decode(result.value, size, level)
                except RemoteProtocolError:
                    then(Failure.CORRUPT, now)
                    return
                if manifest.level:
                    first, first_size = manifest.part(0)
                    descend(first, first_size, manifest.level - 1, now)
                    return
                for i in range(min(len(manifest), NAMES_MAX - len(parts))):
                    parts.append(Part("chunk", manifest.part(i)[0]))
                self._locate(key, entry.size, chunks, parts, then, now)

            self._find(name, found, now)

        descend(entry.manifest, entry.size, None, now)

    def _locate(
        self,
        key: Name,
        size: int,
        chunks: int,
        parts: Sequence[Part],
        then: ThenStat,
        now: float,
    ) -> None:
        """Resolve the replica set of every part, then ask each node once for all of its parts."""
        asked: dict[NodeId, tuple[Peer, list[Part]]] = {}
        left = len(parts)

        def resolved_one(part: Part, peers: Sequence[Peer | None] | None, now: float) -> None:
            nonlocal left
            left -= 1
            for peer in peers or ():
                if peer is not None:
                    asked.setdefault(peer.id, (peer, []))[1].append(part)
            if self._storage.holds(part.name):
                part.holders[self._context.identity.id] = self._context.identity
            if not left:
                self._ask_holders(list(asked.values()), ended, now)

        def ended(now: float) -> None:
            listed = sum(part.kind == "chunk" for part in parts)
            document: Document = {
                "key": key.hex(),
                "size": size,
                "chunks": chunks,
                "chunks_listed": listed if chunks > 1 else 1,
                "copies_wanted": self._context.config.replicas,
                "copies_least": min(len(part.holders) for part in parts),
                "replicas": [part.document() for part in parts],
            }
            then(document, now)

        for part in parts:
            self._lookup.resolve(position_of(part.name), partial(resolved_one, part), now)

    def _ask_holders(
        self,
        asked: Sequence[tuple[Peer, list[Part]]],
        ended: Callable[[float], None],
        now: float,
    ) -> None:
        left = len(asked)
        if not left:
            ended(now)
            return

        def answered(
            peer: Peer, parts: Sequence[Part], answer: HaveReply | None, now: float
        ) -> None:
            nonlocal left
            left -= 1
            for i, part in enumerate(parts):
                if answer is not None and answer.bitmap >> i & 1:
                    part.holders[peer.id] = peer.handle
            if not left:
                ended(now)

        for peer, parts in asked:
            names = tuple([part.name for part in parts])
            self._requests.ask(
                peer,
                HaveQuery(self._context.nonce(), False, names),
                partial(answered, peer, parts),
                now,
            )
