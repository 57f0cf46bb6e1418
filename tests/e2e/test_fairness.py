"""Under full load nobody is taken for dead, small gets go on, and every put of a burst ends.

Smaller than `python scripts/bench fairness` and `burst`, which measure what is only bounded here.
"""

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from statistics import quantiles

import pytest

from pastryd.client import Client
from pastryd.errors import PastryError
from tests.e2e.conftest import Measured
from tests.support.cluster import MIB, Cluster, cluster_of, write_random
from tests.support.processes import environment, tool_command

pytestmark = pytest.mark.e2e

NODES = 8
BULK_BYTES = 48 * MIB
SMALL = 400
BURST = 2000
GET_WITHIN_S = 5.0
"""Far above what any get takes, far below what a get behind all of the bulk would."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(NODES, tmp_path_factory.mktemp("fairness")) as started:
        yield started


def believed_dead_or_suspect(cluster: Cluster) -> list[dict[str, object]]:
    """Return all transitions of a peer away from alive that the nodes have logged."""
    events = [
        json.loads(line)
        for node in cluster.nodes
        for line in node.log().splitlines()
        if line.startswith("{") and "peer_liveness" in line
    ]
    return [event for event in events if event["now"] != "alive"]


async def test_small_gets_and_heartbeats_go_on_beside_a_bulk_put(
    cluster: Cluster, measured: Measured
) -> None:
    values = [os.urandom(1024) for _ in range(SMALL)]
    path = cluster.directory / "bulk"
    key, *_ = write_random(path, BULK_BYTES)
    async with Client(cluster.nodes[0].address) as client:
        keys = [(await client.put(value)).key for value in values]
    before = len(believed_dead_or_suspect(cluster))
    putting = await asyncio.create_subprocess_exec(
        *tool_command("put", str(path)),
        env=environment(PASTRY_NODE=cluster.nodes[1].address),
        stdout=subprocess.PIPE,
    )
    took: list[float] = []
    try:
        async with asyncio.timeout(120), Client(cluster.nodes[5].address) as client:
            ended = asyncio.create_task(putting.communicate())
            while not ended.done():
                number = len(took) % SMALL
                began = time.monotonic()
                assert await client.get(keys[number]) == values[number]
                took.append(time.monotonic() - began)
            out, _ = await ended
    finally:
        if putting.returncode is None:
            putting.kill()
    path.unlink()
    assert (putting.returncode, out.decode().strip()) == (0, key)
    measured("gets beside the put", len(took))
    measured("their p99, ms", quantiles(took, n=100)[98] * 1e3)
    assert max(took) < GET_WITHIN_S
    assert believed_dead_or_suspect(cluster)[before:] == []


async def test_a_burst_of_puts_ends_and_leaves_no_trace(
    cluster: Cluster, measured: Measured
) -> None:
    values = [os.urandom(1024) for _ in range(BURST)]
    before = len(believed_dead_or_suspect(cluster))
    ended: Counter[str] = Counter()
    stored: list[bytes] = []

    async def put(client: Client, value: bytes) -> None:
        try:
            result = await client.put(value)
        except PastryError as error:
            ended[type(error).__name__] += 1
        else:
            assert result.key == sha256(value).hexdigest() and result.copies >= 3
            ended["done"] += 1
            stored.append(value)

    async with Client(cluster.nodes[2].address) as client:
        async with asyncio.timeout(120):
            await asyncio.gather(*(put(client, value) for value in values))
        assert sum(ended.values()) == BURST
        assert ended["done"] >= BURST // 2, ended
        measured("how the puts ended", dict(ended))
    async with Client(cluster.nodes[6].address) as client:
        began = time.monotonic()
        for value in stored[:: max(1, len(stored) // 100)]:
            assert await client.get(sha256(value).hexdigest()) == value
        measured("100 gets after it, s", time.monotonic() - began)
    assert believed_dead_or_suspect(cluster)[before:] == []
    consistent, found = cluster.ring()
    assert consistent and len(found) == NODES
