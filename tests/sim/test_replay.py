"""A node that was recorded does the same again when it is told the same again."""

from pathlib import Path

import msgpack
import pytest
from click.testing import CliRunner

from pastryd.cli.sim import sim
from pastryd.errors import ConfigError
from pastryd.node import PastryNode
from pastryd.protocol.common_api import CommonApi
from pastryd.recording import Origin, RecordedNode, Tag
from pastryd.sim.faults import BitRot, Crash, Leave, Restart, Stall, Weather
from pastryd.sim.replay import replay_file
from pastryd.sim.world import SimNode
from pastryd.stats import Stats
from pastryd.wire.codec import encode
from pastryd.wire.messages import Welcome
from tests.sim.swarm import Swarm

HEAR_NOTHING = {
    "check_invariants",
    "identity",
    "local_lookup",
    "neighbor_set",
    "next_deadline",
    "outbox",
    "active",
    "range",
    "replica_set",
    "stats",
}
FROM_APPLICATIONS = {"register", "route", "send"}


class Recorder:
    """Records each life of one machine of a swarm."""

    def __init__(self, swarm: Swarm, machine: int) -> None:
        self.lives: list[list[bytes]] = []
        self.counted = Stats()
        self._swarm = swarm
        self._machine = machine
        swarm.on_start.insert(0, self._take)

    def _take(self, node: SimNode) -> None:
        if self._swarm.machine_of(node) != self._machine:
            return
        self.lives.append([])
        world = self._swarm.world
        origin = Origin(node.core.identity, world.config, b"seed", 0, 1e9, world.now)
        names = sorted(node.disk.items)
        node.core = RecordedNode(origin, names, self.lives[-1].append, self.counted)

    def write(self, path: Path, life: int = -1) -> Path:
        """Write what was recorded to a file."""
        path.write_bytes(b"".join(self.lives[life]))
        return path


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    """A life of machine 5 with many kinds of inputs, and a shorter one after a crash."""
    swarm = Swarm(5)
    recorder = Recorder(swarm, 5)
    swarm.fill(20, 3000)
    swarm.join(1)
    others = swarm.machines[:5]
    for size in (10, 5000, 40_000):
        for node in others:
            swarm.workload.put(node, size)
        swarm.run(2)
    swarm.world.add([swarm.machines[5]])  # it greets a bare address
    swarm.apply(Weather(0.1, 0.1, 0.1, seconds=5.0))
    swarm.apply(Stall(5, 3.0))
    recorder.counted.count("datagrams_bad_seal", 3)
    for name in list(swarm.workload.acknowledged):
        swarm.workload.get(others[0], name)
    swarm.run(10)
    swarm.step(swarm.machines[5], lambda now: swarm.machines[5].core.add_seeds([("10.9.9.9", 1)]))
    core = swarm.machines[5].core
    twin = core.identity.reborn(core.identity.incarnation + 1)
    said = encode(Welcome(1, twin, *twin.endpoint, True, "", 0, 0))
    swarm.step(swarm.machines[5], lambda now: core.receive_twin(said, twin, now))
    swarm.apply(BitRot(5, 1.0))
    swarm.run(5)
    swarm.apply(Crash((5,)))
    swarm.run(5)
    swarm.apply(Restart(5))
    swarm.run(5)
    swarm.apply(Leave(5))
    swarm.run(10)
    assert not swarm.machines[5].running
    return recorder


def told(path: Path, **options: float) -> tuple[int, list[str]]:
    """Replay a file; return the status and what is told."""
    lines: list[str] = []
    return replay_file(path, None, options.get("until"), lines.append), lines


def records_of(recorder: Recorder, life: int = 0) -> list[list[object]]:
    return [msgpack.unpackb(record) for record in recorder.lives[life]]


def test_every_input_of_a_node_is_written_down() -> None:
    offered = {**vars(CommonApi), **vars(PastryNode)}
    known = {name for name in offered if not name.startswith("_")}
    known -= {*CommonApi.__slots__, *PastryNode.__slots__}
    written = {name for name in vars(RecordedNode) if not name.startswith("_")}
    assert known - HEAR_NOTHING - FROM_APPLICATIONS == written


def test_the_recordings_of_these_tests_have_all_kinds_of_inputs(recorder: Recorder) -> None:
    kinds = {record[0] for life in range(2) for record in records_of(recorder, life)[1:]}
    assert kinds == set(Tag) - {Tag.PEERS_FORGOTTEN}


