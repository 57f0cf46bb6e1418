"""`net/driver.py` on a real loop and socket, driving a scripted core."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pastryd.errors import PastryError, StoreError, UnexpectedError, UnreachableError
from pastryd.ids import Name
from pastryd.net import driver as driver_module
from pastryd.net import sender
from pastryd.net.driver import RENEW_AGAIN_S, Driver, clock
from pastryd.net.keys import PUBLIC_NETWORK_KEY
from pastryd.net.seal import OVERHEAD_BYTES, SessionTable
from pastryd.net.udp import UdpSocket, endpoint_of
from pastryd.protocol.outbox import (
    Completion,
    Logged,
    Outbox,
    ReadDone,
    ReadItem,
    StoreReply,
    StoreRequest,
)
from pastryd.state.handle import Endpoint, Handle
from pastryd.stats import Stats

pytestmark = pytest.mark.e2e

NAME = Name(bytes(32))


class Core:
    """Records what the driver does; tests put effects into the outbox."""

    def __init__(self, identity: Handle) -> None:
        self.identity = identity
        self.outbox = Outbox()
        self.deadline: float | None = None
        self.calls: list[tuple[Any, ...]] = []
        self.received = asyncio.Event()
        self.fails = False
        self.reads_left = 0

    def receive_datagram(self, data: bytes, sender: Handle, now: float) -> None:
        if self.fails:
            raise ZeroDivisionError("a bug")
        self.calls.append(("datagram", data, sender))
        self.received.set()

    def receive_train(self, train: Sequence[bytes], sender: Handle, now: float) -> None:
        for data in train:
            self.receive_datagram(data, sender, now)

    def receive_hello(self, data: bytes, sender: Handle, now: float) -> None:
        self.calls.append(("hello", data, sender))
        self.received.set()

    def receive_twin(self, data: bytes, sender: Handle, now: float) -> None:
        self.calls.append(("twin", data, sender))
        self.received.set()

    def handle_timer(self, now: float) -> None:
        self.deadline = None
        self.calls.append(("timer", now))
        self.received.set()

    def next_deadline(self) -> float | None:
        return self.deadline

    def store_completed(self, reply: StoreReply, now: float) -> None:
        self.calls.append(("store", reply.ticket))
        if self.reads_left:
            self.reads_left -= 1
            self.outbox.store.append(ReadItem(reply.ticket + 1, NAME, 0, -1))
        else:
            self.outbox.events.append(Completion(1, "done"))

    def report_stall(self, lag_s: float, now: float) -> None:
        self.calls.append(("stall", lag_s))


class Log:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))

    error = info


class Side:
    """A core, its driver and its socket."""

    def __init__(self) -> None:
        key = X25519PrivateKey.generate()
        self.stats = Stats()
        self.udp = UdpSocket(("127.0.0.1", 0), self.stats)
        self.endpoint: Endpoint = self.udp.endpoint
        self.core = Core(Handle(key.public_key().public_bytes_raw(), *self.endpoint, 1))
        sessions = SessionTable(key, 1, PUBLIC_NETWORK_KEY, endpoint_of, self.stats)
        self.log = Log()
        self.grown: list[int] = []
        self.keeps = True
        self.driver = Driver(
            self.core,
            self.udp,
            sessions,
            self.submit,
            self.claim,
            0.05,
            self.stats,
            self.log,
        )

    def claim(self, incarnation: int) -> None:
        self.grown.append(incarnation)
        if not self.keeps:
            raise StoreError("cannot write to the store: read-only file system")

    def submit(self, request: StoreRequest) -> None:
        """Answer reads at once, as the executor does."""
        assert isinstance(request, ReadItem)
        self.driver.store_completed(ReadDone(request.ticket, None, 0))

    def does(self, step: Callable[[Core], object]) -> None:
        self.driver.call(lambda now: step(self.core))


@pytest.fixture
async def sides() -> AsyncIterator[tuple[Side, Side]]:
    a, b = Side(), Side()
    yield a, b
    a.driver.stop()
    b.driver.stop()


Sides = tuple[Side, Side]


async def test_datagrams_leave_in_order_and_arrive_from_their_sender(sides: Sides) -> None:
    a, b = sides
    a.does(lambda core: core.outbox.datagrams.append((b"hello", b.endpoint)))
    a.does(
        lambda core: core.outbox.datagrams.extend([(b"%d" % i, b.core.identity) for i in range(40)])
    )
    while len(b.core.calls) < 41:
        b.core.received.clear()
        await b.core.received.wait()
    kinds = [call[0] for call in b.core.calls]
    assert kinds == ["hello"] + ["datagram"] * 40
    assert [call[1] for call in b.core.calls[1:]] == [b"%d" % i for i in range(40)]
    assert {call[2] for call in b.core.calls} == {a.core.identity}
    assert len({id(call[2]) for call in b.core.calls}) == 1


async def test_reads_that_lead_to_reads_are_done_in_one_drain(sides: Sides) -> None:
    side, _ = sides
    side.core.reads_left = 1000

    def command(now: float) -> int:
        side.core.outbox.store.append(ReadItem(0, NAME, 0, -1))
        return 1

    assert await side.driver.command(command) == "done"
    assert [call[1] for call in side.core.calls] == list(range(1001))


async def test_the_timer_fires_at_the_deadline_and_an_earlier_one_replaces_it(sides: Sides) -> None:
    side, _ = sides
    begin = clock()
    side.does(lambda core: setattr(core, "deadline", begin + 60))
    side.does(lambda core: setattr(core, "deadline", begin + 0.01))
    await side.core.received.wait()
    assert [call[0] for call in side.core.calls] == ["timer"]
    assert begin + 0.01 <= side.core.calls[0][1] < begin + 5


async def test_a_timer_for_what_is_no_more_due_is_put_off_unless_it_is_near(sides: Sides) -> None:
    side, _ = sides
    begin = clock()
    side.does(lambda core: setattr(core, "deadline", begin + 30))
    side.does(lambda core: setattr(core, "deadline", begin + 60))
    assert side.driver._due == begin + 60
    side.does(lambda core: setattr(core, "deadline", begin + 0.01))
    side.does(lambda core: setattr(core, "deadline", begin + 60))
    assert side.driver._due == begin + 0.01


async def test_a_flood_of_datagrams_does_not_starve_an_overdue_timer(sides: Sides) -> None:
    a, b = sides
    await asyncio.sleep(0)
    for _ in range(5):
        a.does(lambda core: core.outbox.datagrams.extend([(b"x", b.core.identity)] * 64))
    b.core.deadline = clock() - 1
    while not any(call[0] == "timer" for call in b.core.calls):
        await asyncio.sleep(0)
    assert len(b.core.calls) < 200


async def test_a_late_loop_is_told_before_datagrams_and_timers(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sides
    shown = [clock()]  # it stands: on a busy machine there may be a stall of its own in between
    monkeypatch.setattr(driver_module, "clock", lambda: shown[-1])
    b.does(lambda core: setattr(core, "deadline", shown[0] + 0.01))
    a.does(lambda core: core.outbox.datagrams.append((b"late", b.core.identity)))
    shown.append(shown[0] + 10)
    while len(b.core.calls) < 3:
        b.core.received.clear()
        await b.core.received.wait()
    assert b.core.calls[0] == ("stall", pytest.approx(9.99))
    assert sorted(call[0] for call in b.core.calls[1:]) == ["datagram", "timer"]


async def test_a_bug_in_the_core_is_logged_and_stops_the_node(sides: Sides) -> None:
    a, b = sides
    b.core.fails = True
    waiting = b.driver.command(lambda now: 7)
    a.does(lambda core: core.outbox.datagrams.append((b"x", b.core.identity)))
    with pytest.raises(UnexpectedError, match="a bug"):
        await b.driver.stopped
    with pytest.raises(UnreachableError):
        await waiting
    assert [event for event, _ in b.log.events] == ["node_failed"]
    with pytest.raises(UnreachableError):
        b.driver.call(lambda now: None)


class BrokenLog(Log):
    """Nobody reads it any more."""

    def info(self, event: str, **fields: object) -> None:
        raise BrokenPipeError

    error = info


async def test_a_log_that_fails_stops_the_node_and_leaves_nobody_waiting(sides: Sides) -> None:
    a, _ = sides
    a.driver._log = BrokenLog()
    waiting = a.driver.command(lambda now: 7)
    with pytest.raises(BrokenPipeError):
        a.does(lambda core: core.outbox.events.append(Logged("anything", {})))
    with pytest.raises(UnreachableError):
        await waiting
    with pytest.raises(PastryError, match="BrokenPipe"):
        await a.driver.stopped


async def test_an_incarnation_that_cannot_be_kept_is_not_used_and_stops_nobody(
    sides: Sides,
) -> None:
    """Who accuses a node, or remembers a later life of it, could stop it, were its disk bad."""
    a, b = sides
    a.keeps = False

    async def said(incarnation: int) -> int:
        a.core.identity = a.core.identity.reborn(incarnation)
        count = len(b.core.calls)
        for _ in range(2):
            a.does(lambda core: core.outbox.datagrams.append((b"x", b.core.identity)))
        while len(b.core.calls) < count + 2:
            b.core.received.clear()
            await b.core.received.wait()
        first, second = (call[2].incarnation for call in b.core.calls[-2:])
        assert first == second
        return int(first)

    assert await said(9) == 1
    assert not a.driver.stopped.done()
    assert a.grown == [9], "asked once"
    a.keeps = True
    assert await said(10) == 10
    assert a.stats.counters["incarnations_not_kept"] == 1


async def test_an_incarnation_that_could_not_be_kept_is_tried_again_after_a_while(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full; nobody may accuse us again, for nobody hears us in the one before."""
    a, b = sides
    now = driver_module.clock()
    monkeypatch.setattr(driver_module, "clock", lambda: now)
    a.keeps = False

    async def said() -> int:
        a.does(lambda core: core.outbox.datagrams.append((b"x", b.core.identity)))
        await b.core.received.wait()
        b.core.received.clear()
        return int(b.core.calls[-1][2].incarnation)

    a.core.identity = a.core.identity.reborn(9)
    assert await said() == 1
    a.keeps = True
    assert await said() == 1 and a.grown == [9]
    now += RENEW_AGAIN_S
    assert await said() == 9
    assert await said() == 9 and a.grown == [9, 9]


