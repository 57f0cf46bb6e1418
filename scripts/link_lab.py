"""Two network namespaces joined by a link of our own: delay, loss, rate and a drop-tail queue.

For kernels without netem. Each side has a TUN device; one process holds both and forwards IPv4
packets. A packet waits for its turn on the wire, or is dropped when the queue is full; then it
travels for half the round-trip time, and random loss strikes it on the way: it has used its share
of the link. The namespaces have no names, so that nothing of them is left when the processes end,
however they end. Linux and root only.
"""

import ctypes
import fcntl
import gc
import multiprocessing
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import TracebackType

NEAR, FAR = 0, 1
"""The sides: those who pull, and those who hold."""
ADDRESSES = ("10.77.0.1", "10.77.0.2")
MTU = 1500
LINK_PRIORITY, NODE_PRIORITY = 10, 5
"""Real-time: the link must not be late, and those who use it not for reasons of their own."""

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU, _SIOCSIFFLAGS = 0x8916, 0x891C, 0x8922, 0x8914
_SIOCSIFTXQLEN = 0x8943
_IFF_UP_RUNNING = 0x41
_TX_QUEUE_PACKETS = 10_000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

Flow = tuple[int, int, int]
"""Direction (the side it comes from), IP protocol, destination port."""


@dataclass(frozen=True)
class Conditions:
    """What the link is like; the same in both directions."""

    rtt_s: float
    loss: float
    queue_bytes: int
    bytes_per_s: float


@dataclass
class Passage:
    """What became of the packets of one flow, in bytes of IP."""

    offered: int = 0
    delivered: int = 0
    lost: int = 0
    dropped: int = 0
    """By the full queue."""
    longest: int = 0


def missing() -> str:
    """Return why this machine cannot do it, in one line; nothing when it can."""
    if sys.platform != "linux":
        return "the link needs Linux (network namespaces and TUN devices)"
    if os.geteuid():
        return "the link needs root (network namespaces and TUN devices): run this with sudo"
    if not Path("/dev/net/tun").exists():
        return "the link needs /dev/net/tun: load the kernel's module tun"
    return ""


def end_with_parent() -> None:
    """Let this process end when the one that started it does; call it first in a new process."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def prefer(priority: int) -> None:
    """Ask not to be disturbed by what else runs on this machine, as far as that is allowed."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


class LinkLab:
    """The namespaces and the process that joins them; a context manager."""

    def __init__(self, conditions: Conditions, seed: int = 1) -> None:
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._namespaces: list[int] = []
        devices = []
        try:
            for address in ADDRESSES:
                _check(_libc.unshare(_CLONE_NEWNET))
                self._namespaces.append(os.open("/proc/self/ns/net", os.O_RDONLY))
                devices.append(_tun(address))
        finally:
            _check(_libc.setns(home, _CLONE_NEWNET))
            os.close(home)
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(
            target=_forward, args=(devices, theirs, conditions, seed), daemon=True
        )
        self._process.start()
        for device in devices:
            os.close(device)

    def enter(self, side: int) -> None:
        """Move this process, which should be a new one, to one side of the link."""
        _check(_libc.setns(self._namespaces[side], _CLONE_NEWNET))

    def change(self, conditions: Conditions) -> None:
        """Let the link be another; what is on its way is forgotten, and the counts begin anew."""
        self._pipe.send(conditions)
        self._pipe.recv()

    def passages(self) -> dict[Flow, Passage]:
        """Return what passed since the last change."""
        self._pipe.send(None)
        passages: dict[Flow, Passage] = self._pipe.recv()
        return passages

    def __enter__(self) -> "LinkLab":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.join()
        for namespace in self._namespaces:
            os.close(namespace)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _tun(address: str) -> int:
    """Make a TUN device in the namespace that we are in, with an address and up."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = b"link0"
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name, _IFF_TUN_NO_PI))

    def address_of(text: str) -> bytes:
        return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for interface, code, value in (
            (name, _SIOCSIFADDR, address_of(address)),
            (name, _SIOCSIFNETMASK, address_of("255.255.255.0")),
            (name, _SIOCSIFMTU, struct.pack("i", MTU)),
            (name, _SIOCSIFTXQLEN, struct.pack("i", _TX_QUEUE_PACKETS)),
            (name, _SIOCSIFFLAGS, struct.pack("H", _IFF_UP_RUNNING)),
            (b"lo", _SIOCSIFFLAGS, struct.pack("H", _IFF_UP_RUNNING)),
        ):
            fcntl.ioctl(control, code, struct.pack("16s16s8x", interface, value))
    return device


@dataclass
class _Direction:
    """One way over the link."""

    source: int
    target: int
    conditions: Conditions
    random: Callable[[], float]
    free_at: float = 0.0
    flying: deque[tuple[float, bytes]] = field(default_factory=deque)
    passages: dict[tuple[int, int], Passage] = field(default_factory=dict)

    def take(self, now: float) -> None:
        """Take in what this side sends, until there is nothing more."""
        conditions, random = self.conditions, self.random
        rate, delay_s = conditions.bytes_per_s, conditions.rtt_s / 2
        read, source, passages, flying = os.read, self.source, self.passages, self.flying
        for _ in range(64):
            try:
                packet = read(source, 2048)
            except BlockingIOError:
                return
            if packet[0] != 0x45:
                continue  # IPv6 is not carried, nor are options
            size = len(packet)
            port = packet[22] << 8 | packet[23] if packet[9] in {6, 17} else 0
            passage = passages.get((packet[9], port))
            if passage is None:
                passage = passages[packet[9], port] = Passage()
            passage.offered += size
            passage.longest = max(passage.longest, size)
            start = max(now, self.free_at)
            if (start - now) * rate + size > conditions.queue_bytes:
                passage.dropped += size
                continue
            self.free_at = start + size / rate
            if conditions.loss and random() < conditions.loss:
                passage.lost += size
                continue
            passage.delivered += size
            flying.append((self.free_at + delay_s, packet))

    def deliver(self, now: float) -> None:
        """Hand over what has arrived."""
        flying, target = self.flying, self.target
        while flying and flying[0][0] <= now:
            try:
                os.write(target, flying.popleft()[1])
            except OSError:
                return  # the other side is going down


def _forward(devices: list[int], pipe: Connection, conditions: Conditions, seed: int) -> None:
    """Be the link, until killed."""
    end_with_parent()
    prefer(LINK_PRIORITY)
    gc.freeze()
    gc.disable()
    random = Random(seed).random
    ways = [_Direction(devices[i], devices[1 - i], conditions, random) for i in (NEAR, FAR)]
    by_device = {way.source: way for way in ways}
    sources = [*devices, pipe.fileno()]
    clock = time.monotonic
    while True:
        due = min((way.flying[0][0] for way in ways if way.flying), default=None)
        wait_s = 1.0 if due is None else max(0.0, due - clock())
        ready, _, _ = select.select(sources, (), (), wait_s)
        for source in ready:
            if source in by_device:
                by_device[source].take(clock())
                continue
            changed = pipe.recv()
            if changed is None:
                counts = [
                    ((i, *key), p) for i in (NEAR, FAR) for key, p in ways[i].passages.items()
                ]
                pipe.send(dict(counts))
                continue
            for way in ways:
                way.conditions = changed
                way.flying.clear()
                way.passages.clear()
                way.free_at = 0.0
            pipe.send(None)
        now = clock()
        for way in ways:
            way.deliver(now)
