"""`net/resolve.py`: addresses as people write them."""

import pytest

from pastryd.errors import ConfigError
from pastryd.net.resolve import parse_endpoint, parse_listen, resolve_all, show_endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("node", ("node", 4160)),
        ("node:1", ("node", 1)),
        ("192.0.2.1:4161", ("192.0.2.1", 4161)),
        ("[2001:db8::1]:4161", ("2001:db8::1", 4161)),
        ("[2001:db8::1]", ("2001:db8::1", 4160)),
        ("2001:db8::1", ("2001:db8::1", 4160)),
        (" node:1 ", ("node", 1)),
    ],
)
def test_every_usual_form_is_understood(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "node:",
        "node:x",
        "node:0",
        "node:65536",
        "http://node:1",
        "[::1]:x",
        "a b",
        "a:b:",
    ],
)
def test_anything_else_is_one_line_that_says_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("[::]:4160", ("::", 4160)),
        (":5000", ("::", 5000)),
        ("*:5000", ("::", 5000)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("::1", ("::1", 4160)),
    ],
)
def test_where_to_listen_is_a_numeric_address(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_listen(text) == endpoint


def test_a_name_is_nothing_to_listen_on() -> None:
    with pytest.raises(ConfigError, match="numeric"):
        parse_listen("node.example:4160")


def test_what_is_shown_can_be_parsed_again() -> None:
    for endpoint in (("192.0.2.1", 1), ("2001:db8::1", 2)):
        assert parse_endpoint(show_endpoint(endpoint)) == endpoint


async def test_numeric_addresses_resolve_to_themselves_once_and_unknown_names_to_nothing() -> None:
    given = [("192.0.2.1", 1), ("::1", 2), ("192.0.2.1", 1), ("nowhere.invalid", 3)]
    assert await resolve_all(given) == [("192.0.2.1", 1), ("::1", 2)]