async def test_a_refutation_is_sealed_in_the_new_incarnation_and_told_before(sides: Sides) -> None:
    a, b = sides
    a.core.identity = a.core.identity.reborn(9)
    a.does(lambda core: core.outbox.datagrams.append((b"alive", b.core.identity)))
    await b.core.received.wait()
    assert b.core.calls[0][2].incarnation == 9
    assert a.grown == [9]


async def test_garbage_is_counted_and_never_reaches_the_core(sides: Sides) -> None:
    a, b = sides
    for garbage in (b"", b"x", bytes(200), b"\x10" + bytes(200), b"\x11" + bytes(2000)):
        assert a.udp.send(garbage, b.endpoint)
    a.does(lambda core: core.outbox.datagrams.append((b"real", b.core.identity)))
    await b.core.received.wait()
    assert [call[1] for call in b.core.calls] == [b"real"]
    assert sum(b.stats.counters.values()) == 5


async def test_datagrams_that_the_kernel_has_no_room_for_wait_in_a_bounded_queue(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sides
    full = True
    really = UdpSocket.send

    def send(udp: UdpSocket, datagram: bytes, endpoint: Endpoint) -> bool:
        return not full and really(udp, datagram, endpoint)

    monkeypatch.setattr(UdpSocket, "send", send)
    monkeypatch.setattr(sender, "SEND_QUEUE_BYTES_MAX", 6 + 3 * OVERHEAD_BYTES)
    rising = [bytes(size) for size in range(1, 6)]  # no train: those have a short one at the end
    a.does(lambda core: core.outbox.datagrams.extend([(data, b.core.identity) for data in rising]))
    assert a.stats.counters["datagrams_send_queue_full"] == 2
    full = False
    while len(b.core.calls) < 3:
        b.core.received.clear()
        await b.core.received.wait()
    assert [call[1] for call in b.core.calls] == rising[:3]


async def test_trains_that_the_kernel_has_no_room_for_wait_and_arrive_whole(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sides
    room = 0
    really = UdpSocket.send_train

    def send_train(udp: UdpSocket, train: bytes, step: int, endpoint: Endpoint) -> int:
        part = train[: room * step]
        return really(udp, part, step, endpoint) if part else 0

    monkeypatch.setattr(UdpSocket, "send_train", send_train)
    sizes = [900] * 30 + [10, 1100, 1100, 70]
    messages = [bytes([i]) * size for i, size in enumerate(sizes)]
    a.does(lambda core: core.outbox.datagrams.extend([(m, b.core.identity) for m in messages]))
    room = 7
    while len(b.core.calls) < len(messages):
        b.core.received.clear()
        await b.core.received.wait()
    assert sorted(call[1] for call in b.core.calls) == sorted(messages)
    assert not a.stats.counters and not b.stats.counters


async def test_control_overtakes_bulk_that_came_before_it(sides: Sides) -> None:
    a, b = sides
    bulk = [(bytes(1100), b.core.identity)] * 400
    a.does(lambda core: core.outbox.datagrams.extend([*bulk, (b"control", b.core.identity)]))
    while len(b.core.calls) < 401:
        b.core.received.clear()
        await b.core.received.wait()
    assert [call[1] for call in b.core.calls].index(b"control") < 150


async def test_events_are_logged(sides: Sides) -> None:
    side, _ = sides
    side.does(lambda core: core.outbox.events.append(Logged("node_active", {"members": 3})))
    assert side.log.events == [("node_active", {"members": 3})]


async def test_results_that_nobody_waits_for_any_more_are_counted(sides: Sides) -> None:
    side, _ = sides
    future = side.driver.command(lambda now: 1)
    future.cancel()
    side.driver.abandon(1)
    side.does(lambda core: core.outbox.events.append(Completion(1, "late")))
    assert side.stats.counters == {"completions_unclaimed": 1}


async def test_an_error_that_says_what_to_do_stops_the_node_with_its_words(
    sides: Sides,
) -> None:
    _, b = sides
    b.driver.fail(StoreError("the disk is gone; look for it"))
    with pytest.raises(StoreError, match="look for it"):
        await b.driver.stopped
    assert b.log.events == [("node_failed", {"error": "the disk is gone; look for it"})]


async def test_memory_that_ran_out_is_no_bug_and_needs_no_traceback(sides: Sides) -> None:
    _, b = sides
    b.driver.fail(MemoryError())
    with pytest.raises(UnexpectedError, match="the node stopped: out of memory; give it more"):
        await b.driver.stopped
    ((event, fields),) = b.log.events
    assert event == "node_failed"
    assert set(fields) == {"error"}
