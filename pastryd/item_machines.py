"""The half of a node that keeps items: storage, transfer, blobs, replication, clients' access.

Wires those machines to each other, as `node.py` does with the overlay's; decides nothing. What it
needs of the overlay comes in as callables.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pastryd.ids import Name, Position
from pastryd.protocol.access import Access
from pastryd.protocol.access_report import Document, NodeState, status_document
from pastryd.protocol.application import Application
from pastryd.protocol.blobs import Blobs
from pastryd.protocol.context import Context
from pastryd.protocol.handover import Handover
from pastryd.protocol.items import verify
from pastryd.protocol.lookup import Lookup
from pastryd.protocol.outbox import StoreReply
from pastryd.protocol.reconcile import Reconcile
from pastryd.protocol.replication import Replication
from pastryd.protocol.requests import Requests
from pastryd.protocol.storage import Storage
from pastryd.protocol.transfer import Transfer
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire import messages as m

Route = Callable[[Position, bytes, str, float, bool], None]
"""Routes (key, payload, application, now, keep the trail)."""


class ItemMachines:
    """The machines of one node that have to do with items."""

    __slots__ = (
        "_context",
        "_is_active",
        "_started_at",
        "access",
        "blobs",
        "handover",
        "lookup",
        "reconcile",
        "replication",
        "storage",
        "transfer",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        route: Route,
        is_active: Callable[[], bool],
        names: Iterable[Name],
        bytes_held: int = 0,
    ) -> None:
        """`names`: what the store holds already, ascending, `bytes_held` in all."""
        self._context = context
        self._is_active = is_active
        self._started_at = 0.0
        self.storage = storage = Storage(context)
        storage.inventory.bulk_load(names, bytes_held)
        self.transfer = transfer = Transfer(context, storage.read, verify)
        self.lookup = lookup = Lookup(
            context, lambda key, payload, name, now: route(key, payload, name, now, False)
        )
        self.blobs = Blobs(
            context,
            requests,
            storage,
            lookup,
            transfer.pull,
            transfer.add_holder,
            transfer.cancel,
            is_active,
        )
        self.reconcile = Reconcile(
            context,
            requests,
            storage.inventory,
            self._on_missing,
        )
        self.replication = Replication(
            context, requests, storage, self.reconcile.compare, transfer.pull, is_active
        )
        storage.on_forgotten = self.replication.recheck
        self.blobs.is_sure = self.replication.is_sure
        self.handover = Handover(context, requests, storage, lookup, is_active)
        self.access = Access(
            context,
            requests,
            storage,
            lookup,
            self.blobs.find,
            self.blobs.put,
            transfer.pull,
            route,
            is_active,
            self.status,
        )

    @property
    def applications(self) -> list[Application]:
        """What is to be registered with the overlay."""
        return [self.blobs, self.access]

    @property
    def holds_any(self) -> bool:
        """Whether our store is not empty."""
        return len(self.storage.inventory) > 0

    def start(self, now: float) -> None:
        """Begin what is periodic."""
        self._started_at = now
        self.replication.start(now)
        self.handover.start(now)

    def update(self, handle: Handle, joined: bool, now: float) -> None:
        """The leaf set changed (applications have their own upcall)."""
        self.replication.update(handle, joined, now)
        self.handover.update(handle, joined, now)

    def store_completed(self, reply: StoreReply, now: float) -> None:
        """Take in the store's answer to a request."""
        self.storage.store_completed(reply, now)

    def forget(self, name: Name, now: float) -> None:
        """The scrubber found a bad copy: drop it; repair brings a good one."""
        self.storage.forget(name, now)

    def _on_missing(self, names: Sequence[Name], peer: Peer, now: float) -> None:
        self.replication.note_missing(names, peer, now)

    def leave(self, then: Callable[[float], None], now: float) -> None:
        """Hand everything over, then call `then`; bounded by `leave_timeout_s`."""
        self.replication.leaving = True
        self.handover.leave(then, now)

    def status(self, now: float) -> Document:
        """Return the node's status document."""
        state = NodeState(
            active=self._is_active(),
            leaving=self.replication.leaving,
            uptime_s=now - self._started_at,
            missing=self.replication.missing,
            unconfirmed=self.handover.outside,
            settled=self.replication.settled,
            searches=self.blobs.searches,
            puts=self.blobs.puts,
            pulls=len(self.transfer),
            requests=self.access.in_progress,
        )
        return status_document(self._context, self.storage, state)

    def check_invariants(self) -> None:
        """Assert what must hold between two steps."""
        self.transfer.check_invariants()
        self.replication.check_invariants()


ITEM_HANDLERS: dict[type[Any], Callable[[ItemMachines, Any, Peer, float], object]] = {
    m.Find: lambda items, message, peer, now: items.blobs.on_find(message, peer, now),
    m.Found: lambda items, message, peer, now: items.blobs.on_answer(message, peer, now),
    m.Replicas: lambda items, message, peer, now: items.blobs.on_answer(message, peer, now),
    m.Store: lambda items, message, peer, now: items.blobs.on_store(message, peer, now),
    m.Stored: lambda items, message, peer, now: items.blobs.on_answer(message, peer, now),
    m.HaveQuery: lambda items, message, peer, now: items.replication.on_have_query(
        message, peer, now
    ),
    m.HaveReply: lambda items, message, peer, now: items.blobs.on_answer(message, peer, now),
    m.Pull: lambda items, message, peer, now: items.transfer.on_pull(message, peer, now),
    m.Segment: lambda items, message, peer, now: items.transfer.on_segment(message, peer, now),
    m.Absent: lambda items, message, peer, now: items.transfer.on_absent(message, peer, now),
    m.PathProbe: lambda items, message, peer, now: items.transfer.prober.on_probe(
        message, peer, now
    ),
    m.PathReply: lambda items, message, peer, now: items.transfer.prober.on_reply(
        message, peer, now
    ),
    m.Ranges: lambda items, message, peer, now: items.reconcile.on_ranges(message, peer, now),
    m.Names: lambda items, message, peer, now: items.reconcile.on_names(message, peer, now),
    m.Request: lambda items, message, peer, now: items.access.on_request(message, peer, now),
    m.Answer: lambda items, message, peer, now: items.access.on_answer(message, peer, now),
}
"""Who takes which message."""
