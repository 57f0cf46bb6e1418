"""What a running node does beside the protocol: it looks after its disk, its memory and its notes.

Owns the pace of the scrubber, when pages are given back, and what is remembered for the next start.
When a node opens and closes is `service.py`'s business, what is done about a bad copy the core's.
"""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress

import structlog

from pastryd.errors import StoreError, StoreLostError
from pastryd.ids import Name
from pastryd.net.driver import Driver, clock
from pastryd.net.identity import REMEMBERED_MAX, remember_peers
from pastryd.net.resolve import resolve_all
from pastryd.node import PastryNode
from pastryd.protocol.items import verify
from pastryd.state.handle import Endpoint
from pastryd.stats import Stats
from pastryd.store.lmdb_store import LmdbStore
from pastryd.store.lmdb_tree import DAMAGE_ADVICE
from pastryd.store.scrub import Scrubber

SCRUB_BYTES_PER_S = 4 << 20
RELEASE_INTERVAL_S = 10.0
"""How often pages of the store that were read are let go of; touched again, 16 cost some 3 us."""
REMEMBER_INTERVAL_S = 60.0
REMEMBER_FIRST_S = 5.0
"""A node that dies young should find its ring again, too."""


class Housekeeping:
    """The tasks that run as long as a node serves."""

    def __init__(
        self,
        node: PastryNode,
        driver: Driver,
        store: LmdbStore,
        stats: Stats,
        bootstrap: Sequence[Endpoint],
        log: structlog.typing.FilteringBoundLogger,
        now: float,
    ) -> None:
        self._node = node
        self._driver = driver
        self._store: LmdbStore | None = store
        self._stats = stats
        self._bootstrap = bootstrap
        self._log = log
        self._scrubber = Scrubber(store, verify, SCRUB_BYTES_PER_S, now)
        self._looking = threading.Lock()
        """Held while a thread of ours looks into the store, or writes to it."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; what fails stops the node."""
        for work in (self._scrub(), self._release_memory(), self._remember()):
            task = asyncio.create_task(work)
            task.add_done_callback(self._work_ended)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Begin nothing more; a thread may still look into the store: `let_go`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def let_go(self, endpoints: list[Endpoint]) -> None:
        """Keep whom we know and how far the scrubber is, and let go of the store.

        Returns once no thread looks into it any more, nor will: it can be closed. What began goes
        on although its task was cancelled. Twice is fine, also while the first one waits.
        """
        with self._looking:
            store, self._store = self._store, None
            if store is not None:
                with suppress(StoreError):
                    remember_peers(store, endpoints)
                    self._scrubber.save(clock())

    def live_endpoints(self) -> list[Endpoint]:
        """Return where those are whom to ask after a restart."""
        context = self._node.context
        known = [*context.leaf_set.members(), *context.table.entries()]
        endpoints = dict.fromkeys(h.endpoint for h in known if h.host and context.usable(h.id))
        return list(endpoints)[:REMEMBERED_MAX]

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
                self._driver.run(self._forget, name)

    def _scrub_step(self) -> list[Name]:
        """Look at some items, and keep none of them: each small one maps 16 pages of the file."""
        with self._looking:
            if self._store is None:
                return []  # it was stopped before we began
            corrupt = self._scrubber.step(clock())
            self._store.release_memory()
            return corrupt

    async def _release_memory(self) -> None:
        """Keep what was read of the store in the page cache only."""
        assert self._store is not None
        release = self._store.release_memory  # harmless in a store that has been closed
        while True:
            await asyncio.to_thread(release)
            await asyncio.sleep(RELEASE_INTERVAL_S)

    def _forget(self, name: Name) -> None:
        self._node.forget(name, clock())

    async def _remember(self) -> None:
        """Keep addresses of live peers for the next start, and follow names that move."""
        last: list[Endpoint] = []
        wait_s = REMEMBER_FIRST_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = REMEMBER_INTERVAL_S
            live = self.live_endpoints()
            if live and live != last:
                last = live
                try:
                    # In a thread: it may have to wait for the writer's commit.
                    await asyncio.to_thread(self._keep, live)
                except StoreLostError:
                    raise
                except StoreError as error:
                    self._log.warning("peers_not_remembered", error=str(error))
            if self._bootstrap:
                self._node.add_seeds(await resolve_all(self._bootstrap))

    def _keep(self, endpoints: list[Endpoint]) -> None:
        with self._looking:
            if self._store is not None:
                remember_peers(self._store, endpoints)

    def _work_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._driver.fail(error)
