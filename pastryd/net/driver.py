"""Drives a core with a real socket, a real clock and an event loop: it only moves bytes and time.

Everything runs in steps on the loop's thread: input for the core (a bounded batch of datagrams, a
timer, a store reply, a command), then one drain of the outbox, then one timer at the core's next
deadline. The simulator does the same with virtual everything. The one
`except Exception` is here: it logs and stops the node, because a core that failed half way must not
go on.

asyncio's own datagram endpoint would cost 18-32 µs per datagram; a socket of ours costs 2.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from pastryd.errors import (
    PastryError,
    StoreError,
    StoreLostError,
    SupersededError,
    UnexpectedError,
    UnreachableError,
    shortage,
)
from pastryd.net.seal import BY_MEMBER, BY_PEER, Address, SessionTable
from pastryd.net.sender import Sender
from pastryd.net.udp import RECEIVE_BYTES, UdpSocket
from pastryd.priority import let_others_run
from pastryd.protocol.outbox import (
    Completion,
    Event,
    Logged,
    Outbox,
    StoreReply,
    StoreRequest,
    Superseded,
)
from pastryd.state.handle import Handle, show_endpoint
from pastryd.stats import Stats

T = TypeVar("T")

RECEIVES_PER_CALLBACK = 16
"""Received before other work of the loop gets its turn."""

BULK_BYTES = 2048
"""What the kernel hands over in larger pieces is segments: it waits, control goes first."""

BULK_WAITING_MAX = 32
"""Pieces of bulk out of the kernel's buffer and not opened yet, 64 KiB each."""

DRAIN_ROUNDS_MAX = 64
"""Store replies lead to further requests; after so many rounds others get their turn."""

TIMER_GRACE_S = 0.0005
"""uvloop rounds to milliseconds; firing just too early would spin."""

PUT_OFF_S = 0.1
"""A timer further off is put off with the deadline: to be woken for nothing is what costs a node at
rest. One that is nearer fires in vain: under load deadlines come and go with each message."""

RENEW_AGAIN_S = 10.0
"""An incarnation that could not be kept is tried again after so long: the loop waits for it."""

clock: Callable[[], float] = partial(
    time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
)
"""Returns seconds that never jump back and go on while the machine sleeps."""

_STOPPED = "this node, or this client, has stopped meanwhile"


class Core(Protocol):
    """What a driver drives: `PastryNode`, or the `ClientSession` of a client."""

    @property
    def outbox(self) -> Outbox:
        """What the core wants done; always the same object."""

    @property
    def identity(self) -> Handle:
        """Who we are; its incarnation may grow while we run."""

    def receive_datagram(self, data: bytes, sender: Handle, now: float) -> None:
        """Take a message that only `sender` can have sealed."""

    def receive_train(self, train: Sequence[bytes], sender: Handle, now: float) -> None:
        """Take several messages that only `sender` can have sealed."""

    def receive_hello(self, data: bytes, sender: Handle, now: float) -> None:
        """Take a message from somebody who has the network key and says to be `sender`."""

    def receive_twin(self, data: bytes, sender: Handle, now: float) -> None:
        """Take a message that only who holds our own key can have sealed, in a later life."""

    def handle_timer(self, now: float) -> None:
        """Do what is due."""

    def next_deadline(self) -> float | None:
        """Return when to call `handle_timer`."""

    def store_completed(self, reply: StoreReply, now: float) -> None:
        """Take the reply to a store request."""

    def report_stall(self, lag_s: float, now: float) -> None:
        """Take notice that nothing ran for `lag_s` although something was due."""


class Log(Protocol):
    """Where events go: structlog's bound loggers fit."""

    def info(self, event: str, **fields: object) -> object:
        """Record a state transition."""

    def error(self, event: str, **fields: object) -> object:
        """Record a failure of ours; `exc_info` is the exception."""


