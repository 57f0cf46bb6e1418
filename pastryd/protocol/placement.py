"""Where items belong, as far as our own leaf set knows (DESIGN sec. 6): replica sets as peers.

Pure functions over the shared context; infrastructure that all machines may use. Who is not sure
(`knows` is False) must ask the root (`lookup.py`).
"""

from pastryd.ids import Position, clockwise, ring_distance
from pastryd.protocol.context import Context
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer


def knows(context: Context, position: Position) -> bool:
    """Tell whether the replica set of a position follows from our leaf set alone.

    The root is known wherever the leaf set covers; near its ends others, whom we do not know, may
    be closer than the last of the k that we see.
    """
    leaf_set = context.leaf_set
    if leaf_set.spans_ring:
        # After many deaths at once a leaf set may take a larger ring for one that it spans.
        return all(handle.id in leaf_set for handle in context.table.entries())
    if not leaf_set.covers(position):
        return False
    last = leaf_set.replica_set(position, context.config.replicas)[-1]
    reach = ring_distance(position, leaf_set.owner if last is None else last.id)
    leftmost, rightmost = leaf_set.extremes
    left = leaf_set.owner if leftmost is None else leftmost.id
    right = leaf_set.owner if rightmost is None else rightmost.id
    return clockwise(left, position) >= reach and clockwise(position, right) >= reach


def closest(context: Context, position: Position, count: int) -> list[Peer | None]:
    """Return the `count` closest nodes that we know, root first; None is us."""
    of = context.peers.of
    return [
        None if handle is None else of(handle)
        for handle in context.leaf_set.replica_set(position, count)
    ]


def handles(context: Context, position: Position, count: int) -> tuple[Handle, ...]:
    """Return the same as handles, for a message."""
    return tuple(
        context.identity if handle is None else handle
        for handle in context.leaf_set.replica_set(position, count)
    )


def is_ours(context: Context, position: Position) -> bool:
    """Tell whether we are among the k closest to a position."""
    return None in context.leaf_set.replica_set(position, context.config.replicas)


def distance_s(context: Context, peer: Peer) -> float:
    """Return how far a peer is, for choosing the nearest: not measured counts as rather far."""
    srtt_s = peer.srtt_s
    return context.config.rto_initial_s if srtt_s is None else srtt_s
