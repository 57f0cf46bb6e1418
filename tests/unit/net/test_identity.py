"""`net/identity.py`: a node is the same node after a restart, in a higher incarnation."""

import pytest

from pastryd.errors import StoreError
from pastryd.net import identity
from pastryd.net.identity import Identity, remember_peers, remembered_peers


class Meta:
    """Meta values in a dictionary."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.writes = 0

    def get_meta(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put_meta(self, key: str, value: bytes) -> None:
        self.values[key] = value
        self.writes += 1


class Broken(Meta):
    """A disk that may refuse to write."""

    is_broken = False

    def put_meta(self, key: str, value: bytes) -> None:
        if self.is_broken:
            raise StoreError("read-only file system")
        super().put_meta(key, value)


def test_the_key_is_made_once() -> None:
    meta = Meta()
    assert Identity(meta, 1000).public_key == Identity(meta, 2000).public_key


def test_the_incarnation_is_the_boot_time() -> None:
    meta = Meta()
    assert Identity(meta, 1_700_000_000_000).incarnation == 1_700_000_000_000
    assert Identity(meta, 1_700_000_900_000).incarnation == 1_700_000_900_000


def test_the_incarnation_grows_even_when_the_clock_goes_back() -> None:
    meta = Meta()
    used = [Identity(meta, now).incarnation for now in (5_000_000, 4_000_000, 4_000_000, 0)]
    assert used == sorted(set(used))


def test_an_incarnation_reached_by_refutations_is_never_used_by_a_later_life() -> None:
    meta = Meta()
    first = Identity(meta, 5_000_000)
    writes = meta.writes
    first.claim(first.incarnation + 1)
    assert meta.writes == writes
    first.claim(first.incarnation + 1_000_000)
    assert Identity(meta, 5_000_000).incarnation > first.incarnation + 1_000_000


def test_an_incarnation_beyond_one_that_could_not_be_written_has_to_be_written_too() -> None:
    meta = Broken()
    first = Identity(meta, 5_000_000)
    meta.is_broken = True
    used = first.incarnation + 1_000_000
    for incarnation in (used, used + 1):
        with pytest.raises(StoreError):
            first.claim(incarnation)
    meta.is_broken = False
    first.claim(used + 2)
    assert Identity(meta, 5_000_000).incarnation > used + 2


def test_a_damaged_key_is_told_and_not_replaced() -> None:
    meta = Meta()
    meta.values[identity.KEY] = b"short"
    with pytest.raises(StoreError):
        Identity(meta, 1)


def test_peers_are_remembered_within_bounds_and_damage_is_forgotten() -> None:
    meta = Meta()
    assert remembered_peers(meta) == []
    remember_peers(meta, [(f"192.0.2.{i}", 4160) for i in range(100)])
    assert remembered_peers(meta) == [(f"192.0.2.{i}", 4160) for i in range(64)]
    for damaged in (b"", b"\xc1", b"\x01", b"\x91\x01"):
        meta.values[identity.REMEMBERED] = damaged
        assert remembered_peers(meta) == []
