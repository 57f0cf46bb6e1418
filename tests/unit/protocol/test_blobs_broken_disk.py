"""Puts of which one replica says that it cannot keep them: its disk fails."""

from itertools import pairwise
from random import Random

import pytest

from pastryd.protocol.put_state import PutResult
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode
from pastryd.wire.messages import Store
from pastryd.wire.verbs import AnswerStatus
from tests.support.network import VirtualNetwork, VirtualNode
from tests.unit.protocol.test_blobs import put, ring


def count_stores(network: VirtualNetwork, node: VirtualNode) -> list[float]:
    """Return when a node will have been offered something."""
    transmit = network.transmit
    offered: list[float] = []

    def counting(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
        if destination == node.handle and isinstance(decode(data), Store):
            offered.append(network.now)
        transmit(data, sender, destination)

    network.transmit = counting  # type: ignore[method-assign]
    return offered


@pytest.mark.parametrize("size", [300, 100_000])
def test_a_replica_whose_disk_fails_is_asked_less_and_less_often(size: int) -> None:
    network = ring(3)
    broken = network.nodes[1]
    broken.disk.failing = True
    offered = count_stores(network, broken)
    result = put(network, network.nodes[0], Random(size).randbytes(size))
    assert result == PutResult(AnswerStatus.UNDER_REPLICATED, 2)
    waits = [later - earlier for earlier, later in pairwise(offered)]
    assert waits[:4] == pytest.approx([0.25, 0.5, 1.0, 2.0], abs=0.1)
    assert max(waits) < 5 and len(offered) < 9


def test_a_disk_that_fails_for_a_while_ends_a_put_soon_after() -> None:
    network = ring(3)
    broken = network.nodes[1]
    broken.disk.failing = True
    began = network.now
    network.at(began + 2, setattr, broken.disk, "failing", False)
    assert put(network, network.nodes[0], b"value") == PutResult(AnswerStatus.OK, 3)
    assert network.now - began < 4.1


def test_nobody_waits_for_a_disk_that_fails_while_there_are_others() -> None:
    network = ring(3)
    broken = network.nodes[1]
    broken.disk.failing = True
    began = network.now
    network.at(began + 5, network.add, [network.nodes[0]])
    assert put(network, network.nodes[0], b"value") == PutResult(AnswerStatus.OK, 3)
    joined_s = network.now - began - 5
    assert joined_s < 1
    began = network.now
    assert put(network, network.nodes[0], b"another") == PutResult(AnswerStatus.OK, 3)
    assert network.now - began < 0.02
