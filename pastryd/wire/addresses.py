"""IP addresses as they travel: 4 or 16 bytes, none for «not known yet»."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from pastryd.errors import RemoteProtocolError


@lru_cache(131_072)
def host_to_bytes(host: str) -> bytes:
    """Return the packed form of a numeric address; an IPv4 one inside IPv6 travels as IPv4."""
    if not host:
        return b""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.packed


@lru_cache(131_072)
def host_from_bytes(packed: bytes) -> str:
    """Return the numeric form. Raises `RemoteProtocolError` for any other length."""
    if len(packed) == 4:
        return str(IPv4Address(packed))
    if len(packed) == 16:
        return str(IPv6Address(packed))
    if not packed:
        return ""
    raise RemoteProtocolError("not an address")
