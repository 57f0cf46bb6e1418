"""`net/udp.py`: one socket, both families, every error a value."""

import socket

import pytest

from pastryd.errors import PastryError
from pastryd.net.udp import PortTakenError, UdpSocket, endpoint_of
from pastryd.stats import Stats


def _ready(receiver: UdpSocket) -> tuple[bytes, tuple[str, int]]:
    while (received := receiver.receive()) is None:
        pass
    return received[0], endpoint_of(received[1])


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
    assert UdpSocket(("127.0.0.1", 0), Stats()).receive() is None


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
    assert stats.counters["socket_send_errors"] == 1


def test_the_buffers_are_what_the_kernel_gave() -> None:
    made = UdpSocket(("127.0.0.1", 0), Stats())
    assert made.receive_buffer_bytes >= 1 << 16
    assert 0 < made.window_bytes < made.receive_buffer_bytes
