"""What must be true: all the time, and in the end. Naive on purpose: sort everything, count all.

`Copies` watches where good copies of acknowledged blobs are; `Load` what nodes send and keep. The
functions below them say what is wrong once faults have stopped. What is checked after every step
is the node's own business (`PastryNode.check_invariants`).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pastryd.ids import Name, NodeId, position_of, rank
from pastryd.protocol.search_state import Failure
from pastryd.sim.world import SimNode

if TYPE_CHECKING:
    from pastryd.sim.scenario import Scenario
    from pastryd.sim.workload import Get, Workload

TIMERS_MAX = 20_000
REQUESTS_MAX = 4000
PULLS_MAX = 200
PEERS_MAX = 600
"""Machines, and clients of late."""
MISSING_MAX = 2000
MERGE_PERIODS = 5
"""Of `merge_s`: within so many, rings that were split have looked for each other (0012)."""


class CheckError(AssertionError):
    """A checker found something that must not be."""

    def __init__(self, checker: str, text: str) -> None:
        super().__init__(f"{checker}: {text}")
        self.checker = checker


def closest(position: int, ids: Iterable[NodeId], k: int) -> list[NodeId]:
    """Return the k closest ids, closest first."""
    return sorted(ids, key=lambda node_id: rank(position, node_id))[:k]


class Copies:
    """Where good copies of acknowledged blobs are, and when they went."""

    def __init__(
        self, scenario: "Scenario", workload: "Workload", window_s: float, calm_only: bool
    ) -> None:
        """`window_s`: in which a lost copy is repaired; `calm_only`: counts only calm time.

        That is for swarms in which anything may happen to the network while nodes die.
        """
        self._scenario = scenario
        self._workload = workload
        self._window_s = window_s
        self._calm_only = calm_only
        self._losses: dict[Name, list[tuple[float, int]]] = {}
        """When copies were lost, and on which machines."""
        self._bystanders: dict[Name, list[int]] = {}
        """Machines that ran when the last copy was lost, and had run for a window: a ring of two
        keeps two copies, and who has just come has none yet."""
        self.excused: dict[Name, None] = {}
        """Blobs that lost all their holders within one window: nobody can bring them back."""
        self._gone_at: dict[Name, float] = {}
        scenario.on_copies_lost.append(self._note_loss)
        workload.on_acknowledged = self._on_acknowledged
        workload.on_get = self._on_get

    @property
    def _clock(self) -> float:
        scenario = self._scenario
        return scenario.calm_s if self._calm_only else scenario.world.now

    def holders(self, name: Name) -> list[SimNode]:
        """Return the running nodes that have a good copy."""
        value = self._workload.acknowledged[name]
        return [n for n in self._scenario.live if n.disk.items.get(name) == value]

    def _note_loss(self, node: SimNode, name: Name | None) -> None:
        now, machine = self._clock, self._scenario.machine_of(node)
        before = self._scenario.world.now - self._window_s
        settled = [n for n in self._scenario.live if n is not node and n.started_at <= before]
        bystanders = [self._scenario.machine_of(n) for n in settled]
        for lost in node.disk.items if name is None else (name,):
            self._losses.setdefault(lost, []).append((now, machine))
            self._bystanders[lost] = bystanders

    def _on_acknowledged(self, name: Name) -> None:
        value = self._workload.acknowledged[name]
        replicas = self._scenario.world.config.replicas
        copies = sum(n.disk.items.get(name) == value for n in self._scenario.machines)
        if copies < replicas and not self._losses.get(name):
            raise CheckError("acknowledged early", f"{name.hex()[:8]} has {copies} copies")

    def _on_get(self, get: "Get") -> None:
        """Not found is wrong while a holder lives that nothing kept from answering."""
        scenario = self._scenario
        if get.result not in (Failure.NOT_FOUND, Failure.CORRUPT) or get.name in self.excused:
            return
        if get.began < scenario.parted_until + self._window_s:
            return
        since = max(
            self._gone_at.get(get.name, 0.0),
            *(t for t, _ in self._losses.get(get.name, [(0.0, 0)])),
        )
        if self._clock - since < self._window_s:
            return
        holders = [
            n
            for n in self.holders(get.name)
            if n.core.active
            and n.stalled_since is None
            and n.started_at < get.began - self._window_s
        ]
        merge_s = MERGE_PERIODS * scenario.world.config.merge_s
        if get.began < scenario.parted_until + self._window_s + merge_s:
            # Two rings may still have to find each other; "not found" is the word of the asked one.
            ring = ring_of(scenario, get.node)
            holders = [n for n in holders if n.id in ring]
        if holders:
            text = f"{get.name.hex()[:8]} has {len(holders)} holders, answer: {get.result}"
            raise CheckError("not found", text)

    def check(self) -> None:
        """Every acknowledged blob has a copy, or all its holders died within one window."""
        k = self._scenario.world.config.replicas
        disks = [node.disk.items for node in self._scenario.live]
        for name, value in self._workload.acknowledged.items():
            if any(items.get(name) == value for items in disks):
                if name in self._gone_at:
                    del self._gone_at[name]
                    self.excused.pop(name, None)
                continue
            if name in self._gone_at:
                self._gone_at[name] = self._clock
                continue
            self._gone_at[name] = self._clock
            if not self._all_died_at_once(name):
                losses = self._losses.get(name, [])
                told = ", ".join(f"machine {m} at {t:.1f}" for t, m in losses[-k:])
                raise CheckError("lost", f"{name.hex()} has no copy; copies lost: {told or 'none'}")
            self._scenario.note(f"excused {name.hex()[:8]}: all holders died at once")
            self.excused[name] = None

    def _all_died_at_once(self, name: Name) -> bool:
        """Tell whether k copies were lost within one window just now, or all that could be."""
        losses = self._losses.get(name)
        if not losses or losses[-1][0] < self._clock - self._window_s:
            return False
        recent = {m for t, m in losses if t >= losses[-1][0] - self._window_s}
        others = [m for m in self._bystanders[name] if m not in recent]
        return not others or len(recent) >= self._scenario.world.config.replicas


def ring_of(scenario: "Scenario", node: SimNode) -> set[NodeId]:
    """Return who is in the ring that a node is in: whom leaf sets lead to, from it on."""
    by_id = {n.id: n for n in scenario.live}
    found, ahead = {node.id}, [node]
    while ahead:
        for handle in ahead.pop().core.context.leaf_set.members():
            if handle.id in by_id and handle.id not in found:
                found.add(handle.id)
                ahead.append(by_id[handle.id])
    return found


class Load:
    """What nodes send, and what they keep."""

    def __init__(self, scenario: "Scenario", sent_per_s_max: float) -> None:
        """`sent_per_s_max`: datagrams that a node may send in a second; more is a storm."""
        self._scenario = scenario
        self._sent_per_s_max = sent_per_s_max
        self._sent: dict[int, int] = {}
        self._at = scenario.world.now
        self.sent_per_s_max = 0.0

    def check(self) -> None:
        """No storm, and nothing kept without bound. Call about every second."""
        now = self._scenario.world.now
        elapsed_s = max(now - self._at, 1.0)  # a short burst is none
        self._at = now
        for node in self._scenario.live:
            sent = node.sent - self._sent.get(node.number, 0)
            self._sent[node.number] = node.sent
            self.sent_per_s_max = max(self.sent_per_s_max, sent / elapsed_s)
            if sent / elapsed_s > self._sent_per_s_max:
                raise CheckError("storm", f"node {node.number} sent {sent} in {elapsed_s:.1f} s")
            context, items = node.core.context, node.core.items
            kept = {
                "timers": (len(context.deadlines), TIMERS_MAX),
                "requests": (len(node.core._requests), REQUESTS_MAX),
                "cached bytes": (items.storage.cache_bytes, 2 * context.config.cache_bytes),
                "peers": (len(context.peers), PEERS_MAX),
                "pulls": (len(items.transfer), PULLS_MAX),
                "missing items": (items.replication.missing, MISSING_MAX),
                "puts": (items.blobs.puts, REQUESTS_MAX),
                "searches": (items.blobs.searches, REQUESTS_MAX),
            }
            for what, (count, limit) in kept.items():
                if count > limit:
                    raise CheckError("unbounded", f"node {node.number}: {count} {what}")


# -- in the end --


def wrong_leaf_sets(scenario: "Scenario") -> list[str]:
    """Return which live nodes are not active or do not have the oracle's leaf set."""
    live = sorted(scenario.live, key=lambda n: n.id)
    ids = [n.id for n in live]
    half = scenario.world.config.leaf_set_size // 2
    wrong = []
    for i, node in enumerate(live):
        expected = {ids[(i + d) % len(ids)] for d in range(-half, half + 1)} - {ids[i]}
        members = {h.id for h in node.core.context.leaf_set.members()}
        if not node.core.active:
            wrong.append(f"node {node.number} is not active")
        elif members != expected:
            lacking, extra = len(expected - members), len(members - expected)
            wrong.append(f"leaf set of node {node.number}: {lacking} missing, {extra} extra")
    return wrong


def misplaced(scenario: "Scenario", copies: Copies, acknowledged: Iterable[Name]) -> list[str]:
    """Return which blobs are not exactly on the k closest live nodes."""
    by_id = {n.id: n for n in scenario.live}
    k = scenario.world.config.replicas
    names: dict[Name, list[NodeId]] = {name: [] for name in acknowledged}
    for node_id, node in by_id.items():
        for name in node.disk.items:
            names.setdefault(name, []).append(node_id)
    wrong = []
    for name, holders in names.items():
        should = closest(position_of(name), by_id, k)
        if sorted(holders) != sorted(should) and name not in copies.excused:
            numbers = [by_id[i].number for i in holders]
            wanted = [by_id[i].number for i in should]
            wrong.append(f"{name.hex()[:8]} on nodes {numbers}, should be on {wanted}")
    return wrong


def sent_per_node_and_s(nodes: Sequence[SimNode], before: dict[int, int], seconds: float) -> float:
    """Return how many datagrams a node sent per second since `before` was taken."""
    return sum(n.sent - before[n.number] for n in nodes) / len(nodes) / seconds
