#!/usr/bin/env python3
"""What one forwarded message costs a node, sealing included; prints JSON.

Three nodes with real loopback sockets: A sends routed messages whose root is C to B. Measured is B
alone, with the daemon's own driver: receive, open, decode, acknowledge to A, choose the hop,
encode, seal, send to C, and then receive and open the acknowledgement that C sends back. The budget
is 20 us (DESIGN sec. 3). Beside it, in the same run, what the kernel and the cipher alone need for
the same four datagrams: the limit. A message is a 100-byte payload; figures are medians, since
machines are noisy.
"""

import argparse
import asyncio
import json
import sys
import time
from random import Random
from statistics import median

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pastryd.config import Config
from pastryd.net.driver import Driver, clock
from pastryd.net.seal import SessionTable
from pastryd.net.udp import RECEIVE_BYTES, UdpSocket, endpoint_of
from pastryd.node import PastryNode
from pastryd.state.handle import Handle
from pastryd.stats import Stats
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import HopAck, Route

BATCH = 16
NETWORK_KEY = bytes(32)


class End:
    """A socket with an identity and its sessions; B has a core on top, A and C have none."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.private_key = X25519PrivateKey.generate()
        self.udp = UdpSocket(("127.0.0.1", 0), self.stats)
        self.buffer = bytearray(RECEIVE_BYTES)
        public_key = self.private_key.public_key().public_bytes_raw()
        self.handle = Handle(public_key, *self.udp.endpoint, time.time_ns() // 1_000_000)
        self.sessions = SessionTable(
            self.private_key, self.handle.incarnation, NETWORK_KEY, endpoint_of, self.stats
        )

    def send(self, message: Route | HopAck, to: Handle) -> None:
        """Seal and send one message."""
        sealed = self.sessions.seal(encode(message), to, clock())
        assert sealed is not None
        self.udp.send(sealed, to.endpoint)

    def receive_all(self) -> list[Route | HopAck]:
        """Return all messages that have arrived."""
        messages = []
        while (received := self.udp.receive(self.buffer)) is not None:
            size, step, address = received
            train = memoryview(self.buffer)[:size]
            for payloads, _, _ in self.sessions.open_train(train, step, address, clock()):
                messages += map(decode, payloads)
        return messages  # type: ignore[return-value]


def limit_us(b: End, a: End, repeats: int) -> float:
    """Return what two receives, two sends, two opens and two seals cost with nothing in between."""
    payload = bytes(190)
    spent: list[float] = []
    for _ in range(repeats // BATCH):
        for _ in range(2 * BATCH):
            sealed = a.sessions.seal(payload, b.handle, 0.0)
            assert sealed is not None
            a.udp.send(sealed, b.handle.endpoint)
        started = time.perf_counter()
        for _ in range(2 * BATCH):
            received = b.udp.receive(b.buffer)
            assert received is not None
            b.sessions.open(bytes(memoryview(b.buffer)[: received[0]]), received[2], 0.0)
            sealed = b.sessions.seal(payload, a.handle, 0.0)
            assert sealed is not None
            b.udp.send(sealed, a.handle.endpoint)
        spent.append((time.perf_counter() - started) / BATCH * 1e6)
        while a.udp.receive(a.buffer) is not None:
            pass
    return median(spent)


async def measure(repeats: int, batch_size: int) -> dict[str, float]:
    """Run the benchmark."""
    a, b, c = End(), End(), End()
    core = PastryNode(b.handle, Config.lan(), Random(1))
    driver = Driver(
        core,
        b.udp,
        b.sessions,
        lambda request: None,
        lambda incarnation: None,
        60.0,
        b.stats,
        structlog.get_logger(),
    )
    for other in (a, c):
        peer = core.context.peers.of(other.handle)
        peer.unproven = None
        core.leafset_upkeep.welcome(peer, clock())
    core.leafset_upkeep.active = True
    forward: list[float] = []
    acknowledge: list[float] = []
    forwarded = 0
    step = driver._handle_readable  # what the event loop would call
    for batch in range(repeats // batch_size):
        for i in range(batch_size):
            seq = batch * batch_size + i
            a.send(Route(seq, c.handle.id, a.handle, 1, "bench", bytes(100), False, ()), b.handle)
        started = time.perf_counter()
        while len(core.router._in_flight) < batch_size:  # until the loop would fall asleep
            driver.run(step)
        forward.append((time.perf_counter() - started) / batch_size * 1e6)
        acknowledged = sum(len(message.seqs) for message in a.receive_all())
        assert acknowledged == batch_size, "every message is acknowledged"
        arrived = c.receive_all()
        forwarded += len(arrived)
        c.send(HopAck(tuple(message.seq for message in arrived)), b.handle)
        started = time.perf_counter()
        while core.router._in_flight:
            driver.run(step)
        acknowledge.append((time.perf_counter() - started) / batch_size * 1e6)
    assert forwarded == repeats // batch_size * batch_size, "every message is forwarded"
    driver.stop()
    return {
        "forward_us": round(median(forward), 2),
        "acknowledgement_us": round(median(acknowledge), 2),
        "total_us": round(median(forward) + median(acknowledge), 2),
    }


def main() -> None:
    """Parse arguments, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=64_000)
    repeats = parser.parse_args().messages
    report = {
        "messages": repeats,
        "target_us": 20.0,
        "alone": asyncio.run(measure(repeats, 1)),
        f"in_bursts_of_{BATCH}": asyncio.run(measure(repeats, BATCH)),
        "sockets_and_seals_of_one_alone_us": round(limit_us(End(), End(), repeats // 4), 2),
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
