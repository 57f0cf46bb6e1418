"""Walks a ring from one node: asks everybody whom they know, and compares what they say.

Knows the status document of a node (`id`, `address`, `active`, `leaf_set` with `left` and `right`,
nearest first), not how it is fetched.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pastryd.errors import CorruptError, PastryError

QUESTIONS_AT_ONCE = 16
NODES_MAX = 100_000

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RingNode:
    """One node of the ring and how it describes itself."""

    id: str
    address: str
    status: Status


@dataclass(frozen=True, slots=True)
class Ring:
    """All nodes in the order of their ids; consistent: each knows its true neighbours."""

    consistent: bool
    nodes: list[RingNode]


async def walk_ring(
    status_of: Callable[[str | None], Awaitable[Status]], access_address: str
) -> Ring:
    """Return the ring; `status_of` asks the access node (None) or the node with an id.

    A node that nobody told its own address is shown where others see it. One whose document is
    strange, or that cannot be asked, is none; the access node's errors are raised.
    """
    own = _checked(await status_of(None), None)
    seen_at: dict[str, str] = {_text(own, "id"): access_address}
    found: dict[str, Status] = {}
    silent = False
    room = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def ask(node_id: str) -> Status | None:
        async with room:
            try:
                status = await status_of(node_id)
                return _checked(status, node_id)
            except PastryError:  # whatever it is: one node does not end the walk
                return None

    asked = {_text(own, "id")}
    answers: Sequence[Status | None] = [own]
    while answers:
        present = [status for status in answers if status is not None]
        silent |= len(present) < len(answers)
        for status in present:
            found[_text(status, "id")] = status
            for node in _neighbours(status):
                seen_at.setdefault(_text(node, "id"), _text(node, "address"))
        new = {node for status in present for side in _sides(status) for node in side} - asked
        asked |= new
        if len(asked) > NODES_MAX:
            raise CorruptError("the nodes name more others than a ring can have")
        answers = await asyncio.gather(*map(ask, sorted(new)))
    ordered = [found[node] for node in sorted(found)]
    nodes = [RingNode(_text(s, "id"), _address(s, seen_at), s) for s in ordered]
    return Ring(not silent and is_consistent(ordered), nodes)


def is_consistent(ordered: Sequence[Status]) -> bool:
    """Tell whether each node is active and its nearest neighbours are the true ones."""
    count = len(ordered)
    for i, status in enumerate(ordered):
        if status.get("active") is not True:
            return False
        for side, step in zip(_sides(status), (-1, 1), strict=True):
            true_neighbour = [_text(ordered[(i + step) % count], "id")] if count > 1 else []
            if side[:1] != true_neighbour:
                return False
    return True


def _checked(status: Status, node_id: str | None) -> Status:
    """Return a document that says what we need, and speaks of whom we asked; else raise."""
    _sides(status)
    for node in (status, *_neighbours(status)):
        _text(node, "address")
    if node_id not in (None, _text(status, "id")):
        raise _strange()
    return status


def _address(status: Status, seen_at: Mapping[str, str]) -> str:
    own = _text(status, "address")
    return seen_at.get(_text(status, "id"), own) if own.startswith(":") else own


def _neighbours(status: Status) -> list[Status]:
    try:
        return [*status["leaf_set"]["left"], *status["leaf_set"]["right"]]
    except (KeyError, TypeError):
        raise _strange() from None


def _sides(status: Status) -> tuple[list[str], list[str]]:
    """Return the ids to the left and to the right, nearest first."""
    try:
        leaf_set = status["leaf_set"]
        return (
            [_text(node, "id") for node in leaf_set["left"]],
            [_text(node, "id") for node in leaf_set["right"]],
        )
    except (KeyError, TypeError):
        raise _strange() from None


def _text(document: Status, field: str) -> str:
    value = document.get(field) if isinstance(document, dict) else None
    if not isinstance(value, str):
        raise _strange()
    return value


def _strange() -> CorruptError:
    return CorruptError("a node describes itself in an unknown way; is it the same version?")
