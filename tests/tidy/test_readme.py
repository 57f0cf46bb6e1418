"""What the README and the pages under docs/ say is true of the code: commands, options, numbers."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import pastryd.cli.queries
import pastryd.cli.tool  # noqa: F401  (both register commands)
from pastryd.cli import daemon, exits
from pastryd.cli.common import cli as tool_cli
from pastryd.cli.settings import ENVIRONMENT_PREFIX, PARSERS, load_settings
from pastryd.config import Config
from tests.tidy.test_tidy import TOP

README = TOP / "README.md"
CLI_PAGE = TOP / "docs" / "cli.md"
OPERATIONS = TOP / "docs" / "operations.md"
PAGES = [README, *sorted((TOP / "docs").rglob("*.md"))]
PROGRAMS: dict[str, click.Group] = {"pastryd": daemon.cli, "pastry": tool_cli}

_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_CODE = re.compile(r"^```.*?^```|`[^`\n]+`|^    [^\n]+$", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+|-[a-z])(?![\w-])")
_OTHERS_OPTIONS = {"--scale", "--build", "--network"}
"""Docker's, named in running text."""


def options_of(command: click.Command) -> set[str]:
    """Return what a user may write: long and short options that are not hidden."""
    named = {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in parameter.opts
    }
    return named | {"-h", "--help"}