@pytest.mark.parametrize("life", [0, 1])
def test_a_recorded_node_does_the_same_again(recorder: Recorder, life: int, tmp_path: Path) -> None:
    path = recorder.write(tmp_path / "life", life)
    status, lines = told(path)
    assert status == 0
    last = next(r[1] for r in reversed(records_of(recorder, life)) if r[0] == Tag.OUTPUTS)
    assert isinstance(last, bytes)
    assert lines[-1].startswith("identical: ")
    assert lines[-1].endswith(f"trace {last.hex()}")
    assert any("node_active" in line for line in lines)


def test_what_the_driver_counts_is_in_the_status_again(recorder: Recorder, tmp_path: Path) -> None:
    assert [Tag.COUNTED, {"datagrams_bad_seal": 3}] in records_of(recorder)
    status, _ = told(recorder.write(tmp_path / "life", 0))
    assert status == 0


def test_an_output_that_differs_is_found_where_it_does(recorder: Recorder, tmp_path: Path) -> None:
    records = records_of(recorder)
    at = next(i for i, r in enumerate(records) if r[0] == Tag.OUTPUTS and i > 200)
    inputs = sum(r[0] in set(Tag) - {0, 1, 2, 14} for r in records[1:at])
    records[at][1] = bytes(8)
    path = tmp_path / "other"
    path.write_bytes(b"".join(map(msgpack.packb, records)))
    status, lines = told(path)
    assert status == 1
    assert lines[-1].startswith("diverged at ")
    assert f" after input {inputs}, " in lines[-1]
    del records[at]
    path.write_bytes(b"".join(map(msgpack.packb, records)))
    assert f" after input {inputs}, " in told(path)[1][-1]


def test_an_input_that_is_missing_is_noticed(recorder: Recorder, tmp_path: Path) -> None:
    records = records_of(recorder)
    del records[next(i for i, r in enumerate(records) if r[0] == Tag.DATAGRAM)]
    path = tmp_path / "other"
    path.write_bytes(b"".join(map(msgpack.packb, records)))
    assert told(path)[0] == 1


def test_a_recording_cut_anywhere_is_replayed_up_to_there(
    recorder: Recorder, tmp_path: Path
) -> None:
    whole = b"".join(recorder.lives[1])
    header = len(recorder.lives[1][0])
    path = tmp_path / "cut"
    for end in [header, header + 1, *range(header + 1000, len(whole), len(whole) // 7)]:
        path.write_bytes(whole[:end])
        status, lines = told(path)
        assert status == 0
        assert lines[-1].startswith("identical: ")
    assert "ends in the middle of a record" in lines[-2]


def test_until_stops_there(recorder: Recorder, tmp_path: Path) -> None:
    path = recorder.write(tmp_path / "life", 0)
    status, lines = told(path, until=3.0)
    assert status == 0
    until = float(lines[-1].split(" until ")[1].split(",")[0])
    assert 2.5 < until <= 3.0
    assert all(float(line.split()[0]) <= 3.0 for line in lines[1:-1])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not a recording"),
        (b"some text, or a picture", "is not a recording"),
        (msgpack.packb([1, 2, 3]), "is not a recording"),
        (msgpack.packb(["pastryd-recording", 99]), "has format 99"),
        (msgpack.packb(["pastryd-recording", 1, [bytes(32), "", 0, 0], {}]), "other parameters"),
        (msgpack.packb(["pastryd-recording", 1, 7, 7]), "damaged header"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_in_one_line(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as error:
        told(path)
    assert str(error.value).startswith(f"{path} ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [bytes(100), b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x92\x06\xa1x"],
    ids=["zeros", "no msgpack", "huge array", "no time"],
)
def test_damage_is_told_after_what_is_before_it_was_replayed(
    recorder: Recorder, damage: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"".join(recorder.lives[1][:200]) + damage + b"".join(recorder.lives[1][200:]))
    lines: list[str] = []
    with pytest.raises(ConfigError, match="is damaged after byte"):
        replay_file(path, None, None, lines.append)
    assert lines[-1].startswith("identical: ")


def test_a_failure_of_the_node_is_shown_with_the_input_that_led_to_it(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(node: PastryNode, now: float) -> None:
        raise ZeroDivisionError("made for this test")

    monkeypatch.setattr(PastryNode, "handle_timer", fails)
    status, lines = told(recorder.write(tmp_path / "life", 0))
    assert status == 1
    assert "ZeroDivisionError: made for this test" in lines[-2]
    assert lines[-1].endswith(", timer")


def test_the_command_writes_a_readable_log(recorder: Recorder, tmp_path: Path) -> None:
    path, log = recorder.write(tmp_path / "life", 0), tmp_path / "log"
    result = CliRunner().invoke(sim, ["replay", str(path), "--trace", str(log), "--until", "5"])
    assert result.exit_code == 0
    text = log.read_text("utf-8")
    for wanted in (" start\n", " timer\n", "Ranges(nonce=", "  disk WriteItem", "node_active"):
        assert wanted in text
