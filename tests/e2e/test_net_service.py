"""`service.py`: nodes with real sockets and real stores in one loop."""

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pastryd import housekeeping
from pastryd.client import Client, RefusedError
from pastryd.config import Config
from pastryd.errors import NotFoundError, StoreError, StoreLostError, UnreachableError
from pastryd.ids import Name
from pastryd.net.identity import remember_peers
from pastryd.net.keys import read_network_key
from pastryd.net.udp import PortTakenError
from pastryd.node import PastryNode
from pastryd.protocol.items import verify
from pastryd.service import Service
from pastryd.state.handle import Endpoint
from pastryd.store.lmdb_store import LmdbStore
from pastryd.store.scrub import Scrubber

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Settings:
    """What `Service` is told."""

    data_dir: Path
    bootstrap: tuple[str, ...] = ()
    bootstrap_timeout: float | None = 20.0
    listen: str = "127.0.0.1:0"
    advertise: str | None = None
    capacity: int | None = 1 << 30
    network_key_file: Path | None = None

    def config(self) -> Config:
        return Config.lan()


class Impatient(Settings):
    """Puts that cannot end well end soon."""

    def config(self) -> Config:
        return replace(Config.lan(), put_timeout_s=0.5)


class Nodes:
    """Starts nodes and stops what is left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[Service] = []

    def settings(self, name: str, *bootstrap: Service, listen: str = "127.0.0.1:0") -> Settings:
        addresses = tuple(node.address for node in bootstrap)
        return Settings(self.directory / name, addresses, listen=listen)

    async def start(self, settings: Settings) -> Service:
        service = Service(settings)
        self.running.append(service)
        await service.start()
        return service


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    made = Nodes(tmp_path)
    yield made
    for service in made.running:
        await service.stop()


async def test_what_one_node_is_given_another_one_gives_back(nodes: Nodes) -> None:
    first = await nodes.start(nodes.settings("first"))
    second = await nodes.start(nodes.settings("second", first))
    data = os.urandom(3 << 20)
    async with Client(first.address) as client:
        result = await client.put(data)
        assert result.copies == 2
        with pytest.raises(NotFoundError):
            await client.get("0" * 64)
    async with Client(second.address) as client:
        assert await client.get(result.key) == data
        ring = await client.ring()
        assert [n.address for n in ring.nodes] == [
            s.address for s in sorted((first, second), key=lambda s: s.node.identity.id)
        ]
        assert ring.consistent


async def test_a_restart_keeps_identity_and_data_and_needs_no_bootstrap(nodes: Nodes) -> None:
    first = await nodes.start(nodes.settings("first"))
    second = await nodes.start(nodes.settings("second", first))
    async with Client(first.address) as client:
        key = (await client.put(b"kept")).key
    before = first.node.identity
    await first.stop()
    again = await nodes.start(nodes.settings("first", listen=first.address))
    after = again.node.identity
    assert (after.id, after.endpoint) == (before.id, before.endpoint)
    assert after.incarnation > before.incarnation
    async with Client(again.address) as client:
        assert await client.get(key) == b"kept"
        assert len((await client.ring()).nodes) == 2
    assert second.node.active


async def test_the_store_stays_open_while_a_thread_looks_at_an_item(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = nodes.settings("first")
    first = await nodes.start(settings)
    async with Client(first.address) as client:
        await client.put(os.urandom(100_000))
    await first.stop()
    looking, go_on = threading.Event(), threading.Event()
    whole: list[bool] = []

    def look(name: Name, data: memoryview) -> bool:
        looking.set()
        assert go_on.wait(30)
        whole.append(verify(name, data))
        return True

    monkeypatch.setattr(housekeeping, "verify", look)
    again = await nodes.start(settings)
    assert await asyncio.to_thread(looking.wait, 30)
    stopping = asyncio.create_task(again.stop())
    done, _ = await asyncio.wait([stopping], timeout=0.05)
    assert not done
    go_on.set()
    await stopping
    assert whole == [True]


async def test_a_store_that_is_found_lost_while_nobody_asks_stops_its_node(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(scrubber: Scrubber, now: float) -> list[Name]:
        raise StoreLostError("LMDB has given up; start the node again")

    monkeypatch.setattr(Scrubber, "step", step)
    first = await nodes.start(nodes.settings("first"))
    with pytest.raises(StoreLostError, match="start the node again"):
        async with asyncio.timeout(30):
            await first.wait_stopped()


async def test_a_node_that_fails_while_it_hands_over_stops_at_once(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await nodes.start(nodes.settings("first"))
    monkeypatch.setattr(PastryNode, "leave", lambda *_: None)  # nobody takes anything over
    leaving = asyncio.create_task(first.leave())
    await asyncio.sleep(0)
    first.driver.fail(StoreLostError("LMDB has given up; start the node again"))
    async with asyncio.timeout(first.node.context.config.leave_timeout_s / 2):
        await leaving


async def test_damage_that_the_scrubber_finds_is_counted_and_told(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = threading.Event()

    def step(scrubber: Scrubber, now: float) -> list[Name]:
        if scrubber.damage_found:
            again.set()
        else:
            scrubber.damage_found += 2
        return []

    monkeypatch.setattr(Scrubber, "step", step)
    first = await nodes.start(nodes.settings("first"))
    assert await asyncio.to_thread(again.wait, 30)
    assert first.node.stats.counters["pages_damaged"] == 2
    assert "store_damaged" in capsys.readouterr().out


async def test_a_disk_that_refuses_writes_is_told_once(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await nodes.start(Impatient(nodes.directory / "first"))
    async with Client(first.address) as client:
        key = (await client.put(b"before")).key
        shutil.rmtree(nodes.directory / "first")
        for content in (b"after", b"and again"):
            with pytest.raises(UnreachableError, match="no node has stored it in time"):
                await client.put(content)
        assert await client.get(key) == b"before"
    written = capsys.readouterr().out
    assert written.count("disk_refuses_writes") == 1
    assert "data.mdb was deleted; stop this node" in written


async def test_a_full_store_is_told(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    first = await nodes.start(replace(nodes.settings("first"), capacity=100_000))
    async with Client(first.address) as client:
        with pytest.raises(RefusedError):
            await client.put(os.urandom(200_000))
    written = capsys.readouterr().out
    assert "disk_full" in written
    assert "the capacity of 100000 bytes is used up" in written


async def test_who_leaves_has_handed_over(nodes: Nodes) -> None:
    first = await nodes.start(nodes.settings("first"))
    async with Client(first.address) as client:
        key = (await client.put(b"handed over")).key
    second = await nodes.start(nodes.settings("second", first))
    await first.leave()
    async with Client(second.address) as client:
        assert await client.get(key) == b"handed over"


async def test_a_silent_bootstrap_node_is_told_after_the_timeout(nodes: Nodes) -> None:
    given = Settings(nodes.directory / "alone", ("127.0.0.1:9",), 0.3)
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        await nodes.start(given)


async def test_who_cannot_join_is_reminded_of_what_it_advertises(nodes: Nodes) -> None:
    given = Settings(nodes.directory / "far", ("127.0.0.1:9",), 0.2, advertise="127.0.0.1:9")
    with pytest.raises(UnreachableError, match="does --advertise 127"):
        await nodes.start(given)


async def test_another_network_key_is_not_let_in(nodes: Nodes) -> None:
    key_file = nodes.directory / "key"
    key_file.write_text("another network")
    first = await nodes.start(nodes.settings("first"))
    given = Settings(nodes.directory / "stranger", (first.address,), 0.5, network_key_file=key_file)
    with pytest.raises(UnreachableError, match="network key"):
        await nodes.start(given)
    assert first.node.stats.counters["datagrams_bad_seal"] > 0
    async with Client(first.address, read_network_key(None)) as client:
        assert (await client.ping()).active


async def test_a_taken_port_leaves_no_data_directory_behind(nodes: Nodes) -> None:
    first = await nodes.start(nodes.settings("first"))
    with pytest.raises(PortTakenError):
        await nodes.start(nodes.settings("second", listen=first.address))
    assert not (nodes.directory / "second").exists()


async def test_ready_means_that_the_node_serves_at_once_even_many_clients(nodes: Nodes) -> None:
    first = await nodes.start(nodes.settings("first"))

    async def one(i: int) -> None:
        async with Client(first.address) as client:
            result = await client.put(b"%d" % i)
            assert await client.get(result.key) == b"%d" % i

    await asyncio.gather(*map(one, range(20)))


async def test_who_is_told_to_stop_at_once_while_it_stops_closes_its_store(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting, go_on = threading.Event(), threading.Event()

    def remember(store: LmdbStore, endpoints: Sequence[Endpoint]) -> None:
        noting.set()
        assert go_on.wait(30)

    settings = nodes.settings("first")
    first = await nodes.start(settings)
    monkeypatch.setattr(housekeeping, "remember_peers", remember)
    stopping = asyncio.create_task(first.stop())
    assert await asyncio.to_thread(noting.wait, 30)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    go_on.set()
    await first.stop()
    await nodes.start(settings)


async def test_the_store_stays_open_while_a_thread_keeps_whom_we_know(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    failed: list[StoreError] = []

    def remember(store: LmdbStore, endpoints: Sequence[Endpoint]) -> None:
        writing.set()
        assert go_on.wait(30)
        try:
            remember_peers(store, endpoints)
        except StoreError as error:
            failed.append(error)

    monkeypatch.setattr(housekeeping, "REMEMBER_FIRST_S", 0.01)
    first = await nodes.start(nodes.settings("first"))
    monkeypatch.setattr(housekeeping, "remember_peers", remember)
    second = await nodes.start(nodes.settings("second", first))
    assert await asyncio.to_thread(writing.wait, 30)
    monkeypatch.setattr(housekeeping, "remember_peers", remember_peers)
    stopping = [asyncio.create_task(node.stop()) for node in (first, second)]
    done, _ = await asyncio.wait(stopping, timeout=0.3)
    go_on.set()
    await asyncio.gather(*stopping)
    assert not failed and len(done) < 2


async def test_leaving_that_is_cancelled_leaves_no_task_behind(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await nodes.start(nodes.settings("first"))
    begun = asyncio.Event()
    monkeypatch.setattr(PastryNode, "leave", lambda *_: begun.set())  # nobody takes anything over
    before = asyncio.all_tasks()
    leaving = asyncio.create_task(first.leave())
    await begun.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert asyncio.all_tasks() <= before
