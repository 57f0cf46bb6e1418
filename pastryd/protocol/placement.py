"""Where items belong, as far as our own leaf set knows (DESIGN sec. 6): replica sets as peers.

Pure functions over the shared context; infrastructure that all machines may use. Who is not sure
(`knows` is False) must ask the root (`lookup.py`); `likely_holder` guesses, for those who can be
wrong.
"""

from itertools import chain

from pastryd.ids import RING, RING_MASK, Position, clockwise, ring_distance, shared_prefix
from pastryd.protocol.context import Context
from pastryd.state.handle import Handle
from pastryd.state.peers import Liveness, Peer
from pastryd.state.tuning import ring_size

WRONG_GUESS = 2.0
"""What it takes to ask a node that does not hold the item, in mean round trips to our leaf set,
whose members may be anywhere: it turns the question to another one. Measured (decision 0031)."""


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


def others_known(context: Context) -> int:
    """Return how many other nodes the ring has, as far as we know; k or more need no exact count.

    What a root says may be short of it: it may lie, or be cut off from its own neighbours.
    """
    members = context.leaf_set.members()
    if len(members) >= context.config.replicas:
        return len(members)
    others = {handle.id for handle in chain(members, context.table.entries())}
    if not others and any(peer.active or peer.liveness is Liveness.DEAD for peer in context.peers):
        # Rather than that all others died we are cut off from them, or they answer our Hello and do
        # not let us in, as when a later life of ours runs elsewhere. Who leaves says so.
        return 1
    return len(others)


def is_ours(context: Context, position: Position) -> bool:
    """Tell whether we are among the k closest to a position."""
    return None in context.leaf_set.replica_set(position, context.config.replicas)


def distance_s(context: Context, peer: Peer) -> float:
    """Return how far a peer is, for choosing the nearest: not measured counts as rather far."""
    srtt_s = peer.srtt_s
    return context.config.rto_initial_s if srtt_s is None else srtt_s


def likely_holder(context: Context, position: Position, next_hop: Handle) -> Handle | None:
    """Return who answers a question for an item sooner than its route would, as far as we can tell.

    None: the route's `next_hop` is as good as anybody. The density of ids says how likely a node is
    to be one of the k closest (Rowstron & Druschel 2001, sec. 2.5): for certain at the position
    itself, hardly ever k mean gaps away from it. To whom this leads is closer to the position than
    we and shares as many digits with it, as with each hop of a route.
    """
    leaf_set, table, peers = context.leaf_set, context.table, context.peers
    if leaf_set.spans_ring:
        return None
    bits = table.bits_per_digit
    row = shared_prefix(leaf_set.owner, position, bits)
    reach = int(context.config.replicas * RING / ring_size(leaf_set))
    closer_than = min(reach, ring_distance(position, leaf_set.owner))
    start, width = position - closer_than + 1, 2 * closer_than - 1
    members = leaf_set.members()
    rows = [table.row(number) for number in table.row_numbers if number >= row]
    likely = [
        handle
        for handle in chain(members, *rows)
        if (handle.id - start) & RING_MASK < width
        and shared_prefix(handle.id, position, bits) >= row
        and context.usable(handle.id)
    ]
    if not likely:
        return None
    anywhere_s = sum([distance_s(context, peers.of(handle)) for handle in members]) / len(members)

    def expected_s(handle: Handle) -> float:
        """Return the round trip to a node, and what it takes if that is a wrong guess."""
        peer = peers.get(handle.id)
        rtt_s = (peer.srtt_s if peer is not None else None) or table.rtt_of(handle.id)
        wrong = min(1.0, ring_distance(position, handle.id) / reach)
        return (rtt_s or context.config.rto_initial_s) + WRONG_GUESS * anywhere_s * wrong

    best = min(likely, key=expected_s)
    return best if expected_s(best) < expected_s(next_hop) else None
