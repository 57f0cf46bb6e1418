"""Lookups under churn: few are lost, the oracle sees those that are, and the tables tell it."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pastryd.cli.sim import sim
from pastryd.errors import ConfigError
from pastryd.sim.churn import Churn
from pastryd.sim.conditions import Conditions
from pastryd.sim.paper.churn import churn, traces, upper_bound

CALM = Conditions("exponential", 40, 7_200.0, 60.0, 300.0, lookups_per_s=0.1)


def test_no_lookup_is_lost_or_astray_while_nodes_come_and_go() -> None:
    table = traces(
        names=("gnutella",),
        losses=(0.0,),
        nodes=60,
        settling_s=120,
        measured_s=300,
        gnutella_lookups=0.02,
    )
    assert table.figure("gnutella, 0% loss: lost").ours == 0
    assert table.figure("gnutella, 0% loss: wrong").ours == 0
    assert table.figure("gnutella, 0% loss: stretch").ours < 1.9
    assert table.figure("gnutella, 0% loss: control messages/s/node").ours < 0.8
    assert table.grid is not None and len(table.grid.rows) == 2
    assert any("Heartbeat" in note for note in table.notes)


def test_sessions_of_minutes_and_lossy_links_lose_next_to_nothing() -> None:
    table = churn(medians_min=(15,), losses=(0.05,), nodes=40, settling_s=120, measured_s=360)
    assert table.grid is not None
    for row in table.grid.document():
        assert isinstance(row["lookups"], int) and row["lookups"] > 1_000
        assert isinstance(row["deaths"], int) and row["deaths"] > 3
        assert row["lost"] == 0
        assert isinstance(row["wrong"], int) and row["wrong"] <= 2


def test_the_same_conditions_give_the_same_outcome() -> None:
    assert Churn(CALM).run() == Churn(CALM).run()
    assert Churn(CALM).run() != Churn(replace(CALM, seed=2)).run()


def test_when_no_datagram_arrives_lookups_are_lost_then_end_at_whoever_believes_to_be_alone() -> (
    None
):
    run = Churn(CALM)
    run.world.at(run.world.now + 100, setattr, run.world.links, "loss", 1.0)
    outcome = run.run()
    assert len(outcome.lost) > 50
    assert len(outcome.lost) + len(outcome.wrong) > 0.7 * outcome.lookups
    assert outcome.delivered + len(outcome.lost) == outcome.lookups + outcome.orphaned


def test_a_delivery_at_another_node_than_the_root_is_wrong() -> None:
    run = Churn(CALM)

    # One node is deaf to its neighbourhood: it believes to be alone, and the root of every key.
    def forget_all() -> None:
        node = run.world.nodes[0]
        context = node.core.context
        for handle in context.leaf_set.members():
            context.leaf_set.discard(handle.id)

    run.world.at(run.world.now + 200, forget_all)  # fmt: skip
    outcome = run.run()
    assert 0 < len(outcome.wrong) < 0.2 * outcome.lookups


def test_who_returns_is_the_same_node_in_a_later_incarnation(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("a 0 900\nb 0 100\nb 100 300\nc 150 250\nc 400 900\n", "utf-8")
    run = Churn(Conditions(str(path), settling_s=0, measured_s=800, lookups_per_s=0.1))
    (b,) = (node for node in run.world.nodes if node.endpoint[0] == "10.0.0.1")
    incarnations = []
    for when in (50, 150, 350):
        run.world.at(1000 + when, lambda: incarnations.append(
            [(n.id == b.id, n.core.identity.incarnation) for n in run.world.nodes
             if n.endpoint == b.endpoint]))  # fmt: skip
    outcome = run.run()
    assert incarnations == [[(True, 1_000_000)], [(True, 1_100_000)], []]
    assert (outcome.arrivals, outcome.departures) == (3, 3)
    assert outcome.lookups > 50 and not outcome.lost and not outcome.wrong


def test_a_trace_in_which_nobody_is_up_at_first_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("a 5 900\n", "utf-8")
    with pytest.raises(ConfigError, match="start at 0"):
        Churn(Conditions(str(path)))
    with pytest.raises(ConfigError, match="--settle"):
        Conditions(str(path)).to_the_end()


def test_the_command_replays_conditions_and_follows_a_lookup() -> None:
    outcome = Churn(CALM).run()
    words = CALM.command().split()[2:]
    result = CliRunner().invoke(sim, [*words, "--follow", "7"])
    assert result.exit_code == 0, result.output
    assert f"{outcome.lookups} lookups" in result.output
    assert "lookup of " in result.output and "right" in result.output


def test_the_bound_is_three_by_n_when_nothing_happened() -> None:
    assert upper_bound(0, 1_000) == pytest.approx(3.0e-3, rel=0.01)
    assert upper_bound(1, 1_000) == pytest.approx(4.74e-3, rel=0.01)
    assert upper_bound(10, 1_000) == pytest.approx(16.96e-3, rel=0.01)
