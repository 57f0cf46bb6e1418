"""Routing table and the routing rule: correct slots, and progress with every hop."""

from hypothesis import given
from hypothesis import strategies as st

from pastryd.ids import NodeId, digit, rank, shared_prefix
from pastryd.state.leaf_set import LeafSet
from pastryd.state.neighborhood import NeighborhoodSet
from pastryd.state.routing import next_hop
from pastryd.state.routing_table import RoutingTable
from tests.support.builders import handle_at, positions, rings
from tests.support.oracle import true_root

Ring = tuple[NodeId, list[NodeId]]
rtts = st.one_of(st.none(), st.floats(0.0, 0.5))
digits = st.sampled_from([1, 2, 4, 8])


@given(rings(), digits, st.lists(st.tuples(st.booleans(), st.integers(0, 39), rtts)))
def test_each_entry_stands_in_its_own_slot(
    ring: Ring, bits: int, steps: list[tuple[bool, int, float | None]]
) -> None:
    owner, others = ring
    table = RoutingTable(owner, bits)
    model: dict[tuple[int, int], int] = {}
    for adding, number, rtt_s in steps:
        if number >= len(others):
            continue
        node_id = others[number]
        slot = table.slot_of(node_id)
        assert slot[0] == shared_prefix(owner, node_id, bits)
        assert slot[1] == digit(node_id, slot[0], bits) != digit(owner, slot[0], bits)
        if adding:
            near = rtt_s is not None and rtt_s < table.wanted_s(node_id)
            expected = slot not in model or near
            assert table.consider(handle_at(node_id), rtt_s) == expected
            if expected:
                model[slot] = node_id
        else:
            assert table.discard(node_id) == (model.get(slot) == node_id)
            if model.get(slot) == node_id:
                del model[slot]
        table.check_invariants()
        assert [h.id for h in table.entries()] == [model[slot] for slot in sorted(model)]
        assert len(table) == len(model)
        entry = table.lookup(node_id)
        assert (entry.id if entry else None) == model.get(slot)
        assert table.get(*slot) == entry


@given(rings(nodes_min=1), digits, st.data())
def test_a_hop_makes_progress_and_never_returns_the_owner(
    ring: Ring, bits: int, data: st.DataObject
) -> None:
    owner, others = ring
    leaf_set = LeafSet(owner, 4)
    table = RoutingTable(owner, bits)
    neighborhood = NeighborhoodSet(owner, 4)
    for node_id in others:
        where = data.draw(st.integers(0, 7))
        if where & 1:
            leaf_set.add(handle_at(node_id))
        if where & 2:
            table.consider(handle_at(node_id), None)
        if where & 4:
            neighborhood.consider(handle_at(node_id), 0.1)
    key = data.draw(positions(owner))
    exclude = data.draw(st.lists(st.sampled_from(others), unique=True))
    suspects = data.draw(st.lists(st.sampled_from(others), unique=True))
    hop = next_hop(key, leaf_set, table, neighborhood, lambda i: i not in suspects, exclude)
    known = [h.id for h in (*leaf_set.members(), *table.entries(), *neighborhood.members())]
    usable = [i for i in known if i not in exclude and i not in suspects]
    own_prefix = shared_prefix(owner, key, bits)
    if hop is None:
        if leaf_set.covers(key):
            usable = [i for i in usable if i in leaf_set]
        else:
            usable = [i for i in usable if shared_prefix(i, key, bits) >= own_prefix]
        assert true_root(key, [owner, *usable]) == owner
        return
    assert hop.id != owner and hop.id in usable
    if leaf_set.covers(key):
        assert rank(key, hop.id) < rank(key, owner)
        assert hop.id == true_root(key, [owner, *(i for i in usable if i in leaf_set)])
    else:
        prefix = shared_prefix(hop.id, key, bits)
        closer = rank(key, hop.id) < rank(key, owner)
        assert prefix > own_prefix or (prefix == own_prefix and closer)


@given(st.lists(positions(), min_size=1, max_size=25, unique=True), positions())
def test_with_true_leaf_sets_every_route_ends_at_the_root(ids: list[NodeId], key: NodeId) -> None:
    at = ids[0]
    visited = [at]
    while True:
        leaf_set, table = LeafSet(at, 4), RoutingTable(at)
        for node_id in ids:
            leaf_set.add(handle_at(node_id))
            table.consider(handle_at(node_id), None)
        hop = next_hop(key, leaf_set, table, NeighborhoodSet(at, 4), lambda _: True)
        if hop is None:
            break
        at = hop.id
        assert at not in visited
        visited.append(at)
    assert at == true_root(key, ids)


@given(rings(), st.lists(st.tuples(st.integers(0, 39), st.floats(0, 1), st.booleans())))
def test_the_neighborhood_holds_the_nearest(
    ring: Ring, steps: list[tuple[int, float, bool]]
) -> None:
    owner, others = ring
    neighborhood = NeighborhoodSet(owner, 4)
    for number, rtt_s, adding in steps:
        if number >= len(others):
            continue
        node_id = others[number]
        before = neighborhood.members()
        if adding:
            changed = neighborhood.consider(handle_at(node_id), rtt_s)
            if node_id in neighborhood:
                assert neighborhood.rtt_of(node_id) == rtt_s
        else:
            changed = neighborhood.discard(node_id)
            assert node_id not in neighborhood
        neighborhood.check_invariants()
        same = {h.id for h in before} == {h.id for h in neighborhood.members()}
        assert changed == (not same)
        left = [h for h in before if h not in neighborhood.members() and h.id != node_id]
        assert not left or len(neighborhood) == 4, "pushed out though there was room"
