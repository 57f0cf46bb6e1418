"""The one UDP socket of a node or a client.

Owns address families: an IPv6 socket speaks IPv4 too, and the core sees such peers as plain IPv4.
Everything that the kernel may answer is turned into a value or a counter here. It knows no seals.

Datagrams of one size to one address may travel together, as a *train*: one system call hands it to
the kernel (UDP_SEGMENT) or takes it (UDP_GRO). Both are probed when the socket is made; without
them the same methods send and receive the datagrams one by one.
"""

import errno
import os
import socket
import struct
import sys
from ipaddress import ip_address

from pastryd.errors import PastryError
from pastryd.net.seal import Address
from pastryd.state.handle import Endpoint, show_endpoint
from pastryd.stats import Stats

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import FIONREAD

RECEIVE_BYTES = 65_535
"""The longest datagram, and the longest train, that there is."""

DATAGRAM_BYTES_MAX = 65_000
DATAGRAM_BYTES_ANYWHERE = 1200
"""With and without the kernel's promise that nothing is cut into fragments."""

TRAIN_BYTES_MAX = 65_000
TRAIN_DATAGRAMS_MAX = 64
"""What UDP_SEGMENT takes in one call, headers left room for."""

BUFFER_BYTES = 4 << 20
WINDOW_BYTES_MAX = 6 << 20
ADDRESSES_KEPT = 65_536
ERRORS_SKIPPED_MAX = 8

