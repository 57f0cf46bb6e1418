"""`net/keys.py`: the network key of a file, and HKDF as RFC 5869 has it."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from pastryd.errors import ConfigError
from pastryd.net.keys import (
    PUBLIC_NETWORK_KEY,
    derive_network_key,
    expand,
    extract,
    read_network_key,
)

NOBODY = 65_534


@given(st.binary(), st.binary(min_size=1), st.binary())
def test_one_block_of_hkdf_is_what_the_standard_says(salt: bytes, key: bytes, info: bytes) -> None:
    assert expand(extract(salt, key), info) == HKDF(SHA256(), 32, salt, info).derive(key)


def test_space_around_a_key_does_not_count() -> None:
    assert derive_network_key(b"secret") == derive_network_key(b"  secret\r\n")
    assert derive_network_key(b"secret") != derive_network_key(b"secret2")


def test_no_file_means_the_public_key() -> None:
    assert read_network_key(None) == PUBLIC_NETWORK_KEY


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text("secret")
    assert read_network_key(Path("~/key")) == derive_network_key(b"secret")
    with pytest.raises(ConfigError, match="cannot read network key file"):
        read_network_key(Path("~nobody-of-this-name/key"))


def test_a_file_that_gives_no_key_is_told_in_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    empty, large = tmp_path / "empty", tmp_path / "large"
    empty.write_bytes(b" \n")
    large.write_bytes(bytes((1 << 20) + 1))
    for path, what in [
        (tmp_path / "missing", "No such file or directory; create it, or name another"),
        (empty / "key", "Not a directory; correct the path, or name another"),
        (tmp_path, "it is a directory; name the file in it, or name another"),
        (empty, "is empty; put at least one line of secret text into it"),
        (large, "is larger than 1 MiB; is it the right file?"),
        (Path("/dev/zero"), "is larger than 1 MiB; is it the right file?"),
        (Path("a\0b"), "no path has a zero byte"),
    ]:
        with pytest.raises(ConfigError) as caught:
            read_network_key(path)
        assert what in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_others_alone_may_read_is_not_to_be_created(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret")
    path.chmod(0)
    line, user = as_nobody(partial(read_network_key, path))
    assert "create" not in line
    assert f"Permission denied; have user {user} read it and the directories it is in" in line


def as_nobody(call: Callable[[], object]) -> tuple[str, int]:
    """Return what a call raises for a user who may not read everything, and the user's number."""
    if os.geteuid():
        with pytest.raises(ConfigError) as caught:
            call()
        return str(caught.value), os.geteuid()
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setuid(NOBODY)
            call()
        except ConfigError as error:
            os.write(writes, str(error).encode())
        finally:
            os._exit(0)
    os.close(writes)
    os.waitpid(child, 0)
    with os.fdopen(reads) as told:
        return told.read(), NOBODY
