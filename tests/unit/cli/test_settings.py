"""Settings: one name each, one precedence, errors that name the setting and its source."""

from pathlib import Path

import pytest

from pastryd.cli.settings import PARSERS, Settings, load_settings, parse_duration, parse_size
from pastryd.config import Config
from pastryd.errors import ConfigError


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(
    config_file: Path,
) -> None:
    config_file.write_text('replicas = 5\npreset = "wan"\nlog-format = "json"\n')
    environment = {"PASTRYD_REPLICAS": "4", "PASTRYD_PRESET": "lan"}
    settings = load_settings({"replicas": "2"}, environment, config_file)
    assert settings.replicas == 2
    assert settings.preset == "lan"
    assert settings.log_format == "json"
    assert settings.log_level == "info"


def test_every_setting_has_a_field_of_its_name() -> None:
    fields = set(Settings.__dataclass_fields__) - {"protocol"}
    assert {name.replace("-", "_") for name in PARSERS} == fields


def test_bootstrap_is_repeated_on_the_command_line_and_separated_by_commas_in_the_environment(
    config_file: Path,
) -> None:
    config_file.write_text('bootstrap = ["a:1", "[::1]:2"]\n')
    assert load_settings({}, {}, config_file).bootstrap == ("a:1", "[::1]:2")
    environment = {"PASTRYD_BOOTSTRAP": "c:3, d:4"}
    assert load_settings({}, environment, config_file).bootstrap == ("c:3", "d:4")
    assert load_settings({"bootstrap": ("e:5",)}, environment, config_file).bootstrap == ("e:5",)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10GB", 10 * 1000**3),
        ("500MiB", 500 << 20),
        ("1.5 GiB", 3 << 29),
        ("2t", 2 * 1000**4),
        ("4096", 4096),
        (4096, 4096),
        ("7B", 7),
    ],
)
def test_sizes_are_decimal_or_binary_by_their_unit(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "ten", "-1GB", "0", "1 XB", True, 0, "9" * 400, "2000000TB", 10**19]
)
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ConfigError, match="size"):
        parse_size(text)


def test_durations_have_units() -> None:
    assert [parse_duration(t) for t in ("30", "1.5s", "500ms", "2m", "1h", 7)] == [
        30.0,
        1.5,
        0.5,
        120.0,
        3600.0,
        7.0,
    ]


def test_an_empty_bootstrap_node_does_not_start_a_ring_of_its_own(config_file: Path) -> None:
    config_file.touch()
    with pytest.raises(ConfigError, match=r"--bootstrap: cannot use .*: give host:port"):
        load_settings({"bootstrap": ("",)}, {}, config_file)
    assert load_settings({}, {"PASTRYD_BOOTSTRAP": "a:1,"}, config_file).bootstrap == ("a:1",)


def test_an_unknown_key_is_named_and_the_nearest_known_one_suggested(config_file: Path) -> None:
    config_file.write_text("data_dirr = 'x'\n")
    with pytest.raises(ConfigError, match=r"config\.toml.*'data_dirr'.*'data-dir'"):
        load_settings({}, {}, config_file)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("replicas = ", "not valid TOML"),
        ("replicas = 'many'", "replicas: cannot use 'many'"),
        ("replicas = true", "replicas: cannot use"),
        ("bootstrap = 5", "bootstrap: cannot use '5': give host:port"),
        ("bootstrap = true", "bootstrap: cannot use"),
        ("capacity = 1.5", "capacity: cannot use '1.5'"),
        ("replicas = 99", "replicas must be between 1 and 8"),
        ("preset = 'moon'", "lan, wan"),
        ("[protocol]\nheartbeat = 1.0", "'heartbeat_s'"),
        ("[protocol]\nheartbeat_s = 'fast'", "must be a number"),
        ("[protocol]\nhops_max = 1.5", "whole number"),
        ("protocol = 3", "table"),
    ],
)
def test_a_bad_file_is_told_in_one_line(config_file: Path, document: str, expected: str) -> None:
    config_file.write_text(document)
    with pytest.raises(ConfigError) as told:
        load_settings({}, {}, config_file)
    assert expected in str(told.value)
    assert "\n" not in str(told.value)


def test_a_named_file_must_exist_and_the_default_one_need_not(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match="no such file"):
        load_settings({}, {}, missing)
    with pytest.raises(ConfigError, match="no such file"):
        load_settings({}, {"PASTRYD_CONFIG": str(missing)})


def test_the_protocol_table_overrides_single_parameters_of_the_preset(config_file: Path) -> None:
    config_file.write_text('preset = "wan"\n[protocol]\nheartbeat_s = 3\nleaf_set_size = 8\n')
    config = load_settings({}, {}, config_file).config()
    assert (config.heartbeat_s, config.leaf_set_size) == (3, 8)
    assert config.probe_timeout_s == Config.wan().probe_timeout_s


def test_the_name_of_a_bad_environment_variable_is_told(config_file: Path) -> None:
    config_file.write_text("")
    with pytest.raises(ConfigError, match=r"PASTRYD_CAPACITY: cannot use 'lots'"):
        load_settings({}, {"PASTRYD_CAPACITY": "lots"}, config_file)


def test_the_home_directory_of_nobody_is_a_path_like_others() -> None:
    path = "~nobody-of-this-name/key"
    assert load_settings({"network-key-file": path}, {}).network_key_file == Path(path)


def test_a_time_beyond_all_reason_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 30 years"):
        parse_duration("9" * 400)


def test_the_home_directory_has_its_sign_in_the_path_of_the_settings_file_too(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file.write_text("replicas = 5")
    monkeypatch.setenv("HOME", str(config_file.parent))
    assert load_settings({}, {}, Path("~") / config_file.name).replicas == 5


def test_a_settings_file_without_end_is_refused(config_file: Path) -> None:
    config_file.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB; is it the right file"):
        load_settings({}, {}, config_file)