def commands_of(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """Return all commands of a program, those of a group in it as `group command`."""
    found: dict[str, click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found[prefix + name] = command
        if isinstance(command, click.Group):
            found |= commands_of(command, f"{prefix}{name} ")
    return found


def every_option() -> set[str]:
    groups = PROGRAMS.values()
    return {o for g in groups for c in (g, *commands_of(g).values()) for o in options_of(c)}


def code_in(page: Path) -> Iterator[str]:
    """Yield the lines of code blocks and the pieces of code in running text."""
    for match in _CODE.finditer(page.read_text("utf-8")):
        yield from match.group().strip("`").splitlines()


def commands_in(page: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (program, command, arguments) of every line that runs `pastryd` or `pastry`."""
    runs = re.compile(r"(?:^|[\s/|=])(pastryd|pastry) ([a-z]+)\b([^|#]*)")
    for line in code_in(page):
        if "docker" in line.split() or line.startswith(("Description", "tar ")):
            continue
        if match := runs.search(line):
            yield match[1], match[2], match[3]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = [t for t in _LINK.findall(page.read_text("utf-8")) if "://" not in t]
    assert not [target for target in links if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_command_and_option_that_is_named_exists(page: Path) -> None:
    wrong = []
    for program, name, arguments in commands_in(page):
        commands = commands_of(PROGRAMS[program])
        inner = f"{name} {arguments.split()[0]}" if arguments.split() else name
        command = commands.get(inner, commands.get(name))
        if command is None:
            wrong.append(f"{program} {name}")
            continue
        options = options_of(command)
        wrong += [f"{program} {name} {o}" for o in _OPTION.findall(arguments) if o not in options]
    assert not wrong


@pytest.mark.parametrize("page", [README, CLI_PAGE, OPERATIONS], ids=lambda page: page.name)
def test_every_option_in_running_text_exists(page: Path) -> None:
    named = {o for line in code_in(page) if line.startswith("--") for o in _OPTION.findall(line)}
    assert named
    assert not named - every_option() - _OTHERS_OPTIONS


def test_the_page_of_the_command_line_names_every_command_and_option() -> None:
    text = CLI_PAGE.read_text("utf-8")
    headings = re.split(r"^#{2,3} ", text, flags=re.M)
    common = next(part for part in headings if part.startswith("pastry\n"))
    missing = []
    for program, group in PROGRAMS.items():
        for name, command in commands_of(group).items():
            title = re.compile(rf"{program} {name}\b")
            section = next((part for part in headings if title.match(part)), None)
            if section is None:
                missing.append(f"{program} {name}")
                continue
            known = section + (common if program == "pastry" else "")
            wanted = options_of(command) - {"-h", "--help"}
            missing += [f"{program} {name} {o}" for o in wanted if f"`{o}" not in known]
    assert not missing


def test_the_tables_of_exit_statuses_are_those_of_the_code() -> None:
    codes = {
        name: value
        for name, value in vars(exits).items()
        if name.isupper() and isinstance(value, int)
    }
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]*) *\|", CLI_PAGE.read_text("utf-8"), re.M)
    assert {name: int(status) for status, name in rows if name} == codes
    readme = re.search(r"^\| status \| meaning \|\n(?:\|.*\n)+", README.read_text("utf-8"), re.M)
    assert readme
    cells = re.findall(r"^\| ([\d, ]+) \|", readme.group(), re.M)
    told = [int(status) for cell in cells for status in cell.split(", ")]
    assert told == sorted([129, *codes.values(), 143])


@pytest.mark.parametrize("page", [CLI_PAGE, OPERATIONS, TOP / "docs" / "parameters.md"])
def test_every_settings_file_that_is_shown_can_be_loaded(page: Path, tmp_path: Path) -> None:
    shown = blocks(page, "toml")
    assert shown
    for text in shown:
        assert tomllib.loads(text)
        file = tmp_path / "config.toml"
        file.write_text(text, "utf-8")
        load_settings({}, {}, file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_variable_of_the_environment_that_is_named_exists(page: Path) -> None:
    settings = {ENVIRONMENT_PREFIX + name.upper().replace("-", "_") for name in PARSERS}
    known = settings | {ENVIRONMENT_PREFIX + "CONFIG", "PASTRY_NODE"}
    named = set(re.findall(r"\bPASTRYD?_[A-Z_]*[A-Z]\b", page.read_text("utf-8")))
    assert not named - known


def detection_s(config: Config) -> float:
    """Return how long a silent neighbour can go on: heartbeat, a probe, more of them, suspicion.

    The other probes go out while helpers ask, which takes as long.
    """
    again = config.indirect_timeout_s * ((1 << config.probe_attempts - 1) - 1)
    silence = config.heartbeat_s + config.heartbeat_grace_s
    return silence + config.probe_timeout_s + again + config.suspicion_max_s


def test_the_times_that_the_readme_promises_follow_from_the_presets() -> None:
    def shown(seconds: float) -> str:
        return f"{seconds * 1e3:.0f} ms" if seconds < 0.1 else f"{round(seconds, 3):g} s"

    def row(config: Config) -> list[str]:
        rto = (config.rto_min_s, config.rto_initial_s, config.rto_max_s)
        return [
            shown(detection_s(config)),
            " / ".join(map(shown, rto)),
            shown(config.put_timeout_s),
            shown(config.leave_timeout_s),
            shown(config.reconcile_s),
            shown(config.merge_s),
            f"{config.repair_bytes_per_s >> 20} MiB/s",
        ]

    table = re.search(r"^\| \| `lan` \| `wan` \|\n(?:\|.*\n)+", README.read_text("utf-8"), re.M)
    assert table
    cells = [line.strip("| ").split(" | ") for line in table.group().splitlines()]
    told = [(line[1], line[2]) for line in cells if len(line) == 3 and line[1].strip(" -")]
    lan, wan = Config.lan(), Config.wan()
    assert told == list(zip(row(lan), row(wan), strict=True))
    assert lan.get_timeout_s == lan.put_timeout_s, "the table tells both in one row"
    assert detection_s(lan) <= 2
    assert detection_s(wan) <= 15


def reported_names() -> tuple[set[str], set[str]]:
    """Return the names of all counters and of all log events in the package's sources."""
    counters: set[str] = set()
    events: set[str] = set()
    for path in sorted((TOP / "pastryd").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if not call.args:
                continue
            texts = {n.value for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant)}
            names = {text for text in texts if isinstance(text, str)}
            owner, method = ast.unparse(call.func.value), call.func.attr
            if (method == "count" and owner.endswith("stats")) or (
                method == "_refuse" and path.name == "seal.py"
            ):
                counters |= names
            elif method == "log" or (
                method in ("info", "warning", "error") and owner.endswith("log")
            ):
                events |= names
    return counters, events


def test_the_operations_page_explains_every_counter_and_every_log_event() -> None:
    text = OPERATIONS.read_text("utf-8")
    explained = set(re.findall(r"`([a-z_]+)`", text))
    counters, events = reported_names()
    counters = counters - {"writes_"} | {"writes_full", "writes_failed", "writes_busy"}
    unexplained = sorted((counters | events) - explained)
    assert not unexplained, "say in docs/operations.md what these mean"
    listed = re.split(r"^## ", text, flags=re.M)
    of_counters = next(part for part in listed if part.startswith("Counters"))
    rows = [line.split(" | ")[0] for line in of_counters.splitlines() if line.startswith("| `")]
    assert not {n for row in rows for n in re.findall(r"`([a-z_]+)`", row)} - counters
    of_events = next(part for part in listed if part.startswith("Log events"))
    rows = [line.split(" | ")[0] for line in of_events.splitlines() if line.startswith("| `")]
    assert not {n for row in rows for n in re.findall(r"`([a-z_]+)`", row)} - events


def test_the_index_lists_every_page_and_every_decision() -> None:
    index = (TOP / "docs" / "README.md").read_text("utf-8")
    pages = [page.relative_to(TOP / "docs").as_posix() for page in PAGES[1:]]
    assert not [page for page in pages if page != "README.md" and f"({page})" not in index]


def test_the_python_that_is_shown_parses_and_imports_what_exists() -> None:
    shown = [text for page in PAGES for text in blocks(page, "python")]
    assert shown
    for text in shown:
        tree = compile(text, "shown", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert not [a.name for a in node.names if not hasattr(module, a.name)]


def test_no_virtual_environment_is_made_where_a_clone_may_lie() -> None:
    """A clone that was made in the home directory is `~/pastryd` itself."""
    made = [line.split()[-1] for page in PAGES for line in code_in(page) if "-m venv" in line]
    assert made
    assert not {"pastryd", "~/pastryd", "$HOME/pastryd"} & set(made)
