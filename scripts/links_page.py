"""The results page of `bench_links.py`: rows of JSON in, `docs/results/links.{json,md}` out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pastryd.sim.results import Grid

ALONE = {
    "payload_share_of_link": "payload fits in, % of the link",
    "goodput_share": "of that used, %",
    "sent_twice_percent": "sent twice, %",
    "of_it_for_loss_percent": "of it for random loss, %",
    "rtt_added_ms_p50": "RTT added p50, ms",
    "rtt_added_ms_p95": "p95, ms",
    "puller_cpu_share": "puller's CPU, %",
}
PERCENT_OF_ONE = {"payload_share_of_link", "goodput_share", "puller_cpu_share"}
PERCENT_OF_ONE |= {"first_share", "second_share"}
SHARED = {
    "first_share": "first, % of the link",
    "second_share": "second, %",
    "ratio": "larger by smaller",
    "dropped_by_queue_percent": "dropped, %",
}
RUNS = {
    "two": "a pull, then a pull",
    "tcp_first": "TCP, then a pull",
    "pull_first": "a pull, then TCP",
    "background": "a background pull, then a pull",
}
QUEUES = {"bdp": "one RTT", "shallow": "100 KB"}
Row = dict[str, Any]


def write(rows: Sequence[Row], directory: Path, when: str) -> None:
    """Write the page and its figures; `rows` are what `bench_links.py` prints."""
    document = {"date": when, "rows": rows}
    (directory / "links.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    (directory / "links.md").write_text("\n".join(page(rows, when)) + "\n", "utf-8")


def page(rows: Sequence[Row], when: str) -> list[str]:
    """Return the page's lines."""
    lines = [
        "# Long and lossy links",
        "",
        f"Written by `scripts/bench_links.py` on {when}. Real nodes in two network namespaces,",
        "joined by a link of 100 Mbit/s in each direction that loses packets at random behind its"
        " queue. [Figures](links.json).",
        "",
        "Aims: 90 % of the link at up to 1 % loss and 80 % at 5 %, under 3 % sent twice with the"
        " queue of 100 KB,",
        "and no more than twice as much for one of two pulls, or of a pull and a TCP flow."
        " The kernel's own choice for TCP is bbr.",
        "What random loss strikes is sent twice whatever one does. How it came about: "
        "[decision 0019](../decisions/0019-rate-and-latency-set-the-window.md).",
        "",
        "## One pull, from its first packet to its last",
        "",
        "What headers and seals leave of the link is 100 %.",
        "",
    ]
    alone = Grid(("RTT, ms", "queue", "loss, %", "size, MiB", *ALONE.values()))
    both = Grid(("RTT, ms", "queue", "loss, %", "who", *SHARED.values()))
    for row in rows:
        if row["run"] == "alone":
            alone.rows.append((*_link(row), str(row["mib"]), *_cells(row, ALONE)))
        else:
            both.rows.append((*_link(row), _who(row), *_cells(row, SHARED)))
    lines += alone.lines()
    lines += ["", "## Two at once", "", "Of 10 s, after both had 3 s to settle.", ""]
    return lines + both.lines()


def _link(row: Row) -> list[str]:
    return [f"{row['rtt_ms']:g}", QUEUES[row["queue"]], f"{row['loss']:g}"]


def _who(row: Row) -> str:
    return RUNS[row["run"]].replace("TCP", f"TCP ({row.get('tcp')})")


def _cells(row: Row, columns: dict[str, str]) -> list[str]:
    return [f"{100 * row[k]:.1f}" if k in PERCENT_OF_ONE else f"{row[k]:g}" for k in columns]
