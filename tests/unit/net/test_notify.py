"""`net/notify.py`: systemd hears what it asked for."""

import socket
from pathlib import Path

from pastryd.net.notify import notify


def test_the_state_arrives_where_systemd_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        assert notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert systemd.recv(100) == b"READY=1"


def test_an_abstract_address_works() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("")
        name = systemd.getsockname().decode().replace("\0", "@")
        assert notify("STOPPING=1", {"NOTIFY_SOCKET": name})
        assert systemd.recv(100) == b"STOPPING=1"


def test_nobody_asked_or_nobody_listens_is_no_error(tmp_path: Path) -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "vsock:1"})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
