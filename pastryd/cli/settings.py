"""Settings of the daemon: where they come from, what they may be.

One precedence, for every setting: command line, then `PASTRYD_*` environment, then the TOML file,
then the default. A setting has one name: `data-dir` is `--data-dir`, `PASTRYD_DATA_DIR` and
`data-dir = ...` in the file.
The file may also hold a `[protocol]` table that overrides single parameters of the preset
(`pastryd/config.py`). What the settings are used for is `cli/daemon.py`'s business.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from pastryd.config import Config
from pastryd.errors import ConfigError

PORT = 4160
ENVIRONMENT_PREFIX = "PASTRYD_"
FILE_CHARS_MAX = 1 << 20
"""A device or the wrong file must not be read for ever."""

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kmgtp])(i?)b?|b)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Value = object
"""A raw setting: text from the command line or the environment, any TOML value from the file."""


def default_data_dir() -> Path:
    """Return where a daemon keeps its identity and its objects when it was not told."""
    import platformdirs  # noqa: PLC0415  (only when the default is wanted)

    return platformdirs.user_data_path("pastryd")


def default_config_file() -> Path:
    """Return the settings file that is read, if it exists, when none was named."""
    import platformdirs  # noqa: PLC0415

    return platformdirs.user_config_path("pastryd") / "config.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `pastryd start` was told; the fields are the settings, with `_` for `-`."""

    bootstrap: tuple[str, ...] = ()
    bootstrap_timeout: float | None = None
    """Seconds; None: keep trying for ever."""
    listen: str = f"[::]:{PORT}"
    advertise: str | None = None
    data_dir: Path = field(default_factory=default_data_dir)
    replicas: int = 3
    capacity: int | None = None
    """Bytes; None: as much as the disk has."""
    network_key_file: Path | None = None
    preset: str = "lan"
    log_format: str = "console"
    log_level: str = "info"
    record: Path | None = None
    """Where to write what the node is told, for a replay."""
    protocol: tuple[tuple[str, int | float], ...] = ()
    """Overrides of single protocol parameters, from the file only."""

    def config(self) -> Config:
        """Return the protocol's parameters; `ConfigError` when they contradict each other."""
        preset = Config.wan if self.preset == "wan" else Config.lan
        return replace(preset(replicas=self.replicas), **dict(self.protocol))  # type: ignore[arg-type]


SIZE_MAX = 10**18
DURATION_MAX_S = 1e9
"""More is a slip of the hand, and at some point no number of the machine's."""


def parse_size(value: Value) -> int:
    """Return bytes: `10GB` (powers of 1000), `500MiB` (powers of 1024), or a plain number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= SIZE_MAX:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ConfigError("give a size such as 10GB, 500MiB or a number of bytes")
    number, prefix, binary = match.groups()
    exponent = " kmgtp".index(prefix.lower()) if prefix else 0
    size = float(number) * (1024 if binary else 1000) ** exponent
    if not 1 <= size <= SIZE_MAX:
        raise ConfigError("give a size above 0, and of at most a million TB")
    return int(size)


def parse_duration(value: Value) -> float:
    """Return seconds: `30`, `1.5s`, `500ms`, `2m`, `1h`."""
    match = None if isinstance(value, bool) else _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ConfigError("give a time such as 30, 30s, 500ms or 2m")
    seconds = float(match[1]) * _DURATION_UNITS[match[2] or "s"]
    if seconds > DURATION_MAX_S:
        raise ConfigError("give a time of at most 30 years")
    return seconds


def _replicas(value: Value) -> int:
    try:
        number = value if isinstance(value, int) else int(str(value))
    except ValueError:
        raise ConfigError("give a whole number, 3 by default") from None
    if isinstance(value, bool) or number < 1:
        raise ConfigError("give a number of at least 1")
    return number


def _endpoints(value: Value) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(filter(None, re.split(r"[,\s]+", value)))
    if not isinstance(value, list | tuple):
        raise ConfigError("give host:port, or a list of them")
    # An empty one is a variable that was not set, as in --bootstrap "$SEED": to go on without it
    # would be to start a second ring.
    return tuple(map(_endpoint, value))


def _endpoint(value: Value) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("give host:port")
    return value.strip()


def _path(value: Value) -> Path:
    if not isinstance(value, str | Path) or str(value) == "":
        raise ConfigError("give a path")
    return _expanded(value)


def _expanded(path: str | Path) -> Path:
    """Return a path whose `~` is the home directory; of nobody's home it stays as it is."""
    return Path(os.path.expanduser(path))


