"""`host:port` as people write it, and what the name service makes of it.

Syntax errors are the caller's (`ConfigError`); a name that does not resolve now may do so later:
that is for the caller to retry.
"""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

from pastryd.errors import ConfigError
from pastryd.net.threads import in_thread
from pastryd.state.handle import Endpoint

DEFAULT_PORT = 4160
ADDRESSES_MAX = 64
SLOW_S = 1.0
"""How long one name may keep those waiting that are known already."""

_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(.*))?")


def parse_endpoint(text: str, lowest_port: int = 1) -> Endpoint:
    """Split `host`, `host:port`, `v6` or `[v6]:port`; the port is 4160 when not given."""
    host, port = _split(text.strip())
    shown = repr(text[:80])
    if not host or re.search(r"[\s/\[\]@]", host) or (":" in host and not _is_ipv6(host)):
        raise ConfigError(f"{shown} is not an address; write host:port or [IPv6 address]:port")
    if port is None:
        return host, DEFAULT_PORT
    if not re.fullmatch("[0-9]{1,20}", port) or not lowest_port <= int(port) < 65_536:
        raise ConfigError(
            f"{shown} has no valid port; write host:port with a port from {lowest_port} to 65535"
        )
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _split(text: str) -> tuple[str, str | None]:
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        return bracketed[1], bracketed[2]
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def parse_listen(text: str) -> Endpoint:
    """Parse where to listen: a numeric address; `:4160` and `*` mean all; port 0 any free one."""
    stripped = text.strip()
    if stripped.startswith((":", "*")) and stripped.count(":") <= 1:
        stripped = "[::]" + stripped.removeprefix("*")
    host, port = parse_endpoint(stripped, lowest_port=0)
    if host == "localhost":
        host = "127.0.0.1"
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        is_ours = not _is_nobodys(host)
    except (OSError, UnicodeError):
        is_ours = False
    if not is_ours:
        raise ConfigError(
            f"cannot listen on {text!r}: write a numeric address of this machine, or [::]:{port}"
        )
    return host, port


def parse_advertise(text: str) -> Endpoint:
    """Parse what others shall be told: an address or a name; port 0: the one we listen on."""
    host, port = parse_endpoint(text)
    address = _numeric(host)
    if _is_nobodys(host) or (address is not None and address.is_unspecified):
        raise ConfigError(
            f"cannot advertise {text!r}: no other machine reaches this one there; give the address "
            "that they use"
        )
    has_port = text.strip() not in (host, f"[{host}]")
    return host, port if has_port else 0


def _is_nobodys(host: str) -> bool:
    """Tell whether no single machine has this address."""
    address = _numeric(host)
    broadcast = IPv4Address("255.255.255.255")
    return address is not None and (address.is_multicast or address == broadcast)


def _numeric(host: str) -> IPv4Address | IPv6Address | None:
    """Return a numeric address; None: it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


async def resolve(endpoint: Endpoint) -> list[Endpoint]:
    """Return all addresses of a name now; none if it does not resolve."""
    host, port = endpoint
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_DGRAM)
    try:
        found = look_up(flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        try:
            found = await in_thread(look_up)
        except (OSError, UnicodeError):
            return []
    addresses = dict.fromkeys((str(address[4][0]), port) for address in found)
    return list(addresses)[:ADDRESSES_MAX]


async def resolve_in_turn(endpoints: Iterable[Endpoint]) -> AsyncGenerator[list[Endpoint], None]:
    """Yield the addresses of several names, in order, each once; those of slow names later."""
    lookups = [asyncio.ensure_future(resolve(endpoint)) for endpoint in endpoints]
    told: set[Endpoint] = set()
    try:
        await asyncio.wait(lookups, timeout=SLOW_S)
        while lookups:
            done = [lookup for lookup in lookups if lookup.done()]
            lookups = [lookup for lookup in lookups if not lookup.done()]
            found = dict.fromkeys(address for lookup in done for address in lookup.result())
            if new := [address for address in found if address not in told]:
                told.update(new)
                yield new
            if lookups:
                await asyncio.wait(lookups, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for lookup in lookups:
            lookup.cancel()


async def resolve_all(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Return all addresses of several names, in order, each once."""
    found = await asyncio.gather(*map(resolve, endpoints))
    return list(dict.fromkeys(address for addresses in found for address in addresses))
