"""The house rules that no linter knows, checked over every tracked or new file of the tree."""

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from pastryd.config import Config
from pastryd.wire.codec import SEGMENT_TAG, SPECIFICATIONS

TOP = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 70
GOLDEN_TAGS = TOP / "tests" / "tidy" / "wire_tags.txt"
PARAMETERS = TOP / "docs" / "parameters.md"

_SLEEP = re.compile(r"\b(time|asyncio)\.sleep\(\s*(0*\.0*[1-9]|[1-9])")
_TODO = re.compile(r"#\s*(TODO|FIXME|XXX)\b(?!\s*\(#\d+\))")
_MACHINE_PATH = re.compile(r"""(?<![\w.~$}])/(home|tmp|root|work|farm|Users)/\w""")
_NO_EXPECTATION = re.compile(r"assert (True\b|1$)|pytest\.skip\(\)")


def tree_files(*suffixes: str) -> list[Path]:
    """Return the files that belong to the project: what git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=TOP, check=True, capture_output=True).stdout
    paths = [TOP / name for name in sorted(set(listed.decode().split("\0"))) if name]
    return [p for p in paths if p.is_file() and (not suffixes or p.suffix in suffixes)]


def lines_matching(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """Return `file:line: text` for every match."""
    return [
        f"{path.relative_to(TOP)}:{number}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line) and path != Path(__file__)
    ]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a file, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_python_file_is_longer_than_one_reason_to_change_needs() -> None:
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in tree_files(".py")}
    long = {str(p.relative_to(TOP)): n for p, n in lengths.items() if n > FILE_LINES_MAX}
    assert not long


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(TOP)}:{f.lineno} {f.name}: {f.end_lineno - f.lineno + 1} lines"
        for path in tree_files(".py")
        for f in functions(path)
        if f.end_lineno is not None and f.end_lineno - f.lineno >= FUNCTION_LINES_MAX
    ]
    assert not long


def test_every_module_of_the_package_says_what_it_owns() -> None:
    modules = [p for p in tree_files(".py") if p.is_relative_to(TOP / "pastryd")]
    silent = [
        str(path.relative_to(TOP))
        for path in modules
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert not silent


def test_no_test_sleeps_for_a_set_time() -> None:
    tests = [p for p in tree_files(".py") if p.is_relative_to(TOP / "tests")]
    assert not lines_matching(_SLEEP, tests)


def test_no_test_asserts_nothing() -> None:
    tests = [p for p in tree_files(".py") if p.is_relative_to(TOP / "tests")]
    assert not lines_matching(_NO_EXPECTATION, tests)


def test_what_is_left_to_do_names_its_issue() -> None:
    assert not lines_matching(_TODO, tree_files(".py", ".sh", ".toml", ".yml"))


def test_no_path_of_one_machine_is_written_down() -> None:
    assert not lines_matching(_MACHINE_PATH, tree_files(".py", ".sh", ".toml", ".md", ".cfg"))


def test_wire_tags_are_only_ever_appended() -> None:
    golden = [line.split() for line in GOLDEN_TAGS.read_text("utf-8").splitlines() if line]
    pinned = {int(tag): name for tag, name in golden}
    current = {tag: kind.__name__ for tag, (kind, _) in SPECIFICATIONS.items()}
    current[SEGMENT_TAG] = "Segment"
    changed = {tag: name for tag, name in pinned.items() if current.get(tag) != name}
    assert not changed, "a tag that was once sent must keep its meaning"
    unpinned = {tag: name for tag, name in current.items() if tag not in pinned}
    assert not unpinned, f"append to {GOLDEN_TAGS.relative_to(TOP)}"


def test_the_parameter_table_names_every_parameter_with_its_values() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", PARAMETERS.read_text("utf-8"), re.MULTILINE
    )
    lan, wan = Config.lan(), Config.wan()
    expected = [(f.name, str(getattr(lan, f.name)), str(getattr(wan, f.name))) for f in fields(lan)]
    assert [(name, a.strip(), b.strip()) for name, a, b in rows] == expected
