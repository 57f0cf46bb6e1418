"""The routing rule (Rowstron & Druschel 2001, sec. 2.3): which node is the next hop for a key.

A pure function of the three tables and of who is usable just now. Each hop lengthens the prefix
shared with the key, or keeps it and comes closer; who has the key under its leaf set takes only
leaf-set steps. Knows no messages; the hop bound is kept by the caller.
"""

from collections.abc import Callable, Collection
from itertools import chain

from pastryd.ids import NodeId, rank, shared_prefix
from pastryd.state.handle import Handle
from pastryd.state.leaf_set import LeafSet
from pastryd.state.neighborhood import NeighborhoodSet
from pastryd.state.routing_table import RoutingTable


def next_hop(
    key: int,
    leaf_set: LeafSet,
    table: RoutingTable,
    neighborhood: NeighborhoodSet,
    usable: Callable[[NodeId], bool],
    exclude: Collection[int] = (),
) -> Handle | None:
    """Return where a message for `key` goes next; None: deliver it here.

    `usable` says who is not suspected; `exclude` names those already tried for this message.
    """
    if leaf_set.covers(key):
        best = leaf_set.closest(key, exclude)
        if best is None or usable(best.id):
            return best
        for handle in leaf_set.replica_set(key, len(leaf_set) + 1, exclude):
            if handle is None or usable(handle.id):
                return handle
    entry = table.lookup(key)
    if entry is not None and entry.id not in exclude and usable(entry.id):
        return entry
    return _rare_case(key, leaf_set, table, neighborhood, usable, exclude)


def _rare_case(
    key: int,
    leaf_set: LeafSet,
    table: RoutingTable,
    neighborhood: NeighborhoodSet,
    usable: Callable[[NodeId], bool],
    exclude: Collection[int],
) -> Handle | None:
    """Of all we know that share as much with the key and are closer, take the longest prefix.

    Nearest in id decides among equals. Entries of lower rows share less than we do: not looked at.
    """
    bits = table.bits_per_digit
    row = shared_prefix(table.owner, key, bits)
    own_rank = rank(key, table.owner)
    best: Handle | None = None
    best_prefix, best_rank = -1, own_rank
    rows = (table.row(index) for index in table.row_numbers if index >= row)
    for handle in chain(leaf_set.members(), *rows, neighborhood.members()):
        node_id = handle.id
        prefix = shared_prefix(node_id, key, bits)
        if prefix < row or prefix < best_prefix:
            continue
        closeness = rank(key, node_id)
        if closeness >= own_rank or (prefix == best_prefix and closeness >= best_rank):
            continue
        if node_id in exclude or not usable(node_id):
            continue
        best, best_prefix, best_rank = handle, prefix, closeness
    return best
