"""`net/resolve.py`: addresses as people write them."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pastryd.errors import ConfigError
from pastryd.net import resolve as resolver
from pastryd.net.resolve import (
    parse_advertise,
    parse_endpoint,
    parse_listen,
    resolve,
    resolve_all,
    resolve_in_turn,
)
from pastryd.state.handle import show_endpoint


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


def test_a_port_of_any_length_is_an_error_of_one_short_line() -> None:
    for text in (f"node:{'9' * 5_000}", f"node:{'0' * 5_000}x", "n o d e" * 1_000):
        with pytest.raises(ConfigError, match="host:port") as caught:
            parse_endpoint(text)
        assert len(str(caught.value)) < 200
    assert parse_endpoint("node:004160") == ("node", 4160)


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


@pytest.mark.parametrize("host", ["224.0.0.1", "255.255.255.255", "[ff02::1]"])
def test_what_no_single_machine_has_is_nothing_to_listen_on_or_to_advertise(host: str) -> None:
    with pytest.raises(ConfigError, match="numeric address of this machine"):
        parse_listen(f"{host}:4160")
    with pytest.raises(ConfigError, match="the address that they use"):
        parse_advertise(host)


def test_what_to_advertise_is_an_address_or_a_name_with_a_port_or_without() -> None:
    assert parse_advertise("192.0.2.1") == ("192.0.2.1", 0)
    assert parse_advertise("node.example:5000") == ("node.example", 5000)
    assert parse_advertise("[2001:db8::1]") == ("2001:db8::1", 0)
    for wildcard in ("0.0.0.0", "::", "[::]:4160"):
        with pytest.raises(ConfigError, match="the address that they use"):
            parse_advertise(wildcard)


def test_what_is_shown_can_be_parsed_again() -> None:
    for endpoint in (("192.0.2.1", 1), ("2001:db8::1", 2)):
        assert parse_endpoint(show_endpoint(endpoint)) == endpoint


async def test_numeric_addresses_resolve_to_themselves_once_and_unknown_names_to_nothing() -> None:
    given = [("192.0.2.1", 1), ("::1", 2), ("192.0.2.1", 1), ("nowhere.invalid", 3)]
    assert await resolve_all(given) == [("192.0.2.1", 1), ("::1", 2)]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A name service that says where slow.example is when the event is set."""
    may_answer = threading.Event()
    known = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, flags: int = 0, **more: Any) -> Any:
        if host == "slow.example" and not flags & socket.AI_NUMERICHOST:
            may_answer.wait(10)
            host = "192.0.2.2"
        return known(host, *arguments, flags=flags, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(resolver, "SLOW_S", 0.01)
    yield may_answer
    may_answer.set()


def test_who_gives_up_does_not_wait_for_the_name_service(answers: threading.Event) -> None:
    async def give_up() -> None:
        task = asyncio.ensure_future(resolve(("slow.example", 1)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    before = set(threading.enumerate())
    asyncio.run(give_up())
    assert set(threading.enumerate()) - before, "the question is still open"


async def test_slow_names_come_later_than_the_others(answers: threading.Event) -> None:
    found = resolve_in_turn([("slow.example", 1), ("::1", 2), ("nowhere.invalid", 3), ("::1", 2)])
    assert await anext(found) == [("::1", 2)]
    answers.set()
    assert [addresses async for addresses in found] == [[("192.0.2.2", 1)]]


async def test_names_that_are_not_slow_come_together() -> None:
    found = resolve_in_turn([("192.0.2.1", 1), ("::1", 2)])
    assert [addresses async for addresses in found] == [[("192.0.2.1", 1), ("::1", 2)]]
    assert [addresses async for addresses in resolve_in_turn([("nowhere.invalid", 3)])] == []
