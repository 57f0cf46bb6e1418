"""One run from one seed: faults at random, then peace, with checkers all along (DESIGN sec. 9).

What a swarm is like is drawn first (`Options`). In the safety phase anything may fail, but what was
acknowledged is safe; in the liveness phase faults have stopped and all must become as it should be.
Owns the two phases and how a run is told; faults, workload and checkers have their own files.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TextIO

from pastryd.sim import checkers, faults
from pastryd.sim.checkers import MERGE_PERIODS, CheckError, Copies, Load
from pastryd.sim.fault_draws import REPAIR_WINDOW_S, FaultDraws
from pastryd.sim.large import LargeBlobs
from pastryd.sim.logbook import tell
from pastryd.sim.options import Options
from pastryd.sim.scenario import Scenario
from pastryd.sim.workload import Workload
from pastryd.sim.world import SimNode
from pastryd.state.handle import Endpoint

Echo = Callable[[str], object]
Show = Callable[[int, int], object]

CALM_WINDOW_S = 30.0
LIVENESS_S = 120.0
LARGE_GET_CHANCE = 0.15
"""In each step of the safety phase, once there is a large blob."""
SENT_PER_S_MAX = 4000.0
"""Datagrams of one node in one second: more is a storm."""
LARGE_SENT_PER_S_MAX = 20_000.0
"""The same where large blobs are: 1,000 of them are a mebibyte."""
IDLE_PER_S_MAX = 6.0
"""Datagrams of a node per second when nothing happens, with the `lan` preset."""


class Stopped(Exception):
    """The run was to go no further."""


class Soak:
    """One run."""

    def __init__(self, seed: int, until: float | None = None, log: TextIO | None = None) -> None:
        """`until`: raise `Stopped` at this virtual time. `log`: write what happens here."""
        self.seed = seed
        self.rng = rng = Random(seed)
        self.options = options = Options.draw(rng)
        self.phase = "safety"
        self._until = until
        model = options.latency_model(Random(rng.getrandbits(64)))
        self.scenario = Scenario(
            rng.getrandbits(64), options.config(), model, write_s=options.write_s
        )
        # Not drawn: seeds from before there were clients that stay are to mean the same.
        staying = seed % 2 == 0
        self.workload = Workload(
            self.scenario, Random(rng.getrandbits(64)), options.clients, staying=staying
        )
        self.workload.on_wrong_delivery = self._wrong_delivery
        self.large = LargeBlobs(self.scenario, self.workload, Random(rng.getrandbits(64)))
        window_s = CALM_WINDOW_S if options.wild else REPAIR_WINDOW_S
        self.copies = Copies(
            self.scenario, self.workload, window_s * options.scale, calm_only=options.wild
        )
        self.load = Load(self.scenario, LARGE_SENT_PER_S_MAX if options.large else SENT_PER_S_MAX)
        self._faults = FaultDraws(self.scenario, options, rng)
        self.idle_per_s = 0.0
        self._ring_since = self.scenario.world.now
        if log is not None:
            self._write_log(log)

    def _write_log(self, log: TextIO) -> None:
        world = self.scenario.world

        def note(text: str) -> None:
            log.write(f"{world.now:12.6f} {text}\n")

        def sent(source: int, destination: Endpoint, data: bytes) -> None:
            to = "nobody"
            if destination in world.by_endpoint:
                to = str(world.place_of(destination))
            elif destination in world.others:
                to = "client"
            note(f"  {source} -> {to} {tell(data)}")

        note(f"seed {self.seed} {self.options}")
        self.scenario.note = note
        world.on_datagram = sent
        world.on_logged = lambda node, event: note(
            f"  node {node.number} {event.event} {event.fields}"
        )

    # -- time --

    def _advance(self, seconds: float) -> None:
        world = self.scenario.world
        end = world.now + seconds
        while world.now < end:
            step_s = min(end - world.now, self.options.scale)
            if self._until is not None and world.now + step_s >= self._until:
                world.run(max(self._until - world.now, 0.0))
                raise Stopped
            world.run(step_s)
            if not any(node.core.active for node in world.live):
                self._ring_since = world.now
            self.copies.check()
            self.load.check()

    # -- the safety phase --

    def _wrong_delivery(self, node: SimNode, closer: SimNode) -> None:
        """Nobody delivers for a key that is another's, where no loss or cut may excuse it."""
        scenario, world = self.scenario, self.scenario.world
        # Where all fell silent several may each have begun a ring, which then have to merge.
        calm_s = min(scenario.calm_for_s, world.now - self._ring_since)
        window_s = REPAIR_WINDOW_S * self.options.scale
        known = node.core.context.leaf_set, closer.core.context.leaf_set
        if closer.id not in known[0] and node.id not in known[1]:
            window_s += MERGE_PERIODS * world.config.merge_s  # they are still in two rings
        if calm_s >= window_s and not world.links.loss:
            text = f"by node {node.number}; node {closer.number} is closer"
            raise CheckError("wrong delivery", text)

    def run(self) -> None:
        """Do it all. Raises whatever a checker or a node finds wrong."""
        options, scenario, scale = self.options, self.scenario, self.options.scale
        scenario.note("begin")
        for _ in range(options.size):
            scenario.join(1, clock_rate=self._faults.clock_rate())
        self._advance(15 * scale)
        scenario.apply(faults.Weather(options.loss, options.duplication, options.reordering))
        for _ in range(options.steps):
            self._work()
            if options.kinds and self.rng.random() < options.fault_chance:
                self._happen()
            self._advance(self.rng.choice([0.1, 0.5, 2.0]) * scale)
        self.phase = "liveness"
        scenario.heal()
        for _ in range(scenario.reconnect()):
            self.workload.count("rings told of another")
        for node in scenario.live:
            scenario.scrub(scenario.machine_of(node))
        self._liveness()

    def _work(self) -> None:
        workload, up = self.workload, self.scenario.up
        for action in (self._put, self._get, workload.route):
            if up and self.rng.random() < 0.8:
                action(self.rng.choice(up))
        if up and self.rng.random() < self.options.large / self.options.steps:
            self.large.put(self.rng.choice(up))
        if up and self.large.acknowledged and self.rng.random() < LARGE_GET_CHANCE:
            self.large.get(self.rng.choice(up), self.rng.choice(self.large.acknowledged))

    def _put(self, node: SimNode) -> None:
        self.workload.put(node)

    def _get(self, node: SimNode) -> None:
        if self.workload.acknowledged:
            self.workload.get(node, self.rng.choice(list(self.workload.acknowledged)))

    def _happen(self) -> None:
        kind = self.rng.choice(self.options.kinds)
        fault = self._faults.draw(kind) if self.scenario.up else None
        if fault is not None:
            self.scenario.apply(fault)

    # -- the liveness phase --

    def _wait(self, wrong: Callable[[], list[str]], checker: str, limit_s: float) -> None:
        end = self.scenario.world.now + limit_s * self.options.scale
        while found := wrong():
            if self.scenario.world.now >= end:
                raise CheckError(checker, f"{len(found)}, first: {found[0]}")
            self._advance(self.options.scale)

    def _liveness(self) -> None:
        """Faults have stopped: what must become true, and when."""
        scenario, workload, scale = self.scenario, self.workload, self.options.scale
        if not scenario.live:
            raise CheckError("soak", "nobody is left")
        self._wait(lambda: checkers.wrong_leaf_sets(scenario), "ring", LIVENESS_S)
        acknowledged = workload.acknowledged
        self._wait(
            lambda: checkers.misplaced(scenario, self.copies, acknowledged), "copies", LIVENESS_S
        )
        self._advance(20 * scale)
        workload.routes.clear()
        wrong_before = workload.counts.get("wrong deliveries", 0)
        failed: list[str] = []
        gets = []
        for name in acknowledged:
            gets.append(workload.get(self.rng.choice(scenario.up), name))
            self._advance(0.01 * scale)
        large = [self.large.get(self.rng.choice(scenario.up), e) for e in self.large.acknowledged]
        for _ in range(50):
            workload.route(self.rng.choice(scenario.up))
        self._advance(20 * scale)
        if workload.routes or workload.counts.get("wrong deliveries", 0) > wrong_before:
            raise CheckError("routes", f"{len(workload.routes)} lost; {workload.counts}")
        for get in gets:
            if get.name not in self.copies.excused and not get.brought_it:
                failed.append(f"{get.name.hex()[:8]} {get.result}")
        for blob in large:
            part = blob.failed
            if not blob.whole and (part is None or part.name not in self.copies.excused):
                failed.append(f"large {blob.entry.hex()[:8]}")
        if failed:
            count = len(gets) + len(large)
            raise CheckError("gets", f"{len(failed)} of {count} failed, first: {failed[0]}")
        self._check_idle()

    def _check_idle(self) -> None:
        scenario, scale = self.scenario, self.options.scale
        self._advance(20 * scale)
        before = {n.number: n.sent for n in scenario.live}
        self._advance(20 * scale)
        self.idle_per_s = checkers.sent_per_node_and_s(scenario.live, before, 20 * scale)
        if self.idle_per_s * scale > IDLE_PER_S_MAX:
            raise CheckError("idle", f"{self.idle_per_s:.1f} datagrams per node and second")
        hung = [
            f"{what} since {since:.1f}"
            for node, what, since in self.workload.under_way.values()
            if node.running
        ]
        if hung:
            raise CheckError("hung", f"{len(hung)} operations never ended, first: {hung[0]}")


