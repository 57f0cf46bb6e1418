"""What two processes can move over loopback UDP with nothing of ours in between.

The sender sends as fast as it can; counted is the payload that the receiver got through every step
of the variant. No congestion control, no loss recovery: the limit, not a protocol.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import Event, Process
from multiprocessing.synchronize import Event as EventType

import msgpack
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

UDP_SEGMENT, UDP_GRO = 103, 104
BURST_BYTES_MAX = 65_000
BUFFER_BYTES = 4 << 20
HASHED_BYTES = 1 << 20
KEY = bytes(32)
TAG_BYTES, NONCE_BYTES = 16, 12
FRAME_BYTES = len(msgpack.packb([17, bytes(32), 1 << 20, bytes(1000)])) - 1000


@dataclass(frozen=True, slots=True)
class Variant:
    """What is done with each datagram."""

    label: str
    datagram_bytes: int = 1200
    offload: bool = True
    sealed: bool = False
    framed: bool = False
    hashed: bool = False


VARIANTS = [
    Variant("plain sendto, 1,200 bytes", offload=False),
    Variant("UDP_SEGMENT and UDP_GRO"),
    Variant("..., each datagram sealed with AES-GCM", sealed=True),
    Variant("..., framed in msgpack", sealed=True, framed=True),
    Variant("..., hashed by the receiver", sealed=True, framed=True, hashed=True),
    Variant("the same with 8,900 bytes", 8900, sealed=True, framed=True, hashed=True),
]


def _socket() -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        udp.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    return udp


def _datagrams(variant: Variant) -> Iterator[bytes]:
    """Yield datagrams as the variant makes them."""
    seal = AESGCM(KEY).encrypt
    counter = 0
    overhead = NONCE_BYTES + TAG_BYTES if variant.sealed else 0
    overhead += FRAME_BYTES if variant.framed else 0
    payload = os.urandom(variant.datagram_bytes - overhead)
    name = bytes(32)
    while True:
        content = payload
        if variant.framed:
            # Constant width, so that all segments have one size.
            content = msgpack.packb([17, name, (1 << 20) + counter % 1000, payload])
        if variant.sealed:
            counter += 1
            nonce = struct.pack("<IQ", 0, counter)
            content = nonce + seal(nonce, content, None)
        yield content


def send(variant: Variant, port: int, stop: EventType) -> None:
    """Be the sender."""
    udp = _socket()
    udp.connect(("127.0.0.1", port))
    datagrams = _datagrams(variant)
    burst = 1
    if variant.offload:
        udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, variant.datagram_bytes)
        burst = BURST_BYTES_MAX // variant.datagram_bytes
    ready = None if variant.sealed else b"".join(next(datagrams) for _ in range(burst))
    while not stop.is_set():
        for _ in range(64):
            udp.send(ready or b"".join([next(datagrams) for _ in range(burst)]))


def measure(variant: Variant, seconds: float) -> float:
    """Run a variant; return MB/s of payload at the receiver."""
    udp = _socket()
    udp.bind(("127.0.0.1", 0))
    udp.settimeout(5)
    if variant.offload:
        udp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    stop = Event()
    sender = Process(target=send, args=(variant, udp.getsockname()[1], stop), daemon=True)
    sender.start()
    try:
        _receive(variant, udp, time.perf_counter() + 0.2)
        started = time.perf_counter()
        received = _receive(variant, udp, started + seconds)
        return received / (time.perf_counter() - started) / 1e6
    finally:
        stop.set()
        sender.join()
        udp.close()


def _receive(variant: Variant, udp: socket.socket, until: float) -> int:
    """Return the payload bytes that came before a time."""
    unseal = AESGCM(KEY).decrypt
    buffer = bytearray(1 << 16)
    view = memoryview(buffer)
    digest = sha256()
    received = hashed = 0
    size = variant.datagram_bytes
    while time.perf_counter() < until:
        for _ in range(16):
            length = udp.recv_into(buffer)
            if not variant.sealed:
                received += length
                continue
            for at in range(0, length, size):
                nonce = bytes(view[at : at + NONCE_BYTES])
                content = unseal(nonce, view[at + NONCE_BYTES : min(at + size, length)], None)
                if variant.framed:
                    content = msgpack.unpackb(content)[3]
                if variant.hashed:
                    digest.update(content)
                    hashed += len(content)
                    if hashed >= HASHED_BYTES:
                        digest.digest()
                        digest, hashed = sha256(), 0
                received += len(content)
    return received
