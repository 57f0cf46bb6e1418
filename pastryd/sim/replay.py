"""Replays one node from the recording of a daemon: same inputs, same node, and the same outputs?

Owns the comparison and what is told of it; reading the file is `recorded.py`'s business.
"""

import traceback
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from pastryd.errors import ConfigError, PastryError
from pastryd.node import PastryNode
from pastryd.protocol.outbox import Destination, Logged
from pastryd.recording import Origin, OutputHash
from pastryd.sim.logbook import tell
from pastryd.sim.recorded import DamagedError, Input, Recording
from pastryd.state.handle import Handle

Echo = Callable[[str], object]


class Replay:
    """A node that is told again what it was told."""

    def __init__(self, recording: Recording, happened: Echo, trace: Echo | None) -> None:
        """`happened` takes a line for each event of the node, `trace` one for everything."""
        self._recording = recording
        origin = recording.origin
        names = list(recording.names())
        self.node = PastryNode(origin.identity, origin.config, origin.rng, names, origin.bytes_held)
        self.items = len(names)
        self.inputs = 0
        self.time_s = 0.0
        """Since the recording began."""
        self.last = "nothing"
        """What it was told last."""
        self.outputs = OutputHash()
        self.diverged = ""
        """Where the outputs were not the recorded ones for the first time."""
        self._happened = happened
        self._trace = trace

    def run(self, until: float | None = None) -> None:
        """Give it all inputs, those up to `until`, in seconds since the beginning.

        Raises `DamagedError` at bytes that are no record, and whatever the node raises.
        """
        has_more = False
        for found in self._recording.inputs():
            if isinstance(found, bytes):
                if found != self.outputs.digest():
                    self._note_divergence()
                has_more = False
                continue
            if has_more:
                self._note_divergence()
            if until is not None and found.now - self._recording.origin.clock > until:
                return
            has_more = self._give(found)

    def _note_divergence(self) -> None:
        if not self.diverged:
            self.diverged = f"at {self.time_s:.6f} after input {self.inputs}, {self.last}"
            self._happened(f"{self.time_s:12.6f} outputs are not the recorded ones from here on")

    def _give(self, found: Input) -> bool:
        """Tell the node one thing; return whether it did anything."""
        self.inputs += 1
        self.time_s = found.now - self._recording.origin.clock
        self.last = _name_of(found)
        if self._trace is not None:
            self._trace(f"{self.time_s:12.6f} {self.last}")
        outbox = self.node.outbox
        found.give(self.node)
        self.node.check_invariants()
        did = self.outputs.take(outbox, (0, 0, 0))
        for event in outbox.events:
            if type(event) is Logged:
                self._happened(f"{self.time_s:12.6f} {event.event} {event.fields}")
        if self._trace is not None:
            for data, destination in outbox.datagrams:
                self._trace(f"{self.time_s:12.6f}   -> {_place_of(destination)} {tell(data)}")
            for request in outbox.store:
                what = f"{type(request).__name__} {request.ticket} {request.name.hex()[:8]}"
                self._trace(f"{self.time_s:12.6f}   disk {what}")
        outbox.datagrams.clear()
        outbox.store.clear()
        outbox.events.clear()
        return did


def _place_of(destination: Destination) -> str:
    if isinstance(destination, Handle):
        return f"{destination.id:032x}"[:8]
    return f"{destination[0]}:{destination[1]}"


def _name_of(found: Input) -> str:
    if found.sender is None:
        return found.tag.name.lower()
    return f"{_place_of(found.sender)} -> {tell(found.data)}"


def replay_file(path: Path, trace_file: Path | None, until: float | None, echo: Echo) -> int:
    """Replay a recording and tell about it; return 1 if it did not go as recorded.

    Raises `ConfigError` when the file is none, or is damaged: then after what is whole.
    """
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        trace: Echo | None = None
        if trace_file is not None:
            log = stack.enter_context(trace_file.open("w", encoding="utf-8"))

            def trace(line: str) -> None:
                log.write(f"{line}\n")

        def happened(line: str) -> None:
            echo(line)
            if trace is not None:
                trace(line)

        try:
            recording = Recording(file)
            again = Replay(recording, happened, trace)
        except PastryError as error:
            raise ConfigError(f"{path} {error}") from None
        echo(_beginning(recording.origin, again.items))
        try:
            again.run(until)
        except DamagedError as error:
            echo(_summary(again))
            raise ConfigError(f"{path} {error}; what is before that was replayed") from None
        except Exception:  # our bug; perhaps the one for which this was recorded
            happened(traceback.format_exc().rstrip())
            happened(f"the node failed at {again.time_s:.6f} on input {again.inputs}, {again.last}")
            return 1
        left = path.stat().st_size - recording.whole_bytes
        if left and until is None:
            echo(
                f"the recording ends in the middle of a record; its last {left} bytes are left out"
            )
        echo(_summary(again))
    return 1 if again.diverged else 0


def _beginning(origin: Origin, items: int) -> str:
    began = datetime.fromtimestamp(origin.began, UTC)
    return (
        f"node {origin.identity.id:032x} with {items} items, recorded from "
        f"{began:%Y-%m-%d %H:%M:%S} UTC on"
    )


def _summary(again: Replay) -> str:
    counts = (
        f"{again.inputs} inputs, {again.outputs.datagrams} datagrams sent, until "
        f"{again.time_s:.3f}, trace {again.outputs.digest().hex()}"
    )
    if again.diverged:
        return f"diverged {again.diverged}; {counts}"
    return f"identical: {counts}"