def _choice(*allowed: str) -> Callable[[Value], str]:
    def parse(value: Value) -> str:
        if value not in allowed:
            raise ConfigError(f"choose one of {', '.join(allowed)}")
        return str(value)

    return parse


PARSERS: Mapping[str, Callable[[Value], object]] = {
    "bootstrap": _endpoints,
    "bootstrap-timeout": parse_duration,
    "listen": _endpoint,
    "advertise": _endpoint,
    "data-dir": _path,
    "replicas": _replicas,
    "capacity": parse_size,
    "network-key-file": _path,
    "preset": _choice("lan", "wan"),
    "log-format": _choice("console", "json"),
    "log-level": _choice("debug", "info", "warning", "error"),
    "record": _path,
}
"""Every setting by its one name, with what makes its value from text or TOML."""


def load_settings(
    command_line: Mapping[str, Value],
    environment: Mapping[str, str] = os.environ,
    config_file: Path | None = None,
) -> Settings:
    """Put the settings together from all four sources.

    `command_line` maps names to what was given; None and () stand for «not given». Raises
    `ConfigError`, one line that names the setting, where it came from and what would be right.
    """
    named = _expanded(config_file) if config_file else _named_in(environment)
    file = _read_file(named or default_config_file(), must_exist=named is not None)
    values: dict[str, object] = {}
    for name, parse in PARSERS.items():
        variable = ENVIRONMENT_PREFIX + name.upper().replace("-", "_")
        if command_line.get(name) not in (None, ()):
            source, raw = f"--{name}", command_line[name]
        elif environment.get(variable):
            source, raw = variable, environment[variable]
        elif name in file.settings:
            source, raw = f"{file.path}: {name}", file.settings[name]
        else:
            continue
        try:
            values[name.replace("-", "_")] = parse(raw)
        except ConfigError as error:
            raise ConfigError(f"{source}: cannot use {_shown(raw)}: {error}") from None
    settings = Settings(protocol=file.protocol, **values)  # type: ignore[arg-type]
    try:
        settings.config()
    except ConfigError as error:
        raise ConfigError(f"settings do not fit: {error}") from None
    return settings


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    settings: Mapping[str, Value]
    protocol: tuple[tuple[str, int | float], ...]


def _named_in(environment: Mapping[str, str]) -> Path | None:
    named = environment.get(ENVIRONMENT_PREFIX + "CONFIG")
    return _expanded(named) if named else None


def _read_file(path: Path, *, must_exist: bool) -> _File:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(FILE_CHARS_MAX + 1)
        if len(text) > FILE_CHARS_MAX:
            raise ConfigError(f"{path}: larger than 1 MiB; is it the right file?")
        document = tomllib.loads(text)
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"{path}: no such file; name an existing one with --config") from None
        return _File(path, {}, ())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    protocol = document.pop("protocol", {})
    for name in document:
        if name not in PARSERS:
            raise ConfigError(f"{path}: unknown setting {name!r}{_nearest(name, PARSERS)}")
    return _File(path, document, _protocol(path, protocol))


def _protocol(path: Path, table: Value) -> tuple[tuple[str, int | float], ...]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: protocol must be a table of parameters")
    known = {f.name: f.type for f in fields(Config) if f.name != "replicas"}
    for name, value in table.items():
        if name not in known:
            raise ConfigError(f"{path}: unknown parameter protocol.{name}{_nearest(name, known)}")
        wanted = int if known[name] in (int, "int") else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted) or not 0 < value < 1 << 40:
            kind = "whole number" if wanted is int else "number"
            raise ConfigError(f"{path}: protocol.{name} must be a {kind} above 0")
    return tuple(table.items())


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name.replace("_", "-"), known, 1) or difflib.get_close_matches(
        name, known, 1
    )
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _shown(value: Value) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return repr(text if len(text) <= 80 else text[:77] + "...")