class Driver:
    """One core on one socket in the running event loop."""

    def __init__(
        self,
        core: Core,
        udp: UdpSocket,
        sessions: SessionTable,
        submit: Callable[[StoreRequest], None],
        incarnation_grew: Callable[[int], None],
        stall_s: float,
        stats: Stats,
        log: Log,
    ) -> None:
        """`submit` takes store requests; `incarnation_grew` keeps a new one before it is used.

        It raises `StoreError` if it cannot.
        """
        self._core = core
        self._udp = udp
        self._sessions = sessions
        self._submit = submit
        self._incarnation_grew = incarnation_grew
        self._not_kept = sessions.incarnation
        """The core's last one that could not be kept, if it is not the one that we seal in."""
        self._renew_again_at = 0.0
        self._stall_s = stall_s
        self._stats = stats
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """What the timer is armed for; means nothing without a timer."""
        self._sender = Sender(udp, sessions, stats, self._watch_writable)
        self._spare = [bytearray(RECEIVE_BYTES)]
        self._bulk: deque[tuple[bytearray, int, int, Address]] = deque()
        """What was received and waits to be opened: buffer, bytes, step, sender's address."""
        self._was_bulk = False
        """This step opened or sent bulk."""
        self._futures: dict[int, asyncio.Future[object]] = {}
        self.stopped: asyncio.Future[None] = self._loop.create_future()
        """Done when the driver has stopped; holds the exception if it stopped because of one."""
        self._loop.add_reader(udp.fileno(), self.run, self._handle_readable)

    # -- for whoever owns the driver --

    def command(self, command: Callable[[float], int]) -> asyncio.Future[object]:
        """Give the core a command, which returns a request id; the future gets its result.

        Who stops waiting for it says so to `abandon`: the completion may never come.
        """
        if self._closed:
            raise UnreachableError(_STOPPED)
        future: asyncio.Future[object] = self._loop.create_future()
        request_id = command(clock())
        self._futures[request_id] = future
        self.run(_nothing)
        return future

    def abandon(self, request_id: int) -> None:
        """Forget who waited for a command's result."""
        self._futures.pop(request_id, None)

    def call(self, step: Callable[[float], T]) -> T:
        """Let the core do something now, and everything that follows from it."""
        if self._closed:
            raise UnreachableError(_STOPPED)
        result = step(clock())
        self.run(_nothing)
        return result

    def call_soon_threadsafe(self, callback: Callable[..., None], *arguments: object) -> None:
        """Run a callback as a step of its own; RuntimeError when the loop is gone."""
        self._loop.call_soon_threadsafe(self.run, callback, *arguments)

    def store_completed(self, reply: StoreReply) -> None:
        """Pass a reply on; only from within `submit` or a `call_soon_threadsafe` callback."""
        if not self._closed:
            self._core.store_completed(reply, clock())

    def stop(self) -> None:
        """Fall silent at once and let go of the socket. What is still waiting for results fails."""
        self._stop(None)

    def fail(self, error: BaseException) -> None:
        """Stop because of an error, which is logged: of our own, unless it says what to do."""
        try:
            said = str(error) if isinstance(error, PastryError) else shortage(error)
            if said is not None:
                self._log.error("node_failed", error=said)
            else:
                self._log.error("node_failed", error=repr(error), exc_info=error)
        finally:  # perhaps the log is what failed
            self._stop(error)

    # -- steps --

    def run(self, step: Callable[..., None], *arguments: object) -> None:
        """Do one step and all that follows from it; an exception in it stops the node."""
        if self._closed:
            return
        try:
            step(*arguments)
            self._drain()
            self._arm()
            if self._was_bulk:
                self._was_bulk = False
                let_others_run()
        except Exception as error:  # the one place: a core that failed half way must not go on
            self.fail(error)

    def _handle_readable(self) -> None:
        """Receive for a while: take in control at once, and one piece of bulk at the end."""
        core, receive, open_one = self._core, self._udp.receive, self._sessions.open
        spare, bulk = self._spare, self._bulk
        now = clock()
        self._notice_stall(now)
        was_idle = not bulk
        for count in range(RECEIVES_PER_CALLBACK):
            if len(bulk) >= BULK_WAITING_MAX or (count == 1 and not self._udp.has_more()):
                break
            buffer = spare[-1]
            received = receive(buffer)
            if received is None:
                break
            size, step, address = received
            if size > BULK_BYTES:
                bulk.append((spare.pop(), size, step, address))
                if not spare:
                    spare.append(bytearray(RECEIVE_BYTES))
                continue
            if step < size:
                self._open_train(memoryview(buffer)[:size], step, address, now)
                now = clock()
                continue
            opened = open_one(bytes(memoryview(buffer)[:size]), address, now)
            if opened is not None:
                payload, sender, sealed = opened
                if sealed:  # not `BY_PEER`
                    self._receive_rare(payload, sender, sealed, now)
                else:
                    core.receive_datagram(payload, sender, now)
            now = clock()
        if was_idle and bulk:
            self._handle_bulk()

    def _handle_bulk(self) -> None:
        """Open one piece of bulk; between two of them others have their turn."""
        buffer, size, step, address = self._bulk.popleft()
        if self._bulk:
            self._loop.call_soon(self.run, self._handle_bulk)
        self._open_train(memoryview(buffer)[:size], step, address, clock())
        self._spare.append(buffer)
        self._was_bulk = True

    def _open_train(self, train: memoryview, step: int, address: Address, now: float) -> None:
        for payloads, sender, sealed in self._sessions.open_train(train, step, address, now):
            if sealed == BY_PEER:
                self._core.receive_train(payloads, sender, now)
                continue
            for payload in payloads:
                self._receive_rare(payload, sender, sealed, now)

    def _receive_rare(self, payload: bytes, sender: Handle, sealed: int, now: float) -> None:
        if sealed == BY_MEMBER:
            self._core.receive_hello(payload, sender, now)
        else:
            self._core.receive_twin(payload, sender, now)

    def _handle_due(self) -> None:
        now = clock()
        self._notice_stall(now)
        self._timer = None
        self._core.handle_timer(now)

    def _notice_stall(self, now: float) -> None:
        """Tell the core that we were late, before it blames others for what waited meanwhile."""
        if self._timer is None:
            return
        lag_s = now - self._due
        if lag_s > self._stall_s:
            self._due = now
            self._core.report_stall(lag_s, now)

    # -- out --

    def _drain(self) -> None:
        """Carry out what the core wants, until it wants nothing more."""
        outbox = self._core.outbox
        for _ in range(DRAIN_ROUNDS_MAX):
            if outbox.datagrams:
                self._send_all(outbox)
            if outbox.events:
                events = outbox.events.copy()
                outbox.events.clear()
                for event in events:
                    self._report(event)
            if not outbox.store:
                return
            requests = outbox.store.copy()
            outbox.store.clear()
            submit = self._submit
            for request in requests:
                submit(request)
        self._loop.call_soon(self.run, _nothing)

    def _send_all(self, outbox: Outbox) -> None:
        incarnation = self._core.identity.incarnation
        if incarnation != self._sessions.incarnation:
            self._renew(incarnation)
        self._was_bulk |= self._sender.send(outbox.datagrams, clock())
        outbox.datagrams.clear()

    def _renew(self, incarnation: int) -> None:
        """Seal in a new incarnation, unless it cannot be kept: what comes back would reuse keys.

        Then peers hear us in the one before, and we go on: accusations must stop no node. It is
        tried again: peers who remember a later life do not hear us until then.
        """
        now = clock()
        if incarnation == self._not_kept and now < self._renew_again_at:
            return
        self._not_kept, self._renew_again_at = incarnation, now + RENEW_AGAIN_S
        try:
            self._incarnation_grew(incarnation)
        except StoreLostError:
            raise
        except StoreError:
            self._stats.count("incarnations_not_kept")
            return
        self._sessions.renew(incarnation)

    def _watch_writable(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._udp.fileno(), self.run, self._handle_writable)
        else:
            self._loop.remove_writer(self._udp.fileno())

    def _handle_writable(self) -> None:
        self._was_bulk |= self._sender.handle_writable()

    def _report(self, event: Event) -> None:
        if type(event) is Completion:
            future = self._futures.pop(event.request_id, None)
            if future is None:
                self._stats.count("completions_unclaimed")
            elif not future.done():
                future.set_result(event.result)
        elif type(event) is Superseded:
            where = show_endpoint(event.by.endpoint)
            raise SupersededError(
                f"a newer node runs under this one's identity at {where}, and the ring hears only "
                "that; is one data directory a copy of the other? Start this node with an empty "
                "--data-dir, or stop the other one and start this one again"
            )
        else:
            assert type(event) is Logged
            self._log.info(event.event, **event.fields)

    def _arm(self) -> None:
        """Have one timer at the next deadline; one that is early enough already stays, mostly."""
        deadline = self._core.next_deadline()
        if deadline is None or (self._timer is not None and deadline == self._due):
            return
        # What is overdue already when we arm says nothing about the loop, and a timer that fires at
        # once is not put off again: a flood of datagrams must not starve it.
        now = clock()
        due = max(deadline, now)
        if self._timer is not None:
            if due >= self._due and self._due - now < PUT_OFF_S:
                return
            self._timer.cancel()
        self._due = due
        delay = due - now
        self._timer = self._loop.call_later(
            delay + TIMER_GRACE_S if delay > 0 else 0, self.run, self._handle_due
        )

    def _stop(self, error: BaseException | None) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._udp.fileno())
        self._sender.close()
        self._udp.close()
        for future in list(self._futures.values()):
            if not future.done():
                future.set_exception(UnreachableError(_STOPPED))
                future.exception()  # nobody may be left to look at it
        self._futures.clear()
        if not self.stopped.done():
            if error is None:
                self.stopped.set_result(None)
            else:
                lacking = shortage(error)
                said = lacking or f"because of an error of its own: {error!r}"
                self.stopped.set_exception(
                    error
                    if isinstance(error, PastryError)
                    else UnexpectedError(f"the node stopped: {said}")
                )
                self.stopped.exception()


def _nothing() -> None:
    """Be a step that only drains."""
