"""Sessions have the statistics that they were drawn for; files of sessions are read or refused."""

from pathlib import Path
from random import Random
from statistics import fmean, median

import pytest

from pastryd.cli.daemon import cli
from pastryd.cli.exits import BAD_INPUT, run
from pastryd.errors import ConfigError
from pastryd.sim.sessions import (
    DAY_S,
    DISTRIBUTIONS,
    HEAVY_TAIL,
    TRACES,
    Session,
    Weibull,
    read_trace,
    steady,
)

HOUR_S = 3_600.0


def up_at(sessions: list[Session], when: float) -> int:
    return sum(session.start_s <= when < session.end_s for session in sessions)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_lengths_have_the_mean_and_median_that_they_were_fitted_to(name: str) -> None:
    lengths = DISTRIBUTIONS[name](HOUR_S)
    rng = Random(1)
    drawn = [lengths.draw(rng) for _ in range(50_000)]
    assert median(drawn) == pytest.approx(HOUR_S, rel=0.03)
    assert fmean(drawn) == pytest.approx(lengths.mean_s, rel=0.05)
    if name != "exponential":
        assert lengths.mean_s == pytest.approx(HEAVY_TAIL * HOUR_S)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_sessions_met_under_way_are_longer_by_their_length(name: str) -> None:
    lengths = DISTRIBUTIONS[name](HOUR_S)
    rng = Random(2)
    drawn = [lengths.draw(rng) for _ in range(100_000)]
    met = [lengths.draw_met(rng) for _ in range(100_000)]
    assert fmean(met) == pytest.approx(fmean(x * x for x in drawn) / fmean(drawn), rel=0.15)


def test_a_weibull_distribution_of_the_exponential_ratio_is_exponential() -> None:
    exponential = DISTRIBUTIONS["exponential"](HOUR_S)
    assert Weibull(exponential.mean_s, HOUR_S).shape == pytest.approx(1.0)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_arrivals_hold_the_population_from_the_first_second(name: str) -> None:
    sessions = steady(DISTRIBUTIONS[name](300.0), 1_000, 4 * HOUR_S, Random(3))
    counts = [up_at(sessions, hour * HOUR_S / 4) for hour in range(16)]
    assert counts[0] == 1_000
    assert all(850 <= count <= 1_150 for count in counts)
    assert len(sessions) > 5_000


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_swings_with_the_day_and_its_nodes_come_back(name: str) -> None:
    trace = TRACES[name]
    middle = (trace.active_min + trace.active_max) / 2
    sessions = trace.sessions(2_000, 2 * DAY_S, Random(4))
    counts = [up_at(sessions, DAY_S + hour * HOUR_S) for hour in range(24)]
    assert min(counts) == pytest.approx(2_000 * trace.active_min / middle, rel=0.1)
    assert max(counts) == pytest.approx(2_000 * trace.active_max / middle, rel=0.1)
    nodes = {session.node for session in sessions}
    assert len(nodes) <= trace.unique * 2_000 / middle + 1 < len(nodes) * 2
    until: dict[int, float] = {}
    for session in sessions:
        assert until.get(session.node, -1e9) <= session.start_s, "a node is up once at a time"
        until[session.node] = session.end_s


def test_a_trace_file_is_read_in_any_order_with_any_names(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("beta 20 30.5\n\nalpha 0 10\nbeta 0 20\n", "utf-8")
    assert read_trace(path) == [Session(1, 0, 10), Session(0, 0, 20), Session(0, 20, 30.5)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("alpha 5", "want 'node start_s end_s'"),
        ("alpha 5 6 7", "want 'node start_s end_s'"),
        ("alpha five 6", "want 'node start_s end_s'"),
        ("beta 6 5", "0 <= start_s < end_s"),
        ("beta -1 5", "0 <= start_s < end_s"),
        ("beta 5 inf", "0 <= start_s < end_s"),
        ("beta nan 5", "0 <= start_s < end_s"),
        ("alpha 99 120", "up already"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wanted(
    tmp_path: Path, line: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace"
    path.write_text(f"alpha 0 100\n{line}\nalpha 200 300\n", "utf-8")
    with pytest.raises(ConfigError, match="line 2: ") as caught:
        read_trace(path)
    assert complaint in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        run(cli, "pastryd", ["sim", "churn", "--sessions", str(path)])
    assert ended.value.code == BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_without_sessions_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n", "utf-8")
    for path in (empty, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=path.name):
            read_trace(path)
