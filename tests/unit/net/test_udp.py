"""`net/udp.py`: one socket, both families, every error a value."""

import socket
import sys

import pytest

from pastryd.errors import PastryError
from pastryd.net.udp import RECEIVE_BYTES, PortTakenError, UdpSocket, endpoint_of
from pastryd.state.handle import Endpoint
from pastryd.stats import Stats


def _receive(receiver: UdpSocket) -> tuple[list[bytes], Endpoint]:
    """Wait for what comes next, and cut it into datagrams."""
    buffer = bytearray(RECEIVE_BYTES)
    while (received := receiver.receive(buffer)) is None:
        pass
    size, step, address = received
    datagrams = [bytes(buffer[i : min(i + step, size)]) for i in range(0, size, step)]
    return datagrams, endpoint_of(address)


def _ready(receiver: UdpSocket) -> tuple[bytes, Endpoint]:
    (datagram,), endpoint = _receive(receiver)
    return datagram, endpoint


def test_ipv4_and_ipv6_arrive_at_one_socket_and_ipv4_looks_like_ipv4() -> None:
    both, four = UdpSocket(("::", 0), Stats()), UdpSocket(("127.0.0.1", 0), Stats())
    port = both.endpoint[1]
    assert four.send(b"four", ("127.0.0.1", port))
    assert _ready(both) == (b"four", four.endpoint)
    assert both.send(b"back", four.endpoint)
    assert _ready(four) == (b"back", ("127.0.0.1", port))
    if both.speaks_ipv6:
        six = UdpSocket(("::1", 0), Stats())
        assert six.send(b"six", ("::1", port))
        assert _ready(both) == (b"six", six.endpoint)


def test_nothing_to_receive_is_none() -> None:
    assert UdpSocket(("127.0.0.1", 0), Stats()).receive(bytearray(RECEIVE_BYTES)) is None


def test_whether_more_is_here_is_known_without_receiving_it() -> None:
    receiver, sender = UdpSocket(("127.0.0.1", 0), Stats()), UdpSocket(("127.0.0.1", 0), Stats())
    for datagram in (b"one", b"two"):
        assert sender.send(datagram, receiver.endpoint)
    assert _ready(receiver) == (b"one", sender.endpoint)
    assert receiver.has_more()
    assert _ready(receiver) == (b"two", sender.endpoint)
    assert receiver.has_more() == (sys.platform != "linux")


def test_a_taken_port_is_one_line_that_says_what_to_do() -> None:
    first = UdpSocket(("127.0.0.1", 0), Stats())
    with pytest.raises(PortTakenError, match="--listen"):
        UdpSocket(first.endpoint, Stats())
    wildcard = UdpSocket(("::", 0), Stats())
    with pytest.raises(PortTakenError, match="--listen"):
        UdpSocket(("::", wildcard.endpoint[1]), Stats())


def test_an_address_of_another_machine_is_refused_in_one_line() -> None:
    with pytest.raises(PastryError, match="does not have that address"):
        UdpSocket(("192.0.2.1", 0), Stats())


def test_without_ipv6_the_wildcard_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_ipv6", False)
    assert UdpSocket(("::", 0), Stats()).endpoint[0] == "0.0.0.0"


def test_what_cannot_be_sent_is_counted_and_gone() -> None:
    stats = Stats()
    four = UdpSocket(("127.0.0.1", 0), stats)
    for endpoint in (("::1", 1), ("", 1), ("127.0.0.1", 0)):
        assert four.send(b"x", endpoint)
    assert stats.counters == {"datagrams_unroutable": 3}
    assert four.send(bytes(70_000), ("127.0.0.1", 9))
    assert stats.counters["datagrams_too_long"] == 1


@pytest.mark.parametrize(
    "host",
    ["a\0b", "ü" * 70, "\ud800", "name", "::x", "1.2.3.4%1"]
    + [f"fe80::1%{zone}" for zone in ("²", "a\0b", "\ud800", "no-such-zone", 1 << 32)],
)
def test_what_is_no_numeric_address_is_counted_and_raises_nothing(host: str) -> None:
    made = UdpSocket(("::", 0), Stats())
    assert made.send(b"x", (host, 4160))
    assert made.send_train(bytes(20), 10, (host, 4160)) == 20
    assert made.stats.counters == {"datagrams_unroutable": 3}


def test_the_buffers_are_what_the_kernel_gave() -> None:
    made = UdpSocket(("127.0.0.1", 0), Stats())
    assert made.receive_buffer_bytes >= 1 << 16
    assert 0 < made.window_bytes < made.receive_buffer_bytes


@pytest.mark.parametrize("receives", [True, False])
@pytest.mark.parametrize("sends", [True, False])
def test_a_train_arrives_as_its_datagrams_with_offload_on_either_side_or_not(
    sends: bool, receives: bool
) -> None:
    sender = UdpSocket(("127.0.0.1", 0), Stats(), offload=sends)
    receiver = UdpSocket(("::", 0), Stats(), offload=receives)
    to = ("127.0.0.1", receiver.endpoint[1])
    sizes = [700] * 52 + [13]
    datagrams = [bytes([i]) * size for i, size in enumerate(sizes)]
    train = b"".join(datagrams)
    assert sender.send_train(train, 700, to) == len(train)
    arrived: list[bytes] = []
    while len(arrived) < len(datagrams):
        more, endpoint = _receive(receiver)
        assert endpoint == sender.endpoint
        arrived += more
    assert arrived == datagrams
    assert sender.send_train(b"lone", 4, to) == 4
    assert _ready(receiver) == (b"lone", sender.endpoint)
    assert not sender.stats.counters


def test_a_device_that_refuses_offload_gets_the_datagrams_one_by_one() -> None:
    stats = Stats()
    sender, receiver = (
        UdpSocket(("127.0.0.1", 0), stats),
        UdpSocket(("127.0.0.1", 0), Stats(), offload=False),
    )
    # More datagrams than the kernel takes at once: it answers EINVAL, as for what it cannot do.
    train = bytes(1000)
    assert sender.send_train(train, 1, receiver.endpoint) == 1000
    assert _ready(receiver) == (b"\0", sender.endpoint)
    assert stats.counters in ({"segmentation_offload_refused": 1}, {})


def test_a_train_for_nowhere_is_counted_and_gone() -> None:
    four = UdpSocket(("127.0.0.1", 0), Stats())
    assert four.send_train(bytes(20), 10, ("::1", 1)) == 20
    assert four.stats.counters == {"datagrams_unroutable": 2}
