"""Publish and subscribe on the Common API, after Scribe (Castro, Druschel, Kermarrec, Rowstron).

Another application than the blob store on the same ring. Whoever subscribes routes JOIN towards
the topic's root; the first node on the way (`forward`) takes it as a child and, if it was not in
the topic's tree yet, joins in turn. What is published is routed to the root (`deliver`) and goes
down the tree by direct messages. All state is soft: `refresh` builds the tree anew after nodes have
gone (`update`).

    python examples/scribe.py      # five nodes on this machine, three subscribers, one message

What was heard is on stdout, the nodes' logs are on stderr (`2> /dev/null`).
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import msgpack

from pastryd.config import Config
from pastryd.ids import NodeId, Position, position_of
from pastryd.protocol.application import Application, Forward, Overlay
from pastryd.state.handle import Handle
from pastryd.wire.messages import Hop

TOPIC_CHARACTERS_MAX = 100
TOPICS_MAX = 1024
CHILDREN_MAX = 64
SEEN_MAX = 1024

OnMessage = Callable[[str, bytes], None]
"""Takes topic and message."""


def key_of(topic: str) -> Position:
    """Return where on the ring a topic lives."""
    return position_of(sha256(topic.encode()).digest())


class Scribe(Application):
    """One node's part in all trees."""

    name = "scribe"

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._children: dict[str, dict[NodeId, Handle]] = {}
        self._subscribed: dict[str, OnMessage] = {}
        self._seen: deque[bytes] = deque(maxlen=SEEN_MAX)
        self._published = 0

    # -- what the user calls --

    def subscribe(self, topic: str, on_message: OnMessage, now: float) -> None:
        """Have `on_message` called with what is published from now on."""
        self._subscribed[topic] = on_message
        self._join(topic, now)

    def publish(self, topic: str, message: bytes, now: float) -> None:
        """Send a message to all who subscribed."""
        self._published += 1
        number = b"%032x.%d" % (self._overlay.identity.id, self._published)
        payload = msgpack.packb(["publish", topic, number, message])
        self._overlay.route(key_of(topic), payload, self.name, now)

    def refresh(self, now: float) -> None:
        """Ask for our branches again: the tree heals, wherever it had lost a node."""
        for topic in {**self._subscribed, **self._children}:
            self._join(topic, now)

    # -- upcalls --

    def forward(
        self, key: Position, payload: bytes, source: Handle, next_hop: Handle, now: float
    ) -> Forward | None:
        """A JOIN passes: its source becomes our child, and we, if we are new, join in turn."""
        kind, topic, _ = _parse(payload)
        if kind != "join" or source.id == self._overlay.identity.id:
            return None
        in_tree = topic in self._children or topic in self._subscribed
        if self._adopt(topic, source) and not in_tree:
            self._join(topic, now)
        return Forward.STOP

    def deliver(
        self, key: Position, payload: bytes, source: Handle, trail: Sequence[Hop], now: float
    ) -> None:
        """We are the root (JOIN, PUBLISH), or our parent in the tree hands a message down."""
        kind, topic, rest = _parse(payload)
        if kind == "join":
            self._adopt(topic, source)
        elif kind in ("publish", "down") and len(rest) == 2:
            number, message = rest
            if isinstance(number, bytes) and isinstance(message, bytes):
                self._hand_down(topic, number, message, now)

    def update(self, handle: Handle, joined: bool, now: float) -> None:
        """A neighbour came or went: a topic's root may be another node now."""
        if not joined:
            for children in self._children.values():
                children.pop(handle.id, None)
        self.refresh(now)

    # -- the tree --

    def _join(self, topic: str, now: float) -> None:
        self._overlay.route(key_of(topic), msgpack.packb(["join", topic]), self.name, now)

    def _adopt(self, topic: str, child: Handle) -> bool:
        """Take in a child; False when there is no room, and it has to try again later."""
        if child.id == self._overlay.identity.id:
            return False
        if topic not in self._children and len(self._children) >= TOPICS_MAX:
            return False
        children = self._children.setdefault(topic, {})
        if child.id not in children and len(children) >= CHILDREN_MAX:
            return False
        children[child.id] = child
        return True

    def _hand_down(self, topic: str, number: bytes, message: bytes, now: float) -> None:
        if number in self._seen:
            return
        self._seen.append(number)
        payload = msgpack.packb(["down", topic, number, message])
        for child in list(self._children.get(topic, {}).values()):
            self._overlay.send(child, payload, self.name, now)
        if topic in self._subscribed:
            self._subscribed[topic](topic, message)


def _parse(payload: bytes) -> tuple[str, str, list[object]]:
    """Return kind, topic and the rest; nothing that a peer sends may raise."""
    try:
        kind, topic, *rest = msgpack.unpackb(payload)
    except Exception:  # msgpack raises many kinds; all of them mean malformed bytes
        return "", "", []
    if not isinstance(kind, str) or not isinstance(topic, str):
        return "", "", []
    return (kind, topic, rest) if len(topic) <= TOPIC_CHARACTERS_MAX else ("", "", [])


# -- the same on real sockets --


@dataclass(frozen=True)
class Settings:
    """What a `Service` wants to know."""

    data_dir: Path
    bootstrap: Sequence[str] = ()
    bootstrap_timeout: float | None = 10.0
    listen: str = "127.0.0.1:0"
    advertise: str | None = None
    capacity: int | None = 64 << 20
    network_key_file: Path | None = None

    def config(self) -> Config:
        """Return the protocol's parameters."""
        return Config.lan()


async def main() -> None:
    """Start a ring on this machine, subscribe at three nodes, publish at another."""
    import structlog  # noqa: PLC0415 - only the script has a terminal, and meets a socket

    from pastryd.net.driver import clock  # noqa: PLC0415
    from pastryd.service import Service  # noqa: PLC0415

    # A node logs wherever the program that it is part of wants: by default to stdout.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with TemporaryDirectory() as directory:
        services: list[Service] = []
        scribes: list[Scribe] = []
        heard: asyncio.Queue[str] = asyncio.Queue()
        try:
            for i in range(5):
                seeds = [services[0].address] if services else []
                service = Service(Settings(Path(directory) / str(i), seeds))
                await service.start()
                scribe = Scribe(service.node)
                service.node.register(scribe)
                services.append(service)
                scribes.append(scribe)
            for i in (1, 2, 3):
                services[i].driver.call(
                    lambda now, i=i: scribes[i].subscribe(
                        "weather",
                        lambda topic, text: heard.put_nowait(f"node {i}: {text.decode()}"),
                        now,
                    )
                )
            async with asyncio.timeout(10):
                while heard.qsize() < 3:  # a subscription is a message, too: it takes a moment
                    services[4].driver.call(
                        lambda now: scribes[4].publish("weather", b"rain at %.0f" % clock(), now)
                    )
                    await asyncio.sleep(0.2)
            while not heard.empty():
                print(heard.get_nowait())
        finally:
            for service in services:
                await service.stop()


if __name__ == "__main__":
    asyncio.run(main())
