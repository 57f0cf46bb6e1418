"""Large blobs in a scenario: put and got as `client.py` does it, item by item, with real chunks.

Chunks first, then manifests, the index entry last; a get goes the other way and hashes the whole.
Each part is an item that the workload puts and gets, so that what the checkers watch for single
items they watch for every part. A blob is acknowledged when all its parts are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from pastryd.ids import Name
from pastryd.protocol.items import CHUNK_BYTES, IndexEntry, Manifest, ManifestBuilder, name_of
from pastryd.sim.checkers import CheckError
from pastryd.sim.scenario import Scenario
from pastryd.sim.workload import Get, Workload
from pastryd.sim.world import SimNode

SIZES = (CHUNK_BYTES + 1, CHUNK_BYTES + 200_000, 2 * CHUNK_BYTES)
STALLED_RETRY_S = 0.05


@dataclass(slots=True)
class LargeGet:
    """A get of a whole blob under way, and how it ended."""

    node: SimNode
    entry: Name
    failed: Get | None = None
    """The part that did not come."""
    whole: bool = False


class LargeBlobs:
    """The large blobs of one scenario."""

    def __init__(self, scenario: Scenario, workload: Workload, rng: Random) -> None:
        self._scenario = scenario
        self._workload = workload
        self._rng = rng
        self.acknowledged: list[Name] = []
        """Their index entries."""

    # -- puts --

    def put(self, node: SimNode) -> None:
        """Put random bytes through a node."""
        value = self._rng.randbytes(self._rng.choice(SIZES))
        chunks = [value[i : i + CHUNK_BYTES] for i in range(0, len(value), CHUNK_BYTES)]
        builder = ManifestBuilder()
        manifests = [m for chunk in chunks for m in builder.add(name_of(chunk), len(chunk))]
        manifests += builder.finish()
        entry = IndexEntry(name_of(value), manifests[-1][0], len(value))
        self._workload.key_of[entry.name] = entry.key
        waves = [
            [(name_of(chunk), chunk) for chunk in chunks],
            manifests,
            [(entry.name, entry.encode())],
        ]
        self._workload.count("large puts")
        self._put_wave(node, iter(waves))

    def _put_wave(self, node: SimNode, waves: Iterator[list[tuple[Name, bytes]]]) -> None:
        if not node.running:
            return
        if node.stalled_since is not None:
            self._later(STALLED_RETRY_S, node, waves)
            return
        wave = next(waves, None)
        if wave is None:
            return
        left = len(wave)

        def stored(full: bool) -> None:
            nonlocal left
            left -= full
            if left:
                return
            name = wave[0][0]
            if name in self._workload.key_of:
                self._workload.count("large acknowledged")
                self.acknowledged.append(name)
            else:
                self._later(0.0, node, waves)

        for name, value in wave:
            self._workload.put_item(node, name, value, stored)

    def _later(
        self, wait_s: float, node: SimNode, waves: Iterator[list[tuple[Name, bytes]]]
    ) -> None:
        """Go on in a step of its own, as in `_next`."""
        world = self._scenario.world
        world.at(world.now + wait_s, self._put_wave, node, waves)

    # -- gets --

    def get(self, node: SimNode, entry: Name) -> LargeGet:
        """Get the blob of an acknowledged index entry through a node."""
        get = LargeGet(node, entry)
        self._workload.get(node, entry, lambda part: self._entry_came(get, part))
        return get

    def _entry_came(self, get: LargeGet, part: Get) -> None:
        if self._came(get, part):
            entry = IndexEntry.decode(self._workload.acknowledged[part.name])
            self._next(get, entry.manifest, partial(self._manifest_came, get, entry))

    def _manifest_came(self, get: LargeGet, entry: IndexEntry, part: Get) -> None:
        if self._came(get, part):
            manifest = Manifest.decode(self._workload.acknowledged[part.name], entry.size)
            names = [name for name, _ in manifest.parts()]
            came: dict[Name, bytes] = {}
            for name in names:
                self._next(get, name, partial(self._chunk_came, get, entry.key, names, came))

    def _chunk_came(
        self, get: LargeGet, key: Name, names: list[Name], came: dict[Name, bytes], part: Get
    ) -> None:
        if self._came(get, part):
            came[part.name] = self._workload.acknowledged[part.name]
            if len(came) == len(names):
                if name_of(b"".join(came[name] for name in names)) != key:
                    raise CheckError("wrong bytes", f"large blob {key.hex()[:8]}")
                get.whole = True
                self._workload.count("large gets ok")

    def _came(self, get: LargeGet, part: Get) -> bool:
        if not part.brought_it and get.failed is None:
            get.failed = part
            self._workload.count("large gets failed")
        return part.brought_it

    def _next(self, get: LargeGet, name: Name, then: Callable[[Get], None]) -> None:
        """Ask for a part in a step of its own: who is told of an end is in the midst of one."""

        def ask() -> None:
            if get.node.running:
                self._workload.get(get.node, name, then)

        world = self._scenario.world
        world.at(world.now, ask)
