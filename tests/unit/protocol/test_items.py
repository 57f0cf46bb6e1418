"""Items verify themselves; manifests are deterministic, their decoding total (DESIGN sec. 6)."""

from hashlib import sha256

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.errors import LocalProtocolError, RemoteProtocolError
from pastryd.ids import Name, position_of
from pastryd.protocol import items
from pastryd.protocol.items import (
    CHUNK_BYTES,
    FANOUT,
    IndexEntry,
    Manifest,
    ManifestBuilder,
    is_record_of,
    name_of,
    span_of,
    verify,
)

KEY = Name(sha256(b"a blob").digest())
ROOT = Name(sha256(b"a manifest").digest())


def build(sizes: list[int]) -> list[tuple[Name, bytes]]:
    builder = ManifestBuilder()
    objects = []
    for i, size in enumerate(sizes):
        objects += builder.add(Name(sha256(b"%d" % i).digest()), size)
    return objects + builder.finish()


def test_an_object_is_verified_by_its_hash():
    assert verify(name_of(b"abc"), b"abc")
    assert not verify(name_of(b"abc"), b"abd")
    assert verify(name_of(b""), b"")
    assert verify(name_of(b"abc"), memoryview(b"abc"))


def test_an_index_entry_lives_at_its_keys_position_and_verifies_itself():
    entry = IndexEntry(KEY, ROOT, CHUNK_BYTES + 1)
    assert position_of(entry.name) == position_of(KEY)
    assert verify(entry.name, entry.encode())
    assert IndexEntry.decode(entry.encode()) == entry
    assert is_record_of(KEY, entry.encode())
    assert not is_record_of(ROOT, entry.encode())


def test_an_index_entry_at_another_keys_position_is_refused():
    entry = IndexEntry(KEY, ROOT, CHUNK_BYTES + 1)
    stolen = Name(ROOT[:16] + entry.name[16:])
    assert not verify(stolen, entry.encode())


@given(st.binary(max_size=120))
def test_index_entries_decode_or_raise(data):
    try:
        entry = IndexEntry.decode(data)
    except RemoteProtocolError:
        return
    assert entry.encode() == data


def test_a_manifest_lists_what_was_added_and_equal_blobs_share_it():
    sizes = [CHUNK_BYTES] * 3 + [5]
    (name, value), *rest = build(sizes)
    assert not rest
    assert build(sizes) == [(name, value)]
    manifest = Manifest.decode(value, sum(sizes))
    assert manifest.level == 0
    assert [size for _, size in manifest.parts()] == sizes
    assert manifest.part(3)[0] == sha256(b"3").digest()


def test_a_blob_of_more_chunks_than_a_manifest_holds_gets_a_tree(monkeypatch):
    monkeypatch.setattr(items, "FANOUT", 4)
    sizes = [CHUNK_BYTES] * 18 + [7]
    objects = dict(build(sizes))
    root_name, root_value = build(sizes)[-1]

    def walk(name, size, level=None):
        manifest = Manifest.decode(objects[name], size, level)
        for part, part_size in manifest.parts():
            if manifest.level:
                yield from walk(part, part_size, manifest.level - 1)
            else:
                yield part, part_size

    found = list(walk(root_name, sum(sizes)))
    assert [size for _, size in found] == sizes
    assert [name for name, _ in found] == [sha256(b"%d" % i).digest() for i in range(19)]
    assert Manifest.decode(root_value, sum(sizes)).level == 2


def test_a_full_manifest_is_the_root_itself(monkeypatch):
    monkeypatch.setattr(items, "FANOUT", 4)
    objects = build([CHUNK_BYTES] * 4)
    assert len(objects) == 1
    assert Manifest.decode(objects[0][1], 4 * CHUNK_BYTES).level == 0


def test_the_largest_manifest_fits_in_an_object():
    manifest = Manifest(1, items.BLOB_BYTES_MAX, bytes(32 * FANOUT))
    assert len(manifest.encode()) <= OBJECT_BYTES_MAX


def test_a_chunk_after_a_short_one_is_refused():
    builder = ManifestBuilder()
    builder.add(KEY, 10)
    with pytest.raises(LocalProtocolError):
        builder.add(KEY, CHUNK_BYTES)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        msgpack.packb([]),
        msgpack.packb(["pastry-manifest-1", 0, 5, b"x" * 31]),
        msgpack.packb(["pastry-manifest-1", 3, 5, b"x" * 32]),
        msgpack.packb(["pastry-manifest-1", 0, 5, b"x" * 64]),
        msgpack.packb(["pastry-manifest-1", True, 5, b"x" * 32]),
        msgpack.packb(["pastry-manifest-2", 0, 5, b"x" * 32]),
        msgpack.packb(["pastry-manifest-1", 0, 6, b"x" * 32]),
    ],
)
def test_a_hostile_manifest_is_refused(value):
    with pytest.raises(RemoteProtocolError):
        Manifest.decode(value, 5)


def test_a_child_must_have_the_level_below_its_parents():
    (_, value), *_ = build([CHUNK_BYTES, 1])
    with pytest.raises(RemoteProtocolError):
        Manifest.decode(value, CHUNK_BYTES + 1, level=1)


@given(st.binary(max_size=200), st.integers(0, 1 << 62))
def test_manifests_decode_or_raise(data, size):
    try:
        manifest = Manifest.decode(data, size)
    except RemoteProtocolError:
        return
    assert sum(s for _, s in manifest.parts()) == size


def test_spans_grow_by_the_fanout():
    assert span_of(0) == CHUNK_BYTES
    assert span_of(1) == CHUNK_BYTES * FANOUT
