"""Well-formed messages with wrong contents never raise, never get stored, and leave nothing behind.

Unlike random bytes these pass the decoder, carry nonces that are really awaited, and name items
that really exist: a peer that knows the protocol and means harm.
"""

from collections.abc import Callable
from random import Random

import pytest

from pastryd.ids import Name
from pastryd.protocol.items import CHUNK_BYTES, IndexEntry, name_of, verify
from pastryd.state.handle import Handle
from pastryd.wire import messages as m
from pastryd.wire.codec import encode
from tests.support.network import VirtualNetwork, VirtualNode

STEPS = 1_500
KEY = name_of(b"a large blob")


class Mischief:
    """Draws messages from a seed."""

    def __init__(self, network: VirtualNetwork, seed: int) -> None:
        self.network = network
        self.rng = Random(seed)
        values = [self.rng.randbytes(size) for size in (0, 1, 86, 86, 500, 1000)]
        self.items = {name_of(value): value for value in values}
        for i in range(20):
            entry = IndexEntry(KEY, name_of(b"%d" % i), CHUNK_BYTES + 1 + i)
            self.items[entry.name] = entry.encode()
        self.names = [*self.items, KEY, Name(bytes(32)), Name(b"\xff" * 32)]
        stranger = Handle(self.rng.randbytes(32), "10.7.7.7", 99, 1)
        self.handles = [*(node.handle for node in network.nodes), stranger]

    def nonce(self) -> int:
        """Return one that somebody awaits, if possible: the asked one knows it."""
        awaited: list[int] = []
        for node in self.network.nodes:
            awaited += list(node.core._requests._pending)[:5]
            awaited += list(node.core.items.lookup._asked)[:5]
            awaited += list(node.core.items.access._routed)[:5]
        known = awaited and self.rng.random() < 0.6
        return self.rng.choice(awaited) if known else self.rng.getrandbits(63)

    def name(self) -> Name:
        return self.rng.choice(self.names)

    def data(self) -> bytes:
        return self.rng.choice([*self.items.values(), b"", b"wrong"])

    def size(self) -> int:
        return self.rng.choice([0, 1, 86, 500, 1000, 2000, 1 << 20])

    def position(self) -> int:
        inner = int.from_bytes(self.name()[:16], "big")
        return self.rng.choice([0, 1, (1 << 128) - 1, self.rng.getrandbits(128), inner])

    def list_of(self, draw: Callable[[], object], most: int) -> tuple[object, ...]:
        return tuple(draw() for _ in range(self.rng.randint(0, most)))

    def handle(self) -> Handle:
        return self.rng.choice(self.handles)

    def range(self) -> m.Range:
        count = self.rng.choice([0, 1, 40, (1 << 32) - 1])
        return m.Range(self.position(), self.position(), count, self.rng.getrandbits(128))

    def request(self) -> m.Request:
        name = self.rng.choice([b"", b"abc", self.rng.randbytes(16), self.name(), self.name()])
        number = self.rng.choice([0, 5, 86, 1 << 20, 1 << 50])
        return m.Request(self.nonce(), self.rng.randrange(8), name, number, self.data())

    def route(self) -> m.Route:
        payload = self.rng.choice(
            [
                encode(m.Find(self.nonce(), self.name())),
                encode(m.HaveQuery(self.nonce(), False, self.list_of(self.name, 3))),
                encode(self.request()._replace(data=b"")),
                self.rng.randbytes(9),
            ]
        )
        seq, hops = self.rng.getrandbits(32), self.rng.randrange(40)
        application = self.rng.choice(["blob", "access", "unknown"])
        traced = self.rng.random() < 0.5
        return m.Route(seq, self.position(), self.handle(), hops, application, payload, traced, ())

    def message(self) -> m.Message:
        rng, nonce, name, names = self.rng, self.nonce(), self.name(), self.list_of(self.name, 31)
        flag = rng.random() < 0.5
        true_name = rng.choice(list(self.items))
        true_value = self.items[true_name]
        draws: list[m.Message] = [
            m.Find(nonce, name),
            m.Found(nonce, self.size(), self.data(), self.list_of(self.data, 1)),
            m.Replicas(nonce, self.list_of(self.handle, 10)),
            m.Store(nonce, name, self.size(), self.data()),
            m.Store(nonce, true_name, len(true_value), true_value),
            m.Stored(nonce, rng.randrange(8)),
            m.HaveQuery(nonce, flag, names),
            m.HaveReply(nonce, rng.getrandbits(32)),
            m.Ranges(nonce, flag, self.list_of(self.range, 16)),
            m.Names(nonce, self.position(), self.position(), flag, names),
            self.request(),
            m.Answer(nonce, rng.randrange(12), 1 << 60, name, self.size(), self.data()),
            m.Pull(nonce, name, rng.choice([0, 256, 1100, 65535]), rng.getrandbits(5), 0b1011),
            m.Segment(nonce, rng.randrange(4), self.size(), self.data()),
            m.Absent(nonce, name),
            self.route(),
        ]
        return rng.choice(draws)


def assert_clean(node: VirtualNode) -> None:
    """Assert that nothing is left of it but what is true."""
    items = node.core.items
    assert items.access.in_progress == items.blobs.puts == items.blobs.searches == 0
    assert not items.lookup._asked
    assert not items.access._routed
    assert not items.storage._pins
    assert not items.storage._writes
    assert all(verify(name, value) for name, value in node.disk.items.items())
    assert sorted(node.disk.items) == items.storage.inventory.names_in(0, 0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_peer_that_means_harm_does_none(seed):
    network = VirtualNetwork(seed=seed)
    network.ring(4)
    mischief = Mischief(network, seed)
    for _ in range(STEPS):
        node = mischief.rng.choice(network.nodes)
        sender = mischief.handle()
        data = encode(mischief.message())
        if sender.id != node.core.identity.id and len(data) <= network.config.payload_bytes_max:
            network.transmit(data, sender, node.handle)
        if mischief.rng.random() < 0.3:
            network.run(0.01 * mischief.rng.random())
    network.run(60)
    for node in network.nodes:
        assert_clean(node)
