"""One running node: store, core and socket put together, started, left and stopped.

Owns the order in which things open and close, how names of bootstrap nodes become seeds, and what
is remembered for the next start. What the node does is `PastryNode`'s business; processes, signals
and settings' sources are `cli/`'s.
"""

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import SystemRandom
from typing import Protocol

import structlog

from pastryd.config import Config
from pastryd.errors import LocalProtocolError, StoreError, StoreLostError, UnreachableError
from pastryd.ids import Name
from pastryd.net.driver import Driver, clock
from pastryd.net.identity import REMEMBERED_MAX, Identity, remember_peers, remembered_peers
from pastryd.net.keys import read_network_key
from pastryd.net.record_file import RecordFile
from pastryd.net.resolve import parse_advertise, parse_endpoint, parse_listen, resolve, resolve_all
from pastryd.net.seal import SessionTable
from pastryd.net.udp import BUFFER_BYTES, UdpSocket, endpoint_of
from pastryd.node import PastryNode
from pastryd.protocol.items import verify
from pastryd.protocol.outbox import StoreReply, WriteDone, WriteStatus
from pastryd.recording import Origin, RecordedNode
from pastryd.state.handle import Endpoint, Handle, show_endpoint
from pastryd.stats import Stats
from pastryd.store.executor import StoreExecutor
from pastryd.store.lmdb_store import LmdbStore
from pastryd.store.lmdb_tree import DAMAGE_ADVICE
from pastryd.store.refusals import Refusals
from pastryd.store.scrub import Scrubber

SCRUB_BYTES_PER_S = 4 << 20
RELEASE_INTERVAL_S = 10.0
"""How often pages of the store that were read are let go of; touched again, 16 cost some 3 us."""
REMEMBER_INTERVAL_S = 60.0
REMEMBER_FIRST_S = 5.0
"""A node that dies young should find its ring again, too."""
ACTIVE_POLL_S = 0.02
LEAVE_GRACE_S = 1.0
"""The core bounds its handover itself."""
_WILDCARDS = ("", "::", "0.0.0.0")


class ServiceSettings(Protocol):
    """What a service must be told; `cli/settings.py` fits."""

    @property
    def bootstrap(self) -> Sequence[str]:
        """Nodes to join through; none: start a new ring."""

    @property
    def bootstrap_timeout(self) -> float | None:
        """When to give up joining; None: never."""

    @property
    def listen(self) -> str:
        """Where to bind."""

    @property
    def advertise(self) -> str | None:
        """What others are told; None: where they see us."""

    @property
    def data_dir(self) -> Path:
        """Where identity and items are kept."""

    @property
    def capacity(self) -> int | None:
        """Most bytes to store; None: what the disk has."""

    @property
    def network_key_file(self) -> Path | None:
        """The network's secret; None: the public key that everybody has."""

    def config(self) -> Config:
        """Return the protocol's parameters."""


