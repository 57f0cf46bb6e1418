"""Identifiers and the ring that they live on (Rowstron & Druschel 2001, sec. 2).

Positions are integers in [0, 2**128): node ids, keys and the places of items are all points of one
ring. Integers inside, 16 big-endian bytes on the wire (`wire/codec.py`), hex for people only.
"""

from hashlib import sha256
from typing import NewType

Position = NewType("Position", int)
"""A point on the ring: 0 <= position < 2**128."""

NodeId = Position
"""The position of a node: the first 16 bytes of SHA-256(public key)."""

Arc = tuple[Position, Position]
"""The clockwise arc [start, end) of positions; start == end is the whole ring."""

Name = NewType("Name", bytes)
"""32 bytes: what an item is stored under. Its first 16 bytes are its position."""

ID_BITS = 128
ID_BYTES = ID_BITS // 8
NAME_BYTES = 32
RING = 1 << ID_BITS
RING_MASK = RING - 1


def node_id_of(public_key: bytes) -> NodeId:
    """Return the id that belongs to a 32-byte X25519 public key."""
    return Position(int.from_bytes(sha256(public_key).digest()[:ID_BYTES], "big"))


def position_of(name: bytes) -> Position:
    """Return where on the ring a 32-byte name lives."""
    return Position(int.from_bytes(name[:ID_BYTES], "big"))


def clockwise(start: int, end: int) -> int:
    """Return the distance from `start` to `end` going clockwise (towards larger ids)."""
    return (end - start) & RING_MASK


def ring_distance(a: int, b: int) -> int:
    """Return the length of the shorter arc between two positions."""
    d = (b - a) & RING_MASK
    return d if d <= RING - d else RING - d


def rank(key: int, node_id: int) -> int:
    """Return a number that orders nodes by closeness to `key`: strict and total, ties go clockwise.

    Without a strict order two nodes at the same distance would both think that they are the root.
    """
    d = (node_id - key) & RING_MASK
    back = RING - d
    return d << 1 if d <= back else (back << 1) | 1


def shared_prefix(a: int, b: int, bits_per_digit: int = 4) -> int:
    """Return how many leading digits two ids share."""
    return (ID_BITS - (a ^ b).bit_length()) // bits_per_digit


def digit(node_id: int, row: int, bits_per_digit: int = 4) -> int:
    """Return digit number `row` of an id, the most significant one being number 0."""
    return (node_id >> (ID_BITS - (row + 1) * bits_per_digit)) & ((1 << bits_per_digit) - 1)


def within(start: int, end: int, position: int) -> bool:
    """Tell whether `position` lies on the clockwise arc [start, end); start == end: the ring."""
    return start == end or (position - start) & RING_MASK < (end - start) & RING_MASK


def overlap(a: Arc, b: Arc) -> list[Arc]:
    """Return the arcs common to two arcs that are both shorter than the ring."""
    start, length = a[0], (a[1] - a[0]) & RING_MASK
    offset = (b[0] - start) & RING_MASK
    reach = offset + ((b[1] - b[0]) & RING_MASK)
    arcs: list[Arc] = []
    if reach > RING:  # b runs over a's start
        arcs.append((start, Position((start + min(length, reach - RING)) & RING_MASK)))
    if offset < length:
        arcs.append((b[0], Position((start + min(length, reach)) & RING_MASK)))
    return arcs
