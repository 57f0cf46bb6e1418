"""Who is guessed to hold an item by those who do not know its replica set (decision 0031)."""

from random import Random

from pastryd.config import Config
from pastryd.ids import RING, NodeId, Position
from pastryd.protocol.context import Context
from pastryd.protocol.placement import likely_holder
from pastryd.state.handle import Handle
from pastryd.state.peers import Liveness
from tests.support.builders import handle_at

GAP = RING // 1_000
KEY = Position(5 << 124)
"""The first key with the digit 5: who is next to it on the other side has the digit 4."""


class Node:
    """A node of a ring of a thousand, whose leaf set is 0.1 s away."""

    def __init__(self, owner: int = 0) -> None:
        self.context = Context(handle_at(owner), Config.wan(replicas=3), Random(1))
        for number in range(1, 9):
            for node_id in (owner + number * GAP, owner - number * GAP):
                handle = handle_at(node_id % RING)
                self.context.leaf_set.add(handle)
                self.context.peers.of(handle).sample_rtt(0.1)
        self.next_hop = self.entry(KEY + RING // 20, 0.02)

    def entry(self, node_id: int, rtt_s: float | None) -> Handle:
        """Return a node in the routing table; None: nobody has measured it."""
        handle = handle_at(node_id)
        assert self.context.table.consider(handle, rtt_s)
        if rtt_s is not None:
            self.context.peers.of(handle).sample_rtt(rtt_s)
        return handle

    def guess(self) -> NodeId | None:
        """Return who is guessed."""
        handle = likely_holder(self.context, KEY, self.next_hop)
        return None if handle is None else handle.id


def test_who_is_next_to_the_key_is_guessed_before_a_nearer_node_far_from_it() -> None:
    node = Node()
    assert node.guess() is None
    likely = node.entry(KEY - GAP // 2, 0.05)
    assert node.guess() == likely.id


def test_a_far_node_is_not_worth_the_guess() -> None:
    node = Node()
    node.entry(KEY - GAP // 2, 0.3)
    assert node.guess() is None


def test_a_node_that_nobody_has_measured_counts_as_far() -> None:
    node = Node()
    node.entry(KEY - GAP // 2, None)
    assert node.guess() is None


def test_the_next_hop_stays_if_it_is_as_likely_and_nearer() -> None:
    node = Node()
    node.next_hop = handle_at(KEY + GAP // 2)
    node.context.peers.of(node.next_hop).sample_rtt(0.02)
    node.entry(KEY - GAP // 2, 0.05)
    assert node.guess() is None


def test_who_is_further_than_the_replica_set_can_reach_is_not_guessed_however_near() -> None:
    node = Node()
    node.entry(KEY - 4 * GAP, 0.001)
    assert node.guess() is None


def test_a_suspect_is_not_guessed() -> None:
    node = Node()
    likely = node.entry(KEY - GAP // 2, 0.05)
    node.context.peers.of(likely).liveness = Liveness.SUSPECT
    assert node.guess() is None


def test_who_shares_fewer_digits_with_the_key_than_we_is_not_guessed() -> None:
    node = Node(KEY + RING // 30)
    node.entry(KEY - GAP // 2, 0.001)
    assert node.guess() is None


def test_nobody_is_guessed_in_a_ring_that_the_leaf_set_spans() -> None:
    context = Context(handle_at(0), Config(), Random(1))
    context.leaf_set.add(handle_at(KEY - GAP))
    assert likely_holder(context, KEY, handle_at(KEY + GAP)) is None
