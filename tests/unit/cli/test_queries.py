"""Whatever a node answers, it is printed or refused in one line."""

import pytest

from pastryd.cli.common import Common
from pastryd.cli.queries import _print
from pastryd.errors import CorruptError


@pytest.mark.parametrize("as_json", [True, False])
def test_a_document_that_is_nested_too_deeply_is_refused(as_json: bool) -> None:
    document: dict[str, object] = {}
    for _ in range(5_000):
        document = {"inner": document}
    with pytest.raises(CorruptError):
        _print(document, Common((), None, None, as_json))


def test_half_a_character_in_an_answer_is_printed_as_something(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    _print({"name": "a\ud800b"}, Common((), None, None, False))
    assert b"a?b" in capsysbinary.readouterr().out
