"""How joining by the real protocol scales, beside FreePastry's simulator and what is aimed at."""

from collections.abc import Sequence

from pastryd.sim.results import Cell, Curve, Figure, Grid, Panel, Table
from pastryd.sim.scale import GROWTH_PER_S, ROUTES, Scale

SECONDS = {5_000: 20.5, 100_000: 900.0}
MESSAGES_PER_S = {5_000: 56_000.0, 100_000: 150_000.0}
KB = {5_000: 22.0, 100_000: 64.4}
"""At 5,000 FreePastry's simulator on one machine; at 100,000 what is aimed at (6 GiB in all)."""
COLUMNS = (
    "nodes",
    "messages",
    "messages per join",
    "CPU s",
    "messages/s",
    "kB per node",
    "peak MB",
    "virtual s",
    "settled after s",
    "hops",
    "wrong routes",
)


def scale(results: Sequence[Scale], seed: int) -> Table:
    """Return what was measured as a table, with curves over the number of nodes."""
    table = Table(
        "scale",
        "N nodes join by the real protocol",
        seed,
        {
            "preset": "wan",
            "bits per digit": 4,
            "leaf set": 16,
            "joins per second": f"{GROWTH_PER_S:.0%} of N",
            "network": "sphere",
        },
        grid=Grid(COLUMNS),
        command="sim scale",
    )
    assert table.grid is not None
    for one in results:
        settled: Cell = "not" if one.settle_s is None else one.settle_s
        wrong = f"{one.wrong_routes} of {ROUTES}"
        per_s = round(one.messages / one.seconds)
        table.grid.rows.append(
            (
                one.nodes,
                one.messages,
                one.messages / one.nodes,
                one.seconds,
                per_s,
                one.bytes_per_node / 1e3,
                one.peak_bytes / 1e6,
                one.virtual_s,
                settled,
                one.hops,
                wrong,
            )
        )
        table.figures += [
            Figure(f"{one.nodes} nodes, CPU seconds", one.seconds, SECONDS.get(one.nodes)),
            Figure(f"{one.nodes} nodes, messages/s", per_s, MESSAGES_PER_S.get(one.nodes)),
            Figure(f"{one.nodes} nodes, kB per node", one.bytes_per_node / 1e3, KB.get(one.nodes)),
        ]
    table.notes = [
        "CPU seconds of one core, joins and settling together; they depend on the machine. "
        "Settled: virtual seconds from the last join until every leaf set was right. "
        "Beside ours at 5,000 nodes: FreePastry's simulator, which carries objects, not bytes; "
        "at 100,000: what is aimed at."
    ]
    if len(results) > 1:
        table.axes = ("nodes", "messages per join")
        table.curves = [
            Curve("pastryd", [(one.nodes, one.messages / one.nodes) for one in results])
        ]
        kilobytes = [(float(one.nodes), one.bytes_per_node / 1e3) for one in results]
        speeds = [(float(one.nodes), one.messages / one.seconds) for one in results]
        table.panels = [
            Panel(("nodes", "kB per node"), [Curve("pastryd", kilobytes)]),
            Panel(("nodes", "messages per CPU second"), [Curve("pastryd", speeds)]),
        ]
    return table
