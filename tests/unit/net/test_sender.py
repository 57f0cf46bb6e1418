"""`net/sender.py`: bulk gives way between its pieces, and what waited for the kernel does, too."""

from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pastryd.net import sender as sender_module
from pastryd.net.keys import PUBLIC_NETWORK_KEY
from pastryd.net.seal import SessionTable
from pastryd.net.sender import PIECES_ALONE, PIECES_AT_ONCE, Sender
from pastryd.net.udp import endpoint_of
from pastryd.protocol.outbox import Destination
from pastryd.state.handle import Endpoint, Handle
from pastryd.stats import Stats

PIECE = bytes(50_000)
SMALL = bytes(100)


class Socket:
    """A socket that takes so many pieces, and then is full."""

    def __init__(self, history: list[str]) -> None:
        self.room = 1_000
        self._history = history

    def send(self, data: bytes, endpoint: Endpoint) -> bool:
        return self.send_train(data, len(data), endpoint) > 0

    def send_train(self, train: bytes, step: int, endpoint: Endpoint) -> int:
        if not self.room:
            return 0
        self.room -= 1
        self._history.append("bulk" if len(train) > len(PIECE) else "small")
        return len(train)


class World:
    """A sender, its socket, and all that it did, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.history: list[str] = []
        self.now = 0.0
        self.pause_s = 0.0
        self.watched: list[bool] = []
        keys = [X25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2)]
        sessions = SessionTable(keys[0], 1, PUBLIC_NETWORK_KEY, endpoint_of, Stats())
        self.other = Handle(keys[1].public_key().public_bytes_raw(), "192.0.2.9", 4160, 1)
        self.socket = Socket(self.history)
        self.stats = Stats()
        self.sender = Sender(
            self.socket,  # type: ignore[arg-type]
            sessions,
            self.stats,
            self.watched.append,
        )
        monkeypatch.setattr(sender_module, "let_others_run", self._pause)
        monkeypatch.setattr(sender_module.time, "monotonic", lambda: self.now)

    def _pause(self) -> None:
        self.now += self.pause_s
        self.history.append("pause")

    def send(self, *payloads: bytes) -> bool:
        datagrams: Sequence[tuple[bytes, Destination]] = [(p, self.other) for p in payloads]
        return self.sender.send(datagrams, 0.0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_others_run_between_pieces_and_not_after_the_last_for_the_step_ends_there(
    world: World,
) -> None:
    assert world.send(PIECE)
    assert world.history == ["bulk"]
    assert world.send(SMALL, PIECE, PIECE, SMALL)
    assert world.history[1:] == ["small", "bulk", "pause", "bulk", "pause", "small"]
    assert not world.send(SMALL)


def test_after_a_pause_that_took_long_pieces_go_alone(world: World) -> None:
    world.pause_s = 0.01
    world.send(*[PIECE] * (PIECES_ALONE + 3))
    assert world.history.count("pause") == 2


def test_what_waited_for_the_kernel_goes_in_turns_with_pauses(world: World) -> None:
    world.socket.room = 0
    count = 2 * PIECES_AT_ONCE + 3
    world.send(*[PIECE] * count)
    assert world.watched == [True]
    world.history.clear()
    world.socket.room = count - 1
    for _ in range(2):
        assert world.sender.handle_writable()
        assert world.history == [*["bulk", "pause"] * (PIECES_AT_ONCE - 1), "bulk"]
        world.history.clear()
    assert world.sender.handle_writable()
    assert world.history == ["bulk", "pause"] * 2
    assert world.watched == [True]
    world.socket.room = 1
    assert world.sender.handle_writable()
    assert world.watched == [True, False]
    assert world.history == [*["bulk", "pause"] * 2, "bulk"]


def test_small_ones_that_waited_go_without_a_pause(world: World) -> None:
    world.socket.room = 0
    world.send(SMALL, PIECE, SMALL)
    world.history.clear()
    world.socket.room = 10
    assert world.sender.handle_writable()
    assert world.history == ["small", "bulk", "pause", "small"]
    assert world.watched == [True, False]
