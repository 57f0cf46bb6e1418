"""The results page: made of the figures that there are, and people's notes stay."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

MACHINE = {
    "date": "2026-01-01 00:00 UTC",
    "cores": 2,
    "cpu": "some",
    "kernel": "Linux 6",
    "python": "CPython 3",
    "load": 0.1,
}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    return importlib.import_module("bench.results")


def figures_of_a_burst(done: int, refused: int) -> dict[str, object]:
    lone = {"p50_ms": 0.2, "p99_ms": 0.5}
    figures = {
        "puts_at_once": 10_000,
        "seconds": 2.0,
        "ended": {"done": done, "RefusedError": refused},
        "first_get_after_ms": 0.3,
        "gets_before": lone,
        "gets_after": lone,
        "suspicions": 1,
        "stalls": 0,
    }
    return {"machine": MACHINE, "figures": figures}


def test_the_page_has_what_was_measured_and_judges_it(results: ModuleType, tmp_path: Path) -> None:
    results.renew(tmp_path, "burst", figures_of_a_burst(9_990, 10))
    results.write(tmp_path)
    page = (tmp_path / "performance.md").read_text()
    assert "9,990 done, 10 RefusedError" in page
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line[:1] == "|"}
    assert rows["puts of a burst of 10,000 that did not end"].endswith("| yes |")
    assert "**no**" in rows["false suspicions in the burst"]
    assert "get of 64 MiB" not in rows, "nobody measured that"


def test_a_renewed_section_replaces_its_figures_and_keeps_the_notes(
    results: ModuleType, tmp_path: Path
) -> None:
    results.renew(tmp_path, "burst", figures_of_a_burst(10_000, 0))
    results.write(tmp_path)
    page = tmp_path / "performance.md"
    page.write_text(page.read_text().rstrip() + "\n\nThe disk.\n")
    results.renew(tmp_path, "burst", figures_of_a_burst(9_999, 1))
    results.write(tmp_path)
    assert page.read_text().endswith("## What bounds it\n\nThe disk.\n")
    assert "9,999 done" in page.read_text() and "10,000 done" not in page.read_text()
    assert list(json.loads((tmp_path / "performance.json").read_text())) == ["burst"]
