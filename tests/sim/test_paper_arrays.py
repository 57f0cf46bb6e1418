"""Small versions of the tables that are made of arrays, with tolerance."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="numpy is an optional extra (sim)")

from pastryd.sim.paper.direct import direct
from pastryd.sim.paper.hops import histogram, hops
from pastryd.sim.paper.stretch import stretch
from pastryd.sim.plot import plot


def test_a_thousand_nodes_take_as_many_hops_as_published() -> None:
    figure = hops(seed=1, sizes=(1_000,), lookups=5_000).figures[0]
    assert figure.published == 2.5
    assert abs(figure.difference_percent or 0.0) < 3


def test_no_route_is_longer_than_intact_tables_allow() -> None:
    table = histogram(seed=1, sizes=(1_000,), lookups=5_000)
    parts = [figure for figure in table.figures if "average" not in figure.label]
    assert sum(figure.ours for figure in parts) == pytest.approx(1.0)
    # ceil(log16 1000) = 3, and one last step within the leaf set.
    assert len(parts) <= 5


def test_routes_are_little_longer_than_the_direct_way() -> None:
    table = stretch(seed=1, sizes=(1_000,), lookups=1_000, largest=0, built=0)
    assert all(1.0 <= figure.ours < 1.55 for figure in table.figures)
    assert any("skipped" in note for note in table.notes)


def test_stretch_is_small_with_real_latencies() -> None:
    given = os.environ.get("PASTRYD_LATENCY")
    beside = Path(__file__).parents[3] / "shared/data/wonderproxy222/rtt_avg_ms.txt"
    matrix = Path(given) if given else beside
    if not matrix.is_file():
        pytest.skip("no latency matrix: set PASTRYD_LATENCY to a file of round-trip times")
    table = stretch(seed=1, sizes=(1_000,), lookups=1_000, matrix=matrix, largest=0, built=0)
    assert table.figure("real latencies, 1000 nodes").ours < 1.5


def test_the_same_seed_gives_the_same_table() -> None:
    tables = [hops(seed=7, sizes=(200,), lookups=500).text() for _ in range(2)]
    assert tables[0] == tables[1]
    assert tables[0] != hops(seed=8, sizes=(200,), lookups=500).text()


def test_results_are_written_with_seed_and_date(tmp_path: Path) -> None:
    table = hops(seed=7, sizes=(1_000,), lookups=200)
    as_json, as_markdown = table.write(tmp_path, "2026-01-02")
    document = json.loads(as_json.read_text("utf-8"))
    assert (document["seed"], document["date"]) == (7, "2026-01-02")
    assert document["figures"][0]["published"] == 2.5
    assert "seed 7" in as_markdown.read_text("utf-8")


def test_plots_are_drawn_where_matplotlib_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an optional extra (sim)")
    drawn = plot(hops(seed=7, sizes=(1_000,), lookups=100), tmp_path)
    assert [path.suffix for path in drawn] == [".png", ".svg"]
    assert all(path.stat().st_size for path in drawn)


def test_tables_built_directly_are_those_that_the_protocol_builds() -> None:
    table = direct(seed=1, size=250, lookups=5_000)
    assert table.grid is not None
    ours, joined = table.grid.document()
    assert joined["leaf sets that differ"] == 0
    assert joined["of which no node fits"] == 0
    assert ours["slots filled"] == ours["slots for which a node exists"]
    assert float(joined["slots filled"]) > 0.965 * float(ours["slots filled"])
    assert float(joined["hops"]) == pytest.approx(float(ours["hops"]), rel=0.03)
    assert float(joined["stretch"]) < 2.5


def test_without_numpy_one_line_says_what_to_install() -> None:
    script = """import sys
sys.modules["numpy"] = None
sys.argv = ["pastryd", "sim", "paper", "--table", "hops"]
from pastryd.cli.daemon import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "pastryd: this needs numpy: pip install 'pastryd[sim]'\n"
    assert not done.stdout
