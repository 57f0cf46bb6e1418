"""Invariant: any bytes either are a message within its bounds, or raise `RemoteProtocolError`.

In memory bounded by the input's length. What decodes also encodes, and that decodes to the same.
`scripts/fuzz_decode.py` does this for as long as one likes.
"""

import tracemalloc
from random import Random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pastryd.errors import RemoteProtocolError
from pastryd.wire.codec import SPECIFICATIONS, decode, encode
from tests.fuzz.check import check_bytes
from tests.fuzz.generate import KINDS, Generator

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.binary(max_size=70)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=30,
)


@settings(max_examples=300)
@given(st.binary(max_size=1300))
def test_arbitrary_bytes(data: bytes) -> None:
    check_bytes(data)


@settings(max_examples=300)
@given(st.sampled_from(sorted(SPECIFICATIONS)), st.lists(VALUES, max_size=10))
def test_any_fields_under_any_tag(tag: int, fields: list[object]) -> None:
    check_bytes(msgpack.packb([tag, *fields]))


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_messages_whole_and_damaged(seed: int, kind: type) -> None:
    generator = Generator(Random(seed))
    message = generator.message(kind)
    data = encode(message)
    assert decode(data) == message
    for _ in range(10):
        check_bytes(generator.mutate(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",  # a list of 2**32 - 1
        b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
        b"\x95" * 5000,
        b"\x91" * 100_000,
        b"\xdf\xff\xff\xff\xff" * 200,
        b"\xc9\xff\xff\xff\xff\x01",
    ],
    ids=["list", "bytes", "lists", "deep", "maps", "extension"],
)
def test_lengths_that_lie_cost_nothing(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(data) + 100_000
    finally:
        tracemalloc.stop()
