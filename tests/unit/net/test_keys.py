"""`net/keys.py`: the network key of a file, and HKDF as RFC 5869 has it."""

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


def test_a_missing_or_empty_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read network key file"):
        read_network_key(tmp_path / "missing")
    empty = tmp_path / "empty"
    empty.write_bytes(b" \n")
    with pytest.raises(ConfigError, match="empty"):
        read_network_key(empty)
