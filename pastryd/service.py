"""One running node: store, core and socket put together, started, left and stopped.

Owns the order in which things open and close, and how names of bootstrap nodes become seeds. What
the node does is `PastryNode`'s business, what is done beside the protocol `housekeeping.py`'s;
processes, signals and settings' sources are `cli/`'s.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import SystemRandom
from typing import Protocol

import structlog

from pastryd.config import Config
from pastryd.errors import LocalProtocolError, UnreachableError
from pastryd.housekeeping import Housekeeping
from pastryd.net.driver import Driver, clock
from pastryd.net.identity import Identity, remembered_peers
from pastryd.net.keys import read_network_key
from pastryd.net.record_file import RecordFile
from pastryd.net.resolve import parse_advertise, parse_endpoint, parse_listen, resolve, resolve_all
from pastryd.net.seal import SessionTable
from pastryd.net.udp import BUFFER_BYTES, UdpSocket, endpoint_of
from pastryd.node import PastryNode
from pastryd.protocol.outbox import StoreReply, WriteDone, WriteStatus
from pastryd.recording import Origin, RecordedNode
from pastryd.state.handle import Endpoint, Handle, show_endpoint
from pastryd.stats import Stats
from pastryd.store.executor import StoreExecutor
from pastryd.store.lmdb_store import LmdbStore
from pastryd.store.refusals import Refusals

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
        self._housekeeping: Housekeeping | None = None
        self._record = record
        self._recording: RecordFile | None = None
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
        assert self._housekeeping is not None
        self._housekeeping.start()

    async def leave(self) -> None:
        """Hand over what is held here, within `leave_timeout_s`, then stop."""
        if self._driver is not None and not self._driver.stopped.done():
            gone = asyncio.Event()
            self._driver.call(lambda now: self.node.leave(now, lambda now: gone.set()))
            handing_over = asyncio.create_task(gone.wait())
            try:
                await asyncio.wait(
                    (handing_over, self._driver.stopped),
                    timeout=self._config.leave_timeout_s + LEAVE_GRACE_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                handing_over.cancel()
        await self.stop()

    async def stop(self) -> None:
        """Stop at once; what is accepted for the disk is still written. Twice is fine."""
        housekeeping = self._housekeeping
        if housekeeping is not None:
            await housekeeping.stop()
        if self._driver is not None:
            self._driver.stop()
        if self._recording is not None:
            await asyncio.to_thread(self._recording.close)
            self._recording = None
        store = self._store
        if store is None:
            return
        if self._executor is not None:
            await asyncio.to_thread(self._executor.close)
        if housekeeping is not None:
            # In a thread, too: a slow disk must not keep us from hearing that it takes too long.
            await asyncio.to_thread(housekeeping.let_go, housekeeping.live_endpoints())
        self._store = None  # only now: who is cancelled before is told to stop again
        store.close()

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
        self._housekeeping = Housekeeping(
            node, driver, store, stats, self._bootstrap, self._log, now
        )

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
                    advice="is a node running there, with the same network key? Does UDP pass "
                    "both ways?",
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
