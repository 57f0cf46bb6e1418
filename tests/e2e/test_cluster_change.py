"""A ring that shrinks and grows, and one of whose disks is full: nothing is lost (real processes).

The tests build on each other and run in this order.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256

import pytest

from pastryd.client import Client
from tests.e2e.conftest import Measured
from tests.support.cluster import (
    MIB,
    Cluster,
    cluster_of,
    gather_limited,
    wait_replicated,
)
from tests.support.processes import pastry, wait_until

pytestmark = pytest.mark.e2e

NODES = 8
SMALL = 100
LARGE_BYTES = 8 * MIB + 5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(NODES, tmp_path_factory.mktemp("changing")) as started:
        yield started


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with Client(cluster.nodes[0].address) as connected:
        yield connected


async def put_all(cluster: Cluster, values: list[bytes]) -> None:
    async with Client([node.address for node in cluster.running]) as client:
        for result in await gather_limited(client.put(value) for value in values):
            assert result.copies >= 3
    cluster.blobs |= {sha256(value).hexdigest(): value for value in values}


async def assert_all_there(cluster: Cluster) -> None:
    for node in cluster.running:
        async with Client(node.address) as client:
            found = await gather_limited(client.get(key) for key in cluster.blobs)
            assert found == list(cluster.blobs.values())


def objects(cluster: Cluster) -> list[str]:
    """Return what is stored under its own hash: small blobs, and the chunks of large ones."""
    return [
        sha256(value[i : i + MIB]).hexdigest()
        for value in cluster.blobs.values()
        for i in range(0, len(value), MIB)
    ]


async def test_nodes_leave_one_after_the_other_until_three_remain(
    cluster: Cluster, client: Client, measured: Measured
) -> None:
    choose = random.Random(1)
    values = [choose.randbytes(choose.randrange(1, 3000)) for _ in range(SMALL)]
    await put_all(cluster, [*values, os.urandom(LARGE_BYTES)])
    loop = asyncio.get_running_loop()
    for node in cluster.nodes[-1:2:-1]:
        began = loop.time()
        node.signal(signal.SIGTERM)
        assert await asyncio.to_thread(node.wait) == 0
        measured("left after s", loop.time() - began)
        cluster.wait_for_ring()
        # Handed over: no moment without three copies, so no need to wait for repair.
        await assert_all_there_through_one(cluster)
    assert len(cluster.running) == 3
    await wait_replicated(client, objects(cluster))
    await assert_all_there(cluster)


async def assert_all_there_through_one(cluster: Cluster) -> None:
    async with Client(cluster.running[-1].address) as client:
        found = await gather_limited(client.get(key) for key in cluster.blobs)
        assert found == list(cluster.blobs.values())


async def test_copies_follow_to_nodes_that_join(
    cluster: Cluster, client: Client, measured: Measured
) -> None:
    joiners = [cluster.add() for _ in range(3)]
    measured("ring of six after s", cluster.wait_for_ring())
    loop = asyncio.get_running_loop()
    began = loop.time()
    await wait_replicated(client, objects(cluster))
    for node in joiners:
        async with Client(node.address) as joined:
            status = await joined.status()
            assert status["objects"] > 0
    measured("copies at the joiners after s", loop.time() - began)
    # The three that were there first die: what had been theirs alone is at the others now.
    await wait_settled(cluster)
    for node in cluster.nodes[1:3]:
        node.kill()
    await assert_all_there_through_one(cluster)
    cluster.wait_for_ring()
    await wait_replicated(client, objects(cluster))


async def wait_settled(cluster: Cluster) -> None:
    """Wait until every node says that it lacks nothing."""
    for node in cluster.running:

        def settled(address: str = node.address) -> bool:
            outcome = pastry("status", "--json", node=address)
            document = outcome.json()
            assert isinstance(document, dict)
            return bool(document["replication"]["settled"])

        wait_until(settled, f"{node.address} settled")


async def test_a_full_disk_refuses_and_the_next_node_takes_the_copy(
    cluster: Cluster, client: Client, measured: Measured
) -> None:
    tiny = cluster.add("--capacity", "1MiB")
    cluster.wait_for_ring()
    value = os.urandom(24 * MIB)
    for node in (tiny, cluster.nodes[0]):
        put = pastry("put", "-", node=node.address, stdin=value)
        assert put.status in (0, 5, 7), put.err
        measured("put through a full node and another: status", put.status)
        if put.status:
            assert len(put.err.strip().splitlines()) == 1
    key = sha256(value).hexdigest()
    cluster.blobs[key] = value
    await assert_all_there(cluster)
    async with Client(tiny.address) as connected:
        assert (await connected.status())["bytes"] <= 2 * MIB
    assert tiny.running
