"""What leaf-set upkeep waits for before a node answers for keys, and who has not answered it yet.

First it must know where it belongs. The root of its id says so; whoever takes it for a neighbour
may lie, but the root may be coming back, too, and wait for us: after a while that word will do.

Then come those who are probed. Whom others name may not exist, and they can name ever more: we wait
for those who are named early, as all are in an honest join, and probe the later ones all the same.
"""

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from pastryd.ids import NodeId


class _Probe(NamedTuple):
    nonce: int
    is_awaited: bool


class Settling:
    """The outstanding probes of one node, by id, and from when on it may settle."""

    __slots__ = ("_awaits_until", "_from", "_probes")

    def __init__(self) -> None:
        self._probes: dict[NodeId, _Probe] = {}
        self._from = inf
        """inf: we do not know where we belong; -inf: we do."""
        self._awaits_until = inf
        """Who is named later is not waited for."""

    @property
    def is_rooted(self) -> bool:
        """Whether who knows it has told where we belong."""
        return self._from == -inf

    @property
    def is_placed(self) -> bool:
        """Whether anybody has: before that nobody's word makes us a member."""
        return self._from < inf

    def may_settle(self, now: float) -> bool:
        """Tell whether that is certain enough to answer for keys."""
        return now >= self._from

    def root(self, awaits_until: float) -> None:
        """We know where we belong. Who is named later than `awaits_until` is not waited for."""
        self._from = -inf
        self._awaits_until = awaits_until

    def place(self, when: float) -> bool:
        """Somebody takes us for a neighbour: that will do, from `when` on; return if it is new."""
        if self.is_placed:
            return False
        self._from = when
        return True

    def begin(self, node_id: NodeId, nonce: int, is_hearsay: bool, now: float) -> None:
        """Note a question. `is_hearsay`: others named this node, and it may not exist."""
        is_awaited = not is_hearsay or now <= self._awaits_until
        self._probes[node_id] = _Probe(nonce, is_awaited)

    def end(self, node_id: NodeId) -> int | None:
        """Forget a question; return its nonce, if there was one."""
        probe = self._probes.pop(node_id, None)
        if not self._probes:
            self._probes.clear()  # a dict keeps the size that it once needed
        return None if probe is None else probe.nonce

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._probes

    def __len__(self) -> int:
        return len(self._probes)

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._probes)

    @property
    def awaited(self) -> dict[NodeId, int]:
        """Those without whom we do not settle, each with its nonce."""
        return {i: probe.nonce for i, probe in self._probes.items() if probe.is_awaited}
