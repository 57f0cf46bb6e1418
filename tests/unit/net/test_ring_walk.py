"""`net/ring_walk.py`: consistent means that everybody names the true neighbours."""

from typing import Any

import pytest

from pastryd.errors import (
    ConfigError,
    CorruptError,
    NotFoundError,
    PastryError,
    UnreachableError,
)
from pastryd.net.access_link import RefusedError
from pastryd.net.ring_walk import walk_ring

Status = dict[str, Any]


def _ring(count: int, seen: int = 2) -> dict[str, Status]:
    ids = [f"{i:032x}" for i in range(count)]

    def node(i: int) -> Status:
        return {"id": ids[i % count], "address": f"192.0.2.{i % count}:1"}

    width = min(seen, count - 1)
    return {
        ids[i]: {
            **node(i),
            "active": True,
            "leaf_set": {
                "left": [node(i - j) for j in range(1, width + 1)],
                "right": [node(i + j) for j in range(1, width + 1)],
            },
        }
        for i in range(count)
    }


async def _walk(nodes: dict[str, Status], start: str = "0" * 32) -> Any:
    async def status_of(node_id: str | None) -> Status:
        if node_id not in (None, *nodes):
            raise UnreachableError(str(node_id))
        return nodes[node_id or start]

    return await walk_ring(status_of, "198.51.100.1:4160")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
async def test_a_whole_ring_is_found_and_consistent(count: int) -> None:
    ring = await _walk(_ring(count))
    assert ring.consistent
    assert [int(node.id, 16) for node in ring.nodes] == list(range(count))


async def test_a_ghost_makes_it_inconsistent() -> None:
    nodes = _ring(5)
    del nodes[f"{3:032x}"]
    ring = await _walk(nodes)
    assert not ring.consistent
    assert len(ring.nodes) == 4


async def test_a_node_that_misses_its_neighbour_or_is_not_active_makes_it_inconsistent() -> None:
    nodes = _ring(5)
    nodes[f"{2:032x}"]["leaf_set"]["right"].pop(0)
    assert not (await _walk(nodes)).consistent
    nodes = _ring(5)
    nodes[f"{2:032x}"]["active"] = False
    assert not (await _walk(nodes)).consistent


async def test_a_node_that_does_not_know_its_address_is_shown_where_others_see_it() -> None:
    nodes = _ring(3)
    nodes[f"{0:032x}"]["address"] = nodes[f"{1:032x}"]["address"] = ":4160"
    addresses = [node.address for node in (await _walk(nodes)).nodes]
    assert addresses == ["198.51.100.1:4160", "192.0.2.1:1", "192.0.2.2:1"]


@pytest.mark.parametrize(
    "strange",
    [
        {"id": 1},
        {"leaf_set": {"left": [{"id": 7}], "right": []}},
        {"leaf_set": {"left": [{"id": f"{2:032x}"}], "right": []}},
        {"leaf_set": None},
        {"address": None},
        {"id": f"{4:032x}"},
    ],
)
async def test_a_strange_document_of_another_node_is_as_none(strange: Status) -> None:
    nodes = _ring(5)
    nodes[f"{3:032x}"].update(strange)
    ring = await _walk(nodes)
    assert not ring.consistent
    assert [int(node.id, 16) for node in ring.nodes] == [0, 1, 2, 4]
    assert ring.nodes[-1].status is nodes[f"{4:032x}"]


@pytest.mark.parametrize("error", [ConfigError, CorruptError, NotFoundError, RefusedError])
async def test_a_node_that_cannot_be_asked_ends_no_walk(error: type[PastryError]) -> None:
    nodes = _ring(5)
    nodes[f"{3:032x}"]["leaf_set"]["left"].append({"id": "no id", "address": "192.0.2.9:1"})

    async def status_of(node_id: str | None) -> Status:
        if node_id == "no id":
            raise error("why")
        return nodes[node_id or "0" * 32]

    ring = await walk_ring(status_of, "198.51.100.1:4160")
    assert not ring.consistent and len(ring.nodes) == 5


async def test_a_strange_document_is_told() -> None:
    for strange in ({"id": 1}, {"id": "0" * 32, "address": "x", "leaf_set": []}):
        with pytest.raises(CorruptError):
            await _walk({"0" * 32: strange})
