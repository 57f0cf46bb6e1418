"""Routing table and next hop: proximity, hysteresis, and the rule's cases one by one."""

from pastryd.ids import NodeId, Position
from pastryd.state.handle import Handle
from pastryd.state.leaf_set import LeafSet
from pastryd.state.neighborhood import NeighborhoodSet
from pastryd.state.routing import next_hop
from pastryd.state.routing_table import RoutingTable
from tests.support.builders import handle_at, handles_at

OWNER = Position(0)
A, B, C = handles_at(0x1 << 124, 0x1F << 120, 0x15 << 120)  # all of slot (0, 1)


def test_an_empty_slot_takes_anything_at_once() -> None:
    table = RoutingTable(OWNER)
    assert table.consider(A, None)
    assert table.get(0, 1) == table.lookup(0x12 << 120) == A
    assert table.rtt_of(A.id) is None and table.rows_filled == 1


def test_only_a_clearly_nearer_node_replaces_the_holder() -> None:
    table = RoutingTable(OWNER)
    table.consider(A, 0.100)
    assert not table.consider(B, None)
    assert not table.consider(B, 0.095)
    assert table.consider(B, 0.080)
    assert table.rtt_of(B.id) == 0.080 and table.rtt_of(A.id) is None


def test_a_measured_node_replaces_an_unmeasured_one() -> None:
    table = RoutingTable(OWNER)
    table.consider(A, None)
    assert not table.consider(B, None)
    assert table.consider(B, 3.0)


def test_the_holder_is_refreshed_but_never_to_an_older_incarnation() -> None:
    table = RoutingTable(OWNER)
    table.consider(A, 0.1)
    reborn = handle_at(A.id, incarnation=2)
    assert table.consider(reborn, None) and table.rtt_of(A.id) == 0.1
    assert not table.consider(A, 0.2) and table.rtt_of(A.id) == 0.2
    assert table.lookup(A.id) == reborn and len(table) == 1


def test_discard_empties_only_the_holders_slot() -> None:
    table = RoutingTable(OWNER)
    table.consider(A, 0.1)
    assert not table.discard(B.id) and not table.discard(OWNER)
    assert table.discard(A.id) and table.rows_filled == 0 and list(table.entries()) == []
    assert table.consider(B, None), "the old RTT does not linger"


def test_the_owner_gets_no_slot() -> None:
    table = RoutingTable(OWNER)
    assert not table.consider(handle_at(OWNER), 0.0) and not table.wanted_s(OWNER)
    assert table.lookup(OWNER) is None


def hop(
    key: int,
    leaf: list[Handle],
    table: list[Handle],
    near: list[Handle],
    unusable: tuple[NodeId, ...] = (),
    exclude: tuple[NodeId, ...] = (),
) -> Handle | None:
    leaf_set, routing = LeafSet(OWNER, 2), RoutingTable(OWNER)
    neighborhood = NeighborhoodSet(OWNER, 4)
    for handle in leaf:
        leaf_set.add(handle)
    for handle in table:
        routing.consider(handle, None)
    for handle in near:
        neighborhood.consider(handle, 0.1)
    return next_hop(key, leaf_set, routing, neighborhood, lambda i: i not in unusable, exclude)


LEAVES = handles_at(1 << 20, (1 << 128) - (1 << 20))
KEY = 0x13 << 120


def test_outside_the_leaf_set_the_table_decides() -> None:
    assert hop(KEY, LEAVES, [A], [C]) == A


def test_an_unusable_or_excluded_entry_is_the_rare_case() -> None:
    assert hop(KEY, LEAVES, [A], [C], unusable=(A.id,)) == C
    assert hop(KEY, LEAVES, [A], [C], exclude=(A.id,)) == C


def test_the_rare_case_prefers_the_longest_prefix_then_the_nearest() -> None:
    d = handle_at(0x138 << 116)
    assert hop(KEY, LEAVES, [], [A, B, C, d]) == d
    assert hop(KEY, LEAVES, [], [A, B, C]) == C


def test_with_nobody_nearer_it_is_delivered_here() -> None:
    assert hop(KEY, LEAVES, [], []) == LEAVES[0]
    assert hop(KEY, LEAVES, [], [C], exclude=(C.id, LEAVES[0].id)) is None


def test_inside_the_leaf_set_a_suspect_root_is_passed_over_for_the_next_closest() -> None:
    assert hop(1 << 20, LEAVES, [], []) == LEAVES[0]
    assert hop(1 << 20, LEAVES, [], [], unusable=(LEAVES[0].id,)) is None
