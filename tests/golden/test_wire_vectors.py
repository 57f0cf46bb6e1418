"""The bytes of every message are pinned, and `docs/wire.md` says the same as the codec.

A change of a golden file breaks nodes in the field: its commit says why. To write them anew:
`REWRITE_GOLDEN=1 pytest tests/golden`.
"""

import os
from pathlib import Path
from typing import get_args

import pytest

from pastryd.wire import messages as m
from pastryd.wire.codec import SPECIFICATIONS, decode, encode
from tests.support.wire_samples import SAMPLES, message_table

VECTORS = Path(__file__).parent / "wire"
PAGE = Path(__file__).parents[2] / "docs" / "wire.md"
REWRITE = bool(os.environ.get("REWRITE_GOLDEN"))
_BEGIN, _END = "<!-- messages: begin -->\n", "\n<!-- messages: end -->"


def _path(message: m.Message) -> Path:
    return VECTORS / f"{type(message).__name__}.hex"


def _as_text(message: m.Message) -> str:
    fields = "".join(f"# {name} = {value!r}\n" for name, value in message._asdict().items())
    encoded = encode(message).hex()
    lines = [encoded[i : i + 96] for i in range(0, len(encoded), 96)]
    return f"# {type(message).__name__}\n{fields}" + "\n".join(lines) + "\n"


def _vector(path: Path) -> bytes:
    lines = path.read_text("utf-8").splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))


def test_every_message_has_a_sample_and_no_vector_is_left_over() -> None:
    kinds = {kind for kind in get_args(m.Message)}
    assert {type(sample) for sample in SAMPLES} == kinds
    assert {kind for kind, _ in SPECIFICATIONS.values()} | {m.Segment} == kinds
    assert {p.stem for p in VECTORS.glob("*.hex")} == {kind.__name__ for kind in kinds}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_a_message_has_the_bytes_that_it_always_had(sample: m.Message) -> None:
    path = _path(sample)
    if REWRITE:
        path.write_text(_as_text(sample), "utf-8")
    vector = _vector(path)
    decoded = decode(vector)
    assert decoded == sample
    assert encode(decoded) == vector
    assert path.read_text("utf-8") == _as_text(sample)


def test_the_page_lists_every_message_as_the_codec_checks_it() -> None:
    text = PAGE.read_text("utf-8")
    head, rest = text.split(_BEGIN)
    table, tail = rest.split(_END)
    if REWRITE:
        PAGE.write_text(head + _BEGIN + message_table() + _END + tail, "utf-8")
        table = message_table()
    assert table == message_table()
