"""A client's link to its access node: one socket, one session, reconnected when it falls silent.

Turns `ClientSession`'s values into typed errors with a line that says what to do. Knows requests
and items, not what blobs are made of.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from random import SystemRandom
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pastryd.config import Config
from pastryd.errors import (
    ConfigError,
    CorruptError,
    LocalProtocolError,
    NotFoundError,
    PastryError,
    UnderReplicatedError,
    UnreachableError,
)
from pastryd.net.driver import Driver, clock
from pastryd.net.resolve import parse_endpoint, resolve_in_turn
from pastryd.net.seal import SessionTable
from pastryd.net.udp import UdpSocket, endpoint_of
from pastryd.protocol.client_call import Connected, NoReply, Question, Reply
from pastryd.protocol.client_session import ClientSession
from pastryd.protocol.outbox import StoreRequest
from pastryd.state.handle import Handle, show_endpoint
from pastryd.stats import Stats
from pastryd.wire.verbs import AnswerStatus, Verb

CONNECT_TIMEOUT_S = 5.0
NOT_READY_TIMEOUT_S = 5.0
BUSY_WAIT_S = 0.05
BUSY_WAIT_MAX_S = 0.5
UNDER_WAY_MAX = 64
"""Gets and puts that are asked at once. More would wait in the access node's socket, in front of
its heartbeats. Of holders less is asked when they are slow (`protocol/client_window.py`)."""
ATTEMPTS = 2
"""After a silence somebody else is asked, or the same node after a restart."""


class RefusedError(PastryError):
    """The network understood, and cannot now: full, busy, or not ready yet."""


class _Quiet:
    """Where a client's events go: a library prints nothing."""

    def info(self, event: str, **fields: object) -> None:
        logging.getLogger(__name__).debug("%s %s", event, fields)

    def error(self, event: str, **fields: object) -> None:
        logging.getLogger(__name__).error("%s %s", event, fields)


