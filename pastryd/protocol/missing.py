"""What one node knows that it lacks, by who announced it, and what of it is being pulled.

Bounded, and fair to those who announce: each member of our leaf set has an account of its own, all
others share one, for anybody who has the network key may make up names that nobody can deliver. Who
has the fewest pulls under way comes next, with the nearest of its names; when there is no room the
longest account gives way. Decides nothing about when to pull.
"""

from collections import Counter
from heapq import heapify, heappop, heappush

from pastryd.ids import Name, NodeId, position_of, ring_distance
from pastryd.protocol.context import Context
from pastryd.state.peers import Peer

QUEUE_MAX = 32_768
HEAP_MAX = 2 * QUEUE_MAX
"""Of one account, with what is not queued any more: weeding costs little for each that came."""
HOLDERS_MAX = 8
FAILURES_MAX = 4
"""Pulls in a row that may fail before what else its announcer alone named is dropped."""

Account = NodeId | None
"""A member of our leaf set, or None: all others."""


class Missing:
    """Names that we lack."""

    __slots__ = ("_context", "_failures", "_heaps", "_pulling", "_queue", "_slots")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._queue: dict[Name, list[tuple[Peer, Account]]] = {}
        """Who has it, and on whose account: for each account it is in that heap, too."""
        self._heaps: dict[Account, list[tuple[int, Name]]] = {}
        """What each announced, the nearest first; some of it is not queued any more."""
        self._pulling: dict[Name, tuple[Account, bool]] = {}
        """On whose account, and whether nobody else announced it."""
        self._slots: Counter[Account] = Counter()
        self._failures: Counter[Account] = Counter()

    def __len__(self) -> int:
        """Return how many are queued or being pulled."""
        return len(self._queue) + len(self._pulling)

    @property
    def queued(self) -> int:
        """How many wait to be pulled."""
        return len(self._queue)

    @property
    def from_members(self) -> bool:
        """Tell whether a member of our leaf set announced any of it."""
        return any(account is not None for account in (*self._slots, *self._heaps))

    def is_due_to(self, member: NodeId) -> bool:
        """Tell whether some of it waits, or is pulled, on this member's account."""
        return member in self._heaps or member in self._slots

    def is_queued(self, name: Name) -> bool:
        """Tell whether a name waits to be pulled."""
        return name in self._queue

    def is_pulled(self, name: Name) -> bool:
        """Tell whether a name is on its way here."""
        return name in self._pulling

    # -- announcements --

    def add(self, name: Name, peer: Peer) -> None:
        """Note that a peer says it has a name, which is not being pulled."""
        account = peer.id if peer.id in self._context.leaf_set else None
        holders = self._queue.get(name)
        if holders is None:
            if len(self._queue) >= QUEUE_MAX:
                self._context.stats.count("missing_not_queued")
                if not self._make_room(account):
                    return
            holders = self._queue[name] = []
        elif len(holders) >= HOLDERS_MAX or any(known is peer for known, _ in holders):
            return
        if all(account != other for _, other in holders):
            distance = ring_distance(self._context.identity.id, position_of(name))
            heap = self._heaps.setdefault(account, [])
            if len(heap) >= HEAP_MAX:
                self._weed(account, heap)
            heappush(heap, (distance, name))
        holders.append((peer, account))

    def _weed(self, account: Account, heap: list[tuple[int, Name]]) -> None:
        """Drop from an account's heap what others have had pulled since."""
        get = self._queue.get
        heap[:] = dict.fromkeys(
            [each for each in heap if any(account == of for _, of in get(each[1], ()))]
        )
        heapify(heap)

    def _make_room(self, account: Account) -> bool:
        """Drop a far name of whoever announced most; False: that is this very account."""
        heaps = self._heaps
        while len(self._queue) >= QUEUE_MAX:
            longest = max(heaps, key=lambda each: len(heaps[each]))
            heap = heaps[longest]
            if longest == account or len(heap) <= len(heaps.get(account, ())) + 1:
                return False
            self._lose(heap.pop()[1], longest)  # a leaf: not the farthest of all, but far
        return True

    def _lose(self, name: Name, account: Account) -> None:
        """Forget what one account said of a name; the name itself, unless others announced it."""
        holders = self._queue.get(name, ())
        rest = [holder for holder in holders if holder[1] != account]
        if rest:
            self._queue[name] = rest
        elif holders:
            del self._queue[name]

    def clear(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
        self._heaps.clear()

    # -- pulls --

    def take(self, pulls_max: int) -> tuple[Name, list[Peer]] | None:
        """Begin with the next: its name and who has it. None: none, or too many under way.

        Whoever has no pull under way may have one at any time: those of others may hang.
        """
        heaps = self._heaps
        for account, heap in list(heaps.items()):
            while heap and heap[0][1] not in self._queue:
                heappop(heap)
            if not heap:
                del heaps[account]
        if not heaps:
            return None
        account = min(heaps, key=lambda each: (self._slots[each], heaps[each][0]))
        if self._slots[account] and len(self._pulling) >= pulls_max:
            return None
        _, name = heappop(heaps[account])
        holders = self._queue.pop(name)
        self._pulling[name] = account, all(other == account for _, other in holders)
        self._slots[account] += 1
        return name, [peer for peer, _ in holders]

    def ended(self, name: Name) -> None:
        """A pull is over."""
        account, _ = self._pulling.pop(name)
        self._slots[account] -= 1
        if not self._queue:
            self._heaps.clear()
        if not self._slots[account]:
            del self._slots[account]
            if account not in self._heaps:
                del self._failures[account]

    def note_result(self, name: Name, came: bool) -> None:
        """A pull brought the item, or did not: what else its announcer alone named may be air."""
        account, is_alone = self._pulling[name]
        if is_alone and came:
            del self._failures[account]
        elif is_alone:
            self._failures[account] += 1
            if self._failures[account] >= FAILURES_MAX:
                del self._failures[account]
                self._drop_all_of(account)

    def _drop_all_of(self, account: Account) -> None:
        before = len(self._queue)
        for _, name in self._heaps.pop(account, ()):
            self._lose(name, account)
        self._context.stats.count("missing_dropped", before - len(self._queue))

    def check_invariants(self) -> None:
        """Assert what always holds."""
        assert len(self._queue) <= QUEUE_MAX
        assert not self._queue.keys() & self._pulling.keys()
        assert sum(self._slots.values()) == len(self._pulling)
        assert len(self._queue) <= sum(map(len, self._heaps.values()))
        assert all(len(heap) <= HEAP_MAX for heap in self._heaps.values())
