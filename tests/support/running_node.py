"""An access node on a real socket, for tests of the client library."""

from random import Random

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pastryd.config import Config
from pastryd.net.driver import Driver
from pastryd.net.keys import PUBLIC_NETWORK_KEY
from pastryd.net.seal import SessionTable
from pastryd.net.udp import UdpSocket, endpoint_of
from pastryd.state.handle import Handle
from tests.support.access_node import AccessNode


class _NoLog:
    def info(self, event: str, **fields: object) -> None: ...

    def error(self, event: str, **fields: object) -> None:
        raise AssertionError(event, fields)


class Running:
    """An access node on a port of its own."""

    def __init__(self, network_key: bytes = PUBLIC_NETWORK_KEY, listen: str = "127.0.0.1") -> None:
        key = X25519PrivateKey.generate()
        handle = Handle(key.public_key().public_bytes_raw(), "", 0, 1)
        self.node = AccessNode(handle, Config.lan(), Random(1))
        stats = self.node.context.stats
        udp = UdpSocket((listen, 0), stats)
        self.address = f"127.0.0.1:{udp.endpoint[1]}"
        sessions = SessionTable(key, 1, network_key, endpoint_of, stats)
        self.driver = Driver(
            self.node, udp, sessions, lambda r: None, lambda i: None, 0.25, stats, _NoLog()
        )