_MAPPED = "::ffff:"
# Linux only, and not in the socket module: they need CAP_NET_ADMIN but ignore rmem_max.
_FORCE = {socket.SO_RCVBUF: 33, socket.SO_SNDBUF: 32}
_WILDCARDS = ("", "::")
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_STEP = struct.Struct("=H")
_GRO_STEP = struct.Struct("=i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_GRO_STEP.size)
_NOTHING = bytes(4)
_NO_OFFLOAD = (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP)


class PortTakenError(PastryError):
    """Somebody else has the port."""


def endpoint_of(address: Address) -> Endpoint:
    """Return the endpoint that the core shall see: mapped IPv4 is IPv4."""
    host = address[0]
    if host.startswith(_MAPPED):
        host = host[len(_MAPPED) :]
    return host, address[1]


class UdpSocket:
    """A bound, non-blocking UDP socket."""

    __slots__ = (
        "_addresses",
        "_is_ipv6",
        "_receives_trains",
        "_sends_trains",
        "_socket",
        "_waiting",
        "datagram_bytes_max",
        "stats",
    )

    def __init__(self, listen: Endpoint, stats: Stats, offload: bool = True) -> None:
        """Bind to a numeric address. `::` hears IPv4 too, and is 0.0.0.0 where IPv6 is missing.

        `offload` False: not even where the kernel can. Raises `PastryError`, one line that says
        what to do.
        """
        self.stats = stats
        self._addresses: dict[Endpoint, Address | None] = {}
        self._socket = _bind(listen)
        self._is_ipv6 = self._socket.family == socket.AF_INET6
        self._socket.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            _enlarge(self._socket, option)
        self._sends_trains = offload and _accepts(self._socket, _UDP_SEGMENT, 0)
        self._receives_trains = offload and _accepts(self._socket, _UDP_GRO, 1)
        self._waiting = bytearray(_NOTHING)
        self.datagram_bytes_max = (
            DATAGRAM_BYTES_MAX if _forbid_fragments(self._socket) else DATAGRAM_BYTES_ANYWHERE
        )
        """The longest datagram worth trying: with fragments no path would seem too narrow."""

    def fileno(self) -> int:
        """Return the descriptor, for the event loop."""
        return self._socket.fileno()

    @property
    def endpoint(self) -> Endpoint:
        """Where it is bound."""
        return endpoint_of(self._socket.getsockname())

    @property
    def speaks_ipv6(self) -> bool:
        """Whether IPv6 peers can be reached at all."""
        return self._is_ipv6

    @property
    def receive_buffer_bytes(self) -> int:
        """What the kernel gave; Linux reports it doubled, for its own overhead."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def window_bytes(self) -> int:
        """How much of the buffer pulls may count on: the rest is for those who did not ask."""
        return min(WINDOW_BYTES_MAX, self.receive_buffer_bytes * 7 // 8)

    def receive(self, buffer: bytearray) -> tuple[int, int, Address] | None:
        """Take what is next into a buffer of `RECEIVE_BYTES`; None when there is nothing now.

        Returns how many bytes, the size of each datagram in them (the last may be shorter), and
        where they came from.
        """
        made = self._socket
        for _ in range(ERRORS_SKIPPED_MAX):
            try:
                if not self._receives_trains:
                    size, address = made.recvfrom_into(buffer)
                    return size, size, address
                size, ancillary, _, address = made.recvmsg_into((buffer,), _ANCILLARY_BYTES)
                # No other ancillary data was asked for.
                return size, _GRO_STEP.unpack(ancillary[0][2])[0] if ancillary else size, address
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                # ICMP answers to what we sent earlier: liveness is the core's business.
                self.stats.count("socket_receive_errors")
        return None

    def has_more(self) -> bool:
        """Tell whether another datagram is here, an empty one aside; True where nobody knows.

        To receive in vain costs an exception, which is slow when it is rare.
        """
        if sys.platform != "linux":
            return True
        waiting = self._waiting
        ioctl(self._socket.fileno(), FIONREAD, waiting)
        return waiting != _NOTHING

    def send(self, datagram: bytes | memoryview, endpoint: Endpoint) -> bool:
        """Send a datagram; False when the kernel has no room now. All other errors are counted."""
        try:
            address = self._addresses[endpoint]
        except KeyError:
            address = self._address_of(endpoint)
        if address is None:
            self.stats.count("datagrams_unroutable")
            return True
        try:
            self._socket.sendto(datagram, address)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return False
            too_long = error.errno == errno.EMSGSIZE
            self.stats.count("datagrams_too_long" if too_long else "socket_send_errors")
        return True

    def send_train(self, train: bytes, step: int, endpoint: Endpoint) -> int:
        """Send datagrams of `step` bytes each, the last may be shorter; return how many bytes left.

        At most `TRAIN_BYTES_MAX` and `TRAIN_DATAGRAMS_MAX`. Less than all of it: no room now.
        """
        address = self._addresses.get(endpoint) or self._address_of(endpoint)
        if self._sends_trains and address is not None:
            option = (_SOL_UDP, _UDP_SEGMENT, _STEP.pack(step))
            try:
                self._socket.sendmsg((train,), (option,), 0, address)
                return len(train)
            except (BlockingIOError, InterruptedError):
                return 0
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    return 0
                # Some devices and tunnels cannot, whatever the socket said when it was made. Long
                # datagrams may be refused for their length: then one by one, this time.
                if error.errno in _NO_OFFLOAD and step <= DATAGRAM_BYTES_ANYWHERE:
                    self.stats.count("segmentation_offload_refused")
                    self._sends_trains = False
        view = memoryview(train)
        for start in range(0, len(train), step):
            if not self.send(view[start : start + step], endpoint):
                return start
        return len(train)

    def close(self) -> None:
        """Close it; closing twice is fine."""
        self._socket.close()

    def _address_of(self, endpoint: Endpoint) -> Address | None:
        """Return what the kernel wants to hear for an endpoint; None: not with this socket."""
        host, port = endpoint
        address: Address | None
        if not _is_numeric(host) or not 0 < port < 65_536:
            address = None
        elif ":" not in host:
            address = (_MAPPED + host, port) if self._is_ipv6 else endpoint
        elif not self._is_ipv6:
            address = None
        else:
            address = _scoped(host, port)
        if len(self._addresses) >= ADDRESSES_KEPT:
            self._addresses.clear()
        self._addresses[endpoint] = address
        return address


def _is_numeric(host: str) -> bool:
    """Tell an IP address from all else, which the kernel's side would resolve, or raise at."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _scoped(host: str, port: int) -> Address | None:
    """Resolve a zone (`fe80::1%eth0`) once, not on each send."""
    bare, _, zone = host.partition("%")
    if not zone:
        return host, port
    try:
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    except (OSError, ValueError):
        return None
    return (bare, port, 0, scope) if scope < 1 << 32 else None


def _bind(listen: Endpoint) -> socket.socket:
    host, port = listen
    if host not in _WILDCARDS:
        return _bind_one(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port)
    if socket.has_ipv6:
        try:
            return _bind_one(socket.AF_INET6, "::", port)
        except PortTakenError:
            raise
        except PastryError:
            # No IPv6 in this kernel or this container: IPv4 alone is not worth a complaint.
            pass
    return _bind_one(socket.AF_INET, "0.0.0.0", port)


def _bind_one(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    shown = show_endpoint((host, port))
    try:
        made = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise _listen_error(shown, error) from error
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(_scoped(host, port) or (host, port))
    except OSError as error:
        made.close()
        raise _listen_error(shown, error) from error
    return made


def _listen_error(shown: str, error: OSError) -> PastryError:
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(
            f"UDP {shown} is in use, perhaps by another pastryd; "
            "stop that one or choose another with --listen"
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EADDRNOTAVAIL:
        reason = "this machine does not have that address"
    elif error.errno == errno.EACCES:
        reason = "not allowed (ports below 1024 need privileges)"
    return PastryError(f"cannot listen on UDP {shown}: {reason}; choose another with --listen")


def _accepts(made: socket.socket, option: int, value: int) -> bool:
    """Set an option of Linux' UDP; tell whether this kernel has it."""
    if sys.platform != "linux":
        return False
    try:
        made.setsockopt(_SOL_UDP, option, value)
    except OSError:
        return False
    return True


def _forbid_fragments(made: socket.socket) -> bool:
    """Set DF, and have no opinion of the path's limit: what is too long shall vanish."""
    if sys.platform != "linux":
        return False
    try:
        made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    except OSError:
        return False
    return True


def _enlarge(made: socket.socket, option: int) -> None:
    if sys.platform == "linux":
        try:
            made.setsockopt(socket.SOL_SOCKET, _FORCE[option], BUFFER_BYTES)
            return
        except OSError:
            pass  # not privileged: net.core.rmem_max is the limit then
    size = BUFFER_BYTES
    while size >= 1 << 16:
        try:
            made.setsockopt(socket.SOL_SOCKET, option, size)
            return
        except OSError:
            size //= 2  # BSDs refuse instead of clamping
