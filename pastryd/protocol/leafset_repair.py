"""Short sides of a leaf set are made longer (MSPastry 2004, fig. 2): whom to ask, and when.

Owns the pace of that; who enters on which answer is the business of `leafset_upkeep.py`.
"""

from collections.abc import Callable, Sequence

from pastryd.ids import clockwise
from pastryd.protocol.context import Context
from pastryd.state.deadlines import Timer
from pastryd.state.handle import Handle

REPAIR_INTERVAL_S = 0.05
STEPPING_STONES = 3


class LeafSetRepair:
    """Asks further outwards while a side lacks nodes; slower and slower while that is in vain."""

    __slots__ = ("_ask", "_at", "_context", "_is_active", "_timer", "_version", "_wait_s")

    def __init__(
        self,
        context: Context,
        ask: Callable[[Sequence[Handle], float], None],
        is_active: Callable[[], bool],
    ) -> None:
        """`ask` probes nodes."""
        self._context = context
        self._ask = ask
        self._is_active = is_active
        self._at = float("-inf")
        self._wait_s = REPAIR_INTERVAL_S
        self._version = -1
        self._timer: Timer | None = None

    def begin(self, now: float) -> None:
        """A side is short and nothing is outstanding: ask soon, unless that is under way."""
        if self._timer is not None:
            return
        config, leaf_set = self._context.config, self._context.leaf_set
        # Once we are active others will tell us, or come, before we have to ask; of two who
        # lack each other the left one asks first.
        lacks_right = len(leaf_set.right) < config.leaf_set_size // 2
        patience = (0.5 if lacks_right else 0.9) if self._is_active() else 0.0
        when = max(now + patience * config.heartbeat_s, self._at + self._wait_s)
        self._timer = self._context.deadlines.arm(when, self._repair)

    def _repair(self, now: float) -> None:
        self._timer = None
        self._at = now
        config, leaf_set = self._context.config, self._context.leaf_set
        progressed = leaf_set.version != self._version
        if progressed:
            self._version = leaf_set.version
            self._wait_s = REPAIR_INTERVAL_S
        else:
            self._wait_s = min(2 * self._wait_s, config.leaf_set_exchange_s)
        for side, to_right in ((leaf_set.right, True), (leaf_set.left, False)):
            if len(side) < config.leaf_set_size // 2:
                self._extend(side, to_right, now)
                if self._is_active() and progressed:
                    break  # the left side may come by itself

    def _extend(self, side: Sequence[Handle], to_right: bool, now: float) -> None:
        """Ask the outermost of a short side; an empty side: the nearest that we know that way."""
        if side:
            self._ask(side[-1:], now)
            return
        context = self._context
        own_id = context.identity.id
        known = {h.id: h for h in context.leaf_set.members()}
        known.update((h.id, h) for h in context.table.entries())
        for node_id in sorted(
            known, key=lambda i: clockwise(own_id, i) if to_right else clockwise(i, own_id)
        )[:STEPPING_STONES]:
            self._ask([known[node_id]], now)
