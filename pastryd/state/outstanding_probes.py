"""The probes of leaf-set upkeep that are not answered yet, and which of them are waited for.

Whom others name may not exist, and they can name ever more. So we wait for those who are named
early in our join, as all are in an honest one; who is named later is probed all the same.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pastryd.ids import NodeId
from pastryd.state.handle import Handle


class _Probe(NamedTuple):
    nonce: int
    handle: Handle
    is_awaited: bool


class OutstandingProbes:
    """Whom we have asked, by id."""

    __slots__ = ("_awaits_until", "_probes")

    def __init__(self) -> None:
        self._probes: dict[NodeId, _Probe] = {}
        self._awaits_until: float | None = None
        """Who is named later is not waited for. None: we do not know yet where we belong."""

    @property
    def awaits_the_named(self) -> bool:
        """Whether it was said until when."""
        return self._awaits_until is not None

    def await_named_until(self, when: float) -> None:
        """Do not wait for those who are named later."""
        self._awaits_until = when

    def begin(self, handle: Handle, nonce: int, is_hearsay: bool, now: float) -> None:
        """Note a question. `is_hearsay`: others named this node, and it may not exist."""
        early = self._awaits_until is None or now <= self._awaits_until
        self._probes[handle.id] = _Probe(nonce, handle, early or not is_hearsay)

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
    def handles(self) -> list[Handle]:
        """Who has not answered yet."""
        return [probe.handle for probe in self._probes.values()]

    @property
    def awaited(self) -> dict[NodeId, int]:
        """Those without whom we do not settle, each with its nonce."""
        return {i: probe.nonce for i, probe in self._probes.items() if probe.is_awaited}
