"""What takes part in the comparison: a system of processes that stores values under names.

Values are made of numbers, so that those who run in processes of their own have the same ones.
"""

import socket
from pathlib import Path
from random import Random
from typing import Protocol

VALUE_BYTES = 1024
NUMBER_BYTES = 8
_REST = Random(1).randbytes(VALUE_BYTES - NUMBER_BYTES)


class MissingError(Exception):
    """What a contestant needs is not installed; the text says how to install it."""


class Contestant(Protocol):
    """A system under test, started. `put` and `get` name values by number; failures raise."""

    name: str
    keeps: str
    """How many copies, and where, when a put has returned."""
    pids: list[int]

    async def start(self, directory: Path) -> None:
        """Start all processes and connect the clients; raises MissingError."""

    async def one_by_one(self, verb: str, numbers: range) -> list[float]:
        """Put or get values from one client, one after the other; return the latencies in ms."""

    async def in_flight(self, verb: str, numbers: range) -> float:
        """Put or get values, 24 under way over all clients; return the seconds that all took."""

    async def stop(self) -> None:
        """End all processes."""


class BlobContestant(Contestant, Protocol):
    """One that takes large values, too."""

    async def put_blob(self, name: str, blob: bytes) -> None:
        """Store a large value."""

    async def get_blob(self, name: str) -> bytes:
        """Return a large value."""


def value_of(number: int) -> bytes:
    """Return the value with this number; made in the time of an operation, so it takes none."""
    return number.to_bytes(NUMBER_BYTES, "big", signed=True) + _REST


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a loopback port that nobody has at the moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
