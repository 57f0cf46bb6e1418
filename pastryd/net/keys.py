"""Where keys come from: the network key, and HKDF-SHA256 (RFC 5869) for one 32-byte output.

Knows neither peers nor datagrams. The standard library's HMAC does an expansion in 1.5 µs, half of
what a general HKDF object costs.
"""

import errno
import hmac
import os
from hashlib import sha256
from pathlib import Path

from pastryd.errors import ConfigError

PUBLIC_NETWORK_KEY = sha256(b"pastryd public network key").digest()
"""Used when no network key is given: anybody who finds such a network may join it."""

_NETWORK_LABEL = b"pastryd network key"
_KEY_FILE_BYTES_MAX = 1 << 20


def extract(salt: bytes, secret: bytes) -> bytes:
    """Return HKDF's pseudorandom key."""
    return hmac.digest(salt, secret, "sha256")


def expand(pseudorandom_key: bytes, info: bytes) -> bytes:
    """Return the first 32 bytes that HKDF expands to."""
    return hmac.digest(pseudorandom_key, info + b"\x01", "sha256")


def derive_network_key(content: bytes) -> bytes:
    """Return the network key that a key file's content stands for; space around it is ignored."""
    stripped = content.strip()
    if not stripped:
        raise ConfigError("the network key is empty; give at least one line of secret text")
    return expand(extract(_NETWORK_LABEL, stripped), b"")


def read_network_key(path: Path | None) -> bytes:
    """Return the network key of a key file, the public one for None; `~` is the home directory.

    Raises `ConfigError`.
    """
    if path is None:
        return PUBLIC_NETWORK_KEY
    path = Path(os.path.expanduser(path))
    try:
        with path.open("rb") as file:
            content = file.read(_KEY_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read network key file {path}: {_what_to_do(error)}, or name another "
            "with --network-key-file"
        ) from error
    if len(content) > _KEY_FILE_BYTES_MAX:
        raise ConfigError(f"network key file {path} is larger than 1 MiB; is it the right file?")
    try:
        return derive_network_key(content)
    except ConfigError:
        raise ConfigError(
            f"network key file {path} is empty; put at least one line of secret text into it"
        ) from None


def _what_to_do(error: OSError | ValueError) -> str:
    """Return why a file cannot be read, and what helps."""
    if not isinstance(error, OSError):
        return "no path has a zero byte; correct it"
    if isinstance(error, IsADirectoryError):
        return "it is a directory; name the file in it"
    if isinstance(error, FileNotFoundError):
        advice = "create it"
    elif isinstance(error, PermissionError):
        advice = f"have user {os.geteuid()} read it and the directories it is in (chown, chmod)"
    elif error.errno == errno.EIO:
        advice = "check the disk"
    else:
        advice = "correct the path"
    return f"{error.strerror}; {advice}"