class AccessLink:
    """Requests to whichever of some nodes answers."""

    def __init__(self, nodes: Sequence[str], network_key: bytes) -> None:
        self._nodes = [parse_endpoint(node) for node in nodes]
        if not self._nodes:
            raise ConfigError("give at least one node as host:port")
        self._network_key = network_key
        self._search: asyncio.Task[Connected] | None = None
        self._under_way: asyncio.Semaphore
        self._access: Connected | None = None
        self._was_ready = False
        """Whether our access node has been a member of its ring since we know it."""
        self._driver: Driver | None = None
        self._session: ClientSession

    def open(self, config: Config) -> None:
        """Make an ephemeral identity and a socket, for the running event loop."""
        if self._driver is not None and not self._driver.stopped.done():
            raise LocalProtocolError("the client is in use already; make another one")
        self._under_way = asyncio.Semaphore(UNDER_WAY_MAX)
        self._search = None
        private_key = X25519PrivateKey.generate()
        handle = Handle(private_key.public_key().public_bytes_raw(), "", 0, 1)
        rng = SystemRandom()  # nonces are secrets
        udp = UdpSocket(("::", 0), Stats())
        window_bytes = max(config.receive_window_bytes, udp.window_bytes)
        config = replace(
            config,
            receive_window_bytes=window_bytes,
            datagram_bytes_max=max(config.datagram_bytes_max, udp.datagram_bytes_max),
        )
        self._access = None
        self._session = session = ClientSession(handle, config, rng)
        udp.stats = session.stats
        sessions = SessionTable(
            private_key, handle.incarnation, self._network_key, endpoint_of, session.stats
        )
        self._driver = Driver(
            session,
            udp,
            sessions,
            _no_store,
            _same_incarnation,
            config.stall_s,
            session.stats,
            _Quiet(),
        )

    def close(self) -> None:
        """Close the socket."""
        if self._driver is not None:
            self._driver.stop()

    def _open_driver(self) -> Driver:
        """Return the driver; raise unless we are open, and in the event loop that opened us."""
        if self._driver is None:
            raise LocalProtocolError("use the client in `async with`")
        if self._driver.stopped.done():
            self._driver.stopped.result()  # raises what stopped it, unless it was closed
            raise LocalProtocolError("the client is closed; use it in `async with`")
        if self._driver.stopped.get_loop() is not asyncio.get_running_loop():
            raise LocalProtocolError(
                "the client is in use in another event loop; make one for each loop"
            )
        return self._driver

    async def connect(self) -> Connected:
        """Return the access node, looking for one first if there is none.

        All who call meanwhile wait for one search; it goes on when one of them is cancelled.
        """
        self._open_driver()
        if self._access is not None:
            return self._access
        if self._search is None:
            self._search = asyncio.create_task(self._find_access())
            self._search.add_done_callback(_note_end)
        return await asyncio.shield(self._search)

    async def _find_access(self) -> Connected:
        try:
            driver, session = self._open_driver(), self._session
            shown = ", ".join(map(show_endpoint, self._nodes))
            failure = f"no address known for {shown}; check the name, or use an IP"
            async with aclosing(resolve_in_turn(self._nodes)) as found:
                async for endpoints in found:
                    connect = partial(session.connect, endpoints, CONNECT_TIMEOUT_S)
                    result = await driver.command(connect)
                    if isinstance(result, Connected):
                        self._access = result
                        self._was_ready = result.active
                        return result
                    failure = (
                        f"no answer from {shown}; is pastryd running there, and is the network key "
                        "the same?"
                    )
            raise UnreachableError(failure)
        finally:
            self._search = None

    async def ask(self, question: Question) -> Reply:
        """Ask until there is an answer. Raises `UnreachableError`."""
        self._open_driver()
        if question.verb not in (Verb.GET, Verb.PUT):
            return await self._ask_reachable(question)
        async with self._under_way:
            return await self._ask_patiently(question)

    async def _ask_patiently(self, question: Question) -> Reply:
        """Ask again while the access node is busy, or about to be ready."""
        refused_at: float | None = None
        wait_s = BUSY_WAIT_S
        while True:
            reply = await self._ask_reachable(question)
            is_ready = reply.status is not AnswerStatus.NOT_READY
            self._was_ready |= is_ready
            if is_ready and reply.status is not AnswerStatus.BUSY:
                return reply
            now = clock()
            refused_at = now if refused_at is None else refused_at
            # A node that doubts itself after a stall will be ready again: a long put must not fail
            # for that. One that has not joined yet may have nobody to join.
            patience_s = question.timeout_s if self._was_ready else NOT_READY_TIMEOUT_S
            if now - refused_at >= patience_s:
                return reply
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, BUSY_WAIT_MAX_S)

    async def _ask_reachable(self, question: Question) -> Reply:
        for _ in range(ATTEMPTS):
            access = self._access or await self.connect()
            result = await self._ask_once(question)
            if isinstance(result, Reply):
                return result
            if isinstance(result, NoReply) and not result.silent:
                raise UnreachableError(
                    f"no result within {result.after_s:.0f} s, although "
                    f"{show_endpoint(access.access.endpoint)} is working on it; try again"
                )
            if self._access is access:
                self._access = None
        raise UnreachableError(
            f"{show_endpoint(access.access.endpoint)} does not answer any more; "
            "try again, or another node"
        )

    async def _ask_once(self, question: Question) -> object:
        driver, session = self._open_driver(), self._session
        request_id = 0

        def command(now: float) -> int:
            nonlocal request_id
            request_id = session.ask(question, now)
            return request_id

        future = driver.command(command)
        try:
            return await future
        except asyncio.CancelledError:
            driver.abandon(request_id)
            if not driver.stopped.done():
                driver.call(lambda now: session.cancel(request_id, now))
            raise


def fail(reply: Reply, what: str) -> NoReturn:
    """Raise what an answer's status means."""
    status = reply.status
    if status is AnswerStatus.NOT_FOUND:
        raise NotFoundError(f"{what}: not found; all nodes that should know of it were asked")
    if status is AnswerStatus.UNREACHABLE:
        raise UnreachableError(f"{what}: the nodes that have it cannot be reached now; try again")
    if status is AnswerStatus.UNDER_REPLICATED:
        raise UnderReplicatedError(
            f"{what}: stored on {reply.number} node(s) only, fewer than wanted"
        )
    if status is AnswerStatus.CORRUPT:
        raise CorruptError(f"{what}: no good copy was found")
    if status is AnswerStatus.FULL:
        raise RefusedError(f"{what}: the nodes that should hold it are full; add nodes or capacity")
    if status is AnswerStatus.BUSY:
        raise RefusedError(f"{what}: the access node is too busy; try again")
    if status is AnswerStatus.NOT_READY:
        raise RefusedError(f"{what}: the access node has not joined its ring yet; try again")
    raise RefusedError(f"{what}: the access node refused the request; is it the same version?")


def _note_end(search: asyncio.Task[Connected]) -> None:
    """Look at how a search ended; all who waited may have been cancelled."""
    if not search.cancelled():
        search.exception()


def _no_store(request: StoreRequest) -> None:
    raise AssertionError("a client asks no store")


def _same_incarnation(incarnation: int) -> None:
    raise AssertionError("a client has one incarnation")