# -- running many --


def summary(soak: Soak) -> str:
    """Say in one line what a run did."""
    world = soak.scenario.world
    return (
        f"seed {soak.seed}: trace {world.trace}, {world.datagrams} datagrams, until "
        f"{world.now:.1f}, idle {soak.idle_per_s:.2f}/s, busiest "
        f"{soak.load.sent_per_s_max:.0f}/s, {len(soak.copies.excused)} excused; "
        f"{_told(soak.workload.counts)}"
    )


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def failure(soak: Soak, error: Exception) -> str:
    """Say in one line what failed, and how to see it again."""
    now = soak.scenario.world.now
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return (
        f"seed {soak.seed} failed in the {soak.phase} phase at {now:.3f}: "
        f"{type(error).__name__}: {text}; replay: pastryd sim soak --seed {soak.seed}"
    )


def soak_many(seeds: Sequence[int], seconds: float | None, echo: Echo, show: Show) -> int:
    """Run many seeds; return how many failed. After `seconds` of real time no other is begun.

    `show` is told after each how many have run and how many of them failed. However it ends,
    Ctrl-C included, the last line counts those that ran to their end and names the next one.
    """
    started = time.monotonic()
    ran = failed = datagrams = 0
    counts = Counter[str]()
    try:
        for seed in seeds:
            if seconds is not None and time.monotonic() - started > seconds:
                break
            soak = Soak(seed)
            try:
                soak.run()
            except Exception as error:  # the harness reports whatever broke
                failed += 1
                echo(failure(soak, error))
            ran += 1
            datagrams += soak.scenario.world.datagrams
            counts.update(soak.workload.counts)
            show(ran, failed)
    finally:
        elapsed_s = time.monotonic() - started
        rest = f"; next is seed {seeds[ran]}" if ran < len(seeds) else ""
        echo(
            f"{ran} seeds, {failed} failed, {datagrams} datagrams, {elapsed_s:.0f} s{rest}; "
            f"{_told(counts)}"
        )
    return failed


def soak_one(seed: int, trace_file: Path | None, until: float | None, echo: Echo) -> int:
    """Run one seed and tell about it; return 1 if it failed."""
    with ExitStack() as stack:
        log = None
        if trace_file is not None:
            log = stack.enter_context(trace_file.open("w", encoding="utf-8"))
        soak = Soak(seed, until, log)
        echo(f"seed {seed}: {soak.options}")
        try:
            soak.run()
        except Stopped:
            pass
        except Exception as error:  # the harness reports whatever broke
            soak.scenario.note(f"FAILED {error}")
            echo(failure(soak, error))
            return 1
        echo(summary(soak))
    return 0
