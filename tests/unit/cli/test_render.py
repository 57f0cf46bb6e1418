"""What people see of a node's JSON documents."""

import pytest

from pastryd.cli.render import document_lines, seeds_bar, table_lines, transfer_bar


def test_a_document_is_a_line_for_each_value_and_a_table_for_each_list() -> None:
    document: dict[str, object] = {
        "size": 3,
        "is_ready": True,
        "rtt_ms": 0.123456789,
        "last": None,
        "names": ["a", "b"],
        "chunks": [{"name": "c1", "replicas": [{"id": "x", "address": "h:1"}]}],
        "inner": {"deep": "value"},
    }
    assert list(document_lines(document)) == [
        "size      3",
        "is ready  yes",
        "rtt ms    0.123457",
        "last      -",
        "names     a, b",
        "chunks    1",
        "  name  replicas",
        "  c1    h:1",
        "inner",
        "  deep  value",
    ]


def test_rows_need_not_all_have_the_same_columns() -> None:
    assert list(table_lines([{"a": 1}, {"b": "two"}])) == ["a  b", "1  -", "-  two"]


@pytest.mark.parametrize(
    "rows",
    [
        [{f"a{i}": 1} for i in range(20_000)],
        [{"a": "x" * 100_000, "b": 1}, *({"a": 1, "b": 2} for _ in range(19_999))],
    ],
    ids=["each row its own column", "one long cell"],
)
def test_a_table_is_not_much_larger_than_what_it_shows(rows: list[dict[str, object]]) -> None:
    lines = list(document_lines({"rows": rows}))
    assert sum(map(len, lines)) < 600_000
    assert lines[-1] == "  ... 19000 more; --json has them"


def test_columns_that_are_too_many_are_counted() -> None:
    lines = list(table_lines([{f"a{i}": i for i in range(100)}]))
    assert lines[-1] == "... 68 more columns; --json has them"


def test_a_cell_that_is_wide_is_shown_whole() -> None:
    wide = "x" * 100
    lines = list(table_lines([{"a": wide, "b": 1}, {"a": "y", "b": 2}]))
    assert lines[1:] == [f"{wide}  1", f"{'y':64}  2"]


def test_nothing_is_no_line() -> None:
    assert list(document_lines({})) == []


@pytest.mark.parametrize("name", ["[/x].bin", "[red]"])
def test_a_bar_takes_a_file_of_any_name(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with transfer_bar(f"put {name}", 10) as show:
        show(5, None)
    assert f"put {name}" in capsys.readouterr().err


def test_lines_beside_a_bar_go_to_stdout_and_the_bar_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes what is captured for a terminal
    monkeypatch.setenv("COLUMNS", "100")
    with seeds_bar(9, print) as (show, echo):
        show(3, 1)
        echo("seed 5 failed")
    out, err = capsys.readouterr()
    assert out == "seed 5 failed\n"
    assert "3/9" in err and "1 failed" in err and "seed 5" not in err