class Service:
    """A node on a real socket and a real disk."""

    def __init__(self, settings: ServiceSettings, record: Path | None = None) -> None:
        """Check the settings; nothing is opened yet. Raises `ConfigError`."""
        self._settings = settings
        self._config = settings.config()
        self._network_key = read_network_key(settings.network_key_file)
        self._listen = parse_listen(settings.listen)
        self._advertise = (
            None if settings.advertise is None else parse_advertise(settings.advertise)
        )
        self._bootstrap = [parse_endpoint(node) for node in settings.bootstrap]
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
        self._udp: UdpSocket
        self._store: LmdbStore | None = None
        self._executor: StoreExecutor | None = None
        self._driver: Driver | None = None
        self._stats: Stats
        self._scrubber: Scrubber
        self._scrubbing = threading.Lock()
        """Held while a thread looks at items."""
        self._record = record
        self._recording: RecordFile | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.node: PastryNode
        """The core; commands go through `driver`."""

    @property
    def driver(self) -> Driver:
        """What runs the core."""
        if self._driver is None:
            raise LocalProtocolError("the service was not started")
        return self._driver

    @property
    def address(self) -> str:
        """Where others reach this node, as far as it is known yet."""
        own = self.node.identity.endpoint
        return show_endpoint(own if own[0] else self._udp.endpoint)

    # -- life --

    async def start(self) -> None:
        """Open everything and join; return once the node answers for keys.

        Raises `StoreError` or `PastryError` when something cannot be opened, `UnreachableError`
        after the bootstrap timeout.
        """
        await self._open()
        self._log.info(
            "node_started",
            id=f"{self.node.identity.id:032x}",
            address=self.address,
            items=self._opened_store.item_count,
            receive_buffer_bytes=self._udp.receive_buffer_bytes,
        )
        if self._udp.receive_buffer_bytes < self._config.receive_window_bytes:
            self._log.warning(
                "receive_buffer_small", advice=f"run sysctl -w net.core.rmem_max={BUFFER_BYTES}"
            )
        try:
            async with asyncio.timeout(self._settings.bootstrap_timeout):
                await self._join()
        except TimeoutError:
            shown = ", ".join(map(show_endpoint, self._bootstrap)) or "the nodes known earlier"
            told = self._settings.advertise
            raise UnreachableError(
                f"could not join through {shown} within {self._settings.bootstrap_timeout:g} s; "
                "is a node running there, with the same network key?"
                + (f" And does --advertise {told} lead here?" if told else "")
            ) from None
        self._log.info("node_ready", address=self.address)
        for work in (self._scrub(), self._release_memory(), self._remember()):
            task = asyncio.create_task(work)
            task.add_done_callback(self._work_ended)
            self._tasks.append(task)

    async def leave(self) -> None:
        """Hand over what is held here, within `leave_timeout_s`, then stop."""
        if self._driver is not None and not self._driver.stopped.done():
            gone = asyncio.Event()
            self._driver.call(lambda now: self.node.leave(now, lambda now: gone.set()))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.leave_timeout_s + LEAVE_GRACE_S):
                    await gone.wait()
        await self.stop()

    async def stop(self) -> None:
        """Stop at once; what is accepted for the disk is still written. Twice is fine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._driver is not None:
            self._driver.stop()
        if self._recording is not None:
            await asyncio.to_thread(self._recording.close)
            self._recording = None
        if self._store is None:
            return
        if self._executor is not None:
            await asyncio.to_thread(self._executor.close)
            # In a thread, too: a slow disk must not keep us from hearing that it takes too long.
            await asyncio.to_thread(self._note_for_next_time, self._live_endpoints())
        store, self._store = self._store, None
        # A step that began goes on although its task was cancelled, and looks into the map.
        await asyncio.to_thread(self._scrubbing.acquire)
        store.close()
        self._scrubbing.release()

    def _note_for_next_time(self, endpoints: list[Endpoint]) -> None:
        with suppress(StoreError):
            remember_peers(self._opened_store, endpoints)
            self._scrubber.save(clock())

    async def wait_stopped(self) -> None:
        """Return when the node has stopped; raises what made it stop."""
        await asyncio.shield(self.driver.stopped)

    # -- opening --

    @property
    def _opened_store(self) -> LmdbStore:
        assert self._store is not None
        return self._store

    async def _open(self) -> None:
        self._udp = udp = UdpSocket(self._listen, Stats())
        try:
            store = await asyncio.to_thread(
                LmdbStore, self._settings.data_dir, self._settings.capacity
            )
        except BaseException:
            udp.close()
            raise
        self._store = store
        try:
            identity = Identity(store, time.time_ns() // 1_000_000)
            host, port = await self._own_endpoint()
        except BaseException:
            udp.close()
            raise
        handle = Handle(identity.public_key, host, port, identity.incarnation)
        config = replace(
            self._config,
            receive_window_bytes=max(self._config.receive_window_bytes, udp.window_bytes),
            datagram_bytes_max=max(self._config.datagram_bytes_max, udp.datagram_bytes_max),
        )
        now = clock()
        node, stats = self._make_node(handle, config, now)
        self.node = node
        udp.stats = self._stats = stats
        sessions = SessionTable(
            identity.private_key, identity.incarnation, self._network_key, endpoint_of, stats
        )

        refusals = Refusals()

        def completed(reply: StoreReply) -> None:
            if type(reply) is WriteDone and refusals.note(reply.status, clock()):
                self._tell_of_writes(reply.status)
            driver.store_completed(reply)

        def call_soon(callback: object, *arguments: object) -> None:
            driver.call_soon_threadsafe(callback, *arguments)  # type: ignore[arg-type]

        self._executor = executor = StoreExecutor(store, completed, call_soon)
        self._driver = driver = Driver(
            node,
            udp,
            sessions,
            executor.submit,
            identity.claim,
            config.stall_s,
            stats,
            self._log,
        )
        self._scrubber = Scrubber(store, verify, SCRUB_BYTES_PER_S, now)

    def _tell_of_writes(self, status: WriteStatus) -> None:
        reason = self._opened_store.refusal()
        if status is WriteStatus.OK:
            self._log.info("disk_takes_writes_again")
        elif status is WriteStatus.FULL:
            advice = "free some space, raise --capacity or add nodes; the rest goes on"
            self._log.warning("disk_full", reason=reason, advice=advice)
        else:
            advice = "check the disk; what is there stays readable, other nodes take what is new"
            self._log.warning("disk_refuses_writes", reason=reason, advice=advice)

    def _make_node(self, identity: Handle, config: Config, now: float) -> tuple[PastryNode, Stats]:
        """Return the core, and where its driver shall count."""
        store, path = self._opened_store, self._record
        held = store.used_bytes
        if path is None:
            # Nonces are secrets, and of a generator with a seed those to come can be told.
            node = PastryNode(identity, config, SystemRandom(), store.names(), held)
            return node, node.stats

        def stopped(reason: str) -> None:
            self._log.warning(
                "recording_stopped", file=str(path), reason=reason, advice="the node goes on"
            )

        self._recording = RecordFile(path, stopped)
        self._log.warning("recording", file=str(path), advice="contents of items are in it, too")
        origin = Origin(identity, config, os.urandom(32), held, time.time(), now)
        counted = Stats()
        return RecordedNode(origin, store.names(), self._recording.write, counted), counted

    async def _own_endpoint(self) -> Endpoint:
        """Return what to tell others; an empty host: where they see us."""
        bound_host, bound_port = self._udp.endpoint
        if self._advertise is None:
            return ("" if bound_host in _WILDCARDS else bound_host), bound_port
        host, port = self._advertise
        found = await resolve((host, port or bound_port))
        if not found:
            raise UnreachableError(f"--advertise {host}: the name has no address; use an IP")
        return found[0]

    # -- joining --

    async def _join(self) -> None:
        """Start the node and wait until it is active, resolving names again and again."""
        remembered = remembered_peers(self._opened_store)
        config = self._config
        alone_after_s = None
        seeds: list[Endpoint] = []
        wait_s = config.join_retry_s
        if self._bootstrap:
            while not (seeds := await resolve_all(self._bootstrap)) and not remembered:
                self._log.warning(
                    "bootstrap_names_unknown",
                    names=[show_endpoint(e) for e in self._bootstrap],
                    retry_in_s=wait_s,
                )
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, config.join_retry_max_s)
        elif remembered:
            alone_after_s = max(2.0, 4 * config.join_retry_s)
            self._log.info("rejoining_through_remembered_peers", peers=len(remembered))
        else:
            self._log.info(
                "starting_a_new_ring", advice="give --bootstrap host:port to join one instead"
            )
        driver, node = self.driver, self.node
        every = [*seeds, *(e for e in remembered if e not in seeds)]
        driver.call(lambda now: node.start(every, now, alone_after_s))
        while not node.active:
            await self._wait_active(wait_s)
            if not node.active and self._bootstrap:
                seeds = await resolve_all(self._bootstrap)
                self._log.info(
                    "still_joining",
                    bootstrap=[show_endpoint(e) for e in self._bootstrap],
                    addresses=len(seeds),
                )
                node.add_seeds(seeds)
                wait_s = min(2 * wait_s, config.join_retry_max_s)

    async def _wait_active(self, wait_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while not self.node.active:
                    if self.driver.stopped.done():
                        await self.driver.stopped
                        raise UnreachableError("the node was stopped while it was joining")
                    await asyncio.sleep(ACTIVE_POLL_S)

    # -- work beside the protocol --

    async def _scrub(self) -> None:
        """Look at everything on disk again and again; what is bad, the node fetches anew."""
        scrubber = self._scrubber
        while (deadline := scrubber.next_deadline()) is not None:
            await asyncio.sleep(max(0.0, deadline - clock()))
            known = scrubber.damage_found
            try:
                corrupt = await asyncio.to_thread(self._scrub_step)
            except StoreLostError:
                raise
            except StoreError as error:
                self._log.warning("scrub_failed", error=str(error))
                await asyncio.sleep(REMEMBER_INTERVAL_S)
                continue
            if found := scrubber.damage_found - known:
                self._stats.count("pages_damaged", found)
                self._log.warning("store_damaged", pages=found, advice=DAMAGE_ADVICE)
            for name in corrupt:
                self.driver.run(self._forget, name)

    def _scrub_step(self) -> list[Name]:
        """Look at some items, and keep none of them: each small one maps 16 pages of the file."""
        with self._scrubbing:
            if self._store is None:
                return []  # it was stopped before we began
            corrupt = self._scrubber.step(clock())
            self._store.release_memory()
            return corrupt

    async def _release_memory(self) -> None:
        """Keep what was read of the store in the page cache only."""
        while True:
            await asyncio.to_thread(self._opened_store.release_memory)
            await asyncio.sleep(RELEASE_INTERVAL_S)

    def _forget(self, name: Name) -> None:
        self.node.forget(name, clock())

    async def _remember(self) -> None:
        """Keep addresses of live peers for the next start, and follow names that move."""
        last: list[Endpoint] = []
        wait_s = REMEMBER_FIRST_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = REMEMBER_INTERVAL_S
            live = self._live_endpoints()
            if live and live != last:
                last = live
                try:
                    # In a thread: it may have to wait for the writer's commit.
                    await asyncio.to_thread(remember_peers, self._opened_store, live)
                except StoreLostError:
                    raise
                except StoreError as error:
                    self._log.warning("peers_not_remembered", error=str(error))
            if self._bootstrap:
                self.node.add_seeds(await resolve_all(self._bootstrap))

    def _live_endpoints(self) -> list[Endpoint]:
        context = self.node.context
        known = [*context.leaf_set.members(), *context.table.entries()]
        endpoints = dict.fromkeys(h.endpoint for h in known if h.host and context.usable(h.id))
        return list(endpoints)[:REMEMBERED_MAX]

    def _work_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.driver.fail(error)
