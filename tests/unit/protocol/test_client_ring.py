"""Which nodes a client asks itself (`protocol/client_ring.py`): the right ones, or nobody."""

import json
from dataclasses import replace
from ipaddress import IPv6Address
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pastryd.config import Config
from pastryd.ids import Name, NodeId
from pastryd.protocol.client_ring import GREET_S, LEARN_AFTER, NEAR_S, REFRESH_S, ClientRing
from pastryd.protocol.context import NOBODY, Context
from pastryd.protocol.path_prober import PathProber
from pastryd.protocol.path_window import window_of
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.peers import Peer
from pastryd.wire.codec import decode
from pastryd.wire.messages import Echo, Hello, Welcome
from tests.support.builders import handle_at, name_at, positions, rings
from tests.support.oracle import replica_ids, sides

LEAF_SET = 16
NOW = 100.0


def endpoint_of(node_id: NodeId) -> Endpoint:
    return str(IPv6Address(node_id)), 4160


def document_of(
    access: NodeId, others: list[NodeId], replicas: int = 3, dead: frozenset[NodeId] = frozenset()
) -> dict[str, object]:
    def shown(side: list[int]) -> list[dict[str, object]]:
        return [
            {
                "id": f"{i:032x}",
                "address": "{}:{}".format(*endpoint_of(NodeId(i))),
                "liveness": "suspect" if i in dead else "alive",
            }
            for i in side
        ]

    left, right = sides(access, others, LEAF_SET)
    leaf_set = {"left": shown(left), "right": shown(right)}
    return {
        "id": f"{access:032x}",
        "active": True,
        "config": {"replicas": replicas},
        "leaf_set": leaf_set,
    }


class Known:
    """A client's ring, and others who answer it after `rtt_s`."""

    def __init__(self, access: NodeId, document: object, rtt_s: float = 0.001) -> None:
        config = replace(Config.lan(), datagram_bytes_max=8_900)
        self.context = Context(Handle(b"c" * 32, "", 0, 1), config, Random(1))
        self.ring = ClientRing(self.context, PathProber(self.context, lambda peer, now: None))
        self.access = self.context.peers.of(handle_at(access))
        self.access.sample_rtt(0.001)
        self.rtt_s = rtt_s
        self.now = NOW
        self.ring.restart(self.access, "10.9.9.9")
        self.learn(document)

    def learn(self, document: object) -> list[NodeId]:
        self.wanted = self.ring.learn(json.dumps(document).encode(), self.now)
        return self.wanted

    def greetings(self) -> dict[Endpoint, int]:
        """Return who was greeted, and with which nonce."""
        sent, self.context.outbox.datagrams = self.context.outbox.datagrams, []
        found: dict[Endpoint, int] = {}
        for data, destination in sent:
            hello = decode(data)
            if not isinstance(hello, Echo):
                assert isinstance(hello, Hello) and not isinstance(destination, Handle)
                found[destination] = hello.nonce
        return found

    def welcome(self, node_ids: list[NodeId], active: bool = True) -> None:
        """Let those who were greeted answer."""
        greeted = self.greetings()
        self.now += self.rtt_s
        for node_id in node_ids:
            nonce = greeted.get(endpoint_of(node_id))
            if nonce is not None:
                handle = handle_at(node_id)
                peer = self.context.heard(handle, 100, self.now)
                message = Welcome(nonce, handle, "192.0.2.9", 5, active, *NOBODY, 0)
                assert self.ring.on_welcome(message, peer, self.now)

    def meet(self, name: Name, node_ids: list[NodeId]) -> None:
        """Want an item, so that its holders are greeted, and let them answer."""
        self.ring.replicas(name, self.now)
        self.welcome(node_ids)

    def replicas(self, name: Name) -> list[NodeId]:
        return sorted(peer.id for peer in self.ring.replicas(name, self.now))


@given(rings(0, 40), positions(), st.integers(1, 5))
def test_all_that_are_to_store_an_item_are_known_or_nobody_is_asked(
    ring: tuple[NodeId, list[NodeId]], position: NodeId, replicas: int
) -> None:
    access, others = ring
    known = Known(access, document_of(access, others, replicas))
    name = name_at(position)
    known.meet(name, others)
    right = sorted(replica_ids(position, [access, *others], replicas))
    found = known.replicas(name)
    is_small = len(others) + 1 < replicas
    assert found == right or (not found and (is_small or len(others) >= LEAF_SET))
    holder = known.ring.holder(name, known.now)
    if access in right or not (found or is_small):
        assert holder is None
    else:
        assert holder is not None
        assert holder.id == replica_ids(position, [access, *others], 1)[0]
        rest = [peer.id for peer in known.ring.others(name, holder)]
        assert sorted([holder.id, *rest]) == right


@settings(max_examples=30)
@given(st.integers(0, 150), positions(), st.integers(0, 10**6))
def test_a_ring_of_more_than_a_leaf_set_is_learnt_from_one_node_after_the_other(
    size: int, position: NodeId, seed: int
) -> None:
    rng = Random(seed)
    access, *others = [NodeId(rng.getrandbits(128)) for _ in range(size + 1)]
    known = Known(access, document_of(access, others))
    asked, wanted = 1, known.wanted
    while wanted:
        target = wanted.pop(rng.randrange(len(wanted)))
        rest = [i for i in (access, *others) if i != target]
        wanted += known.learn(document_of(target, rest))
        asked += 1
    assert asked <= 2 + size // (LEAF_SET // 2)
    name = name_at(position)
    known.meet(name, others)
    found = known.replicas(name)
    assert found == sorted(replica_ids(position, [access, *others], 3)) or (
        not found and (size > 120 or size + 1 < 3)
    )


def eight() -> tuple[NodeId, list[NodeId], Name, list[NodeId]]:
    """Return an access node, seven others, an item, and its three holders among those."""
    ids = [NodeId((i << 125) + 7) for i in range(8)]
    name = name_at(ids[4])
    return ids[0], ids[1:], name, [NodeId(i) for i in replica_ids(ids[4], ids, 3)]


def test_who_does_not_answer_is_greeted_again_less_and_less_often() -> None:
    access, others, name, _ = eight()
    known = Known(access, document_of(access, others))
    greeted_at: list[float] = []
    while known.now < NOW + 300:
        assert known.ring.holder(name, known.now) is None
        if known.greetings():
            greeted_at.append(known.now)
        known.now += 0.5
    gaps = [b - a for a, b in pairwise(greeted_at)]
    assert gaps[:4] == [GREET_S * 2**i for i in range(4)]
    assert max(gaps) <= 64


def test_one_address_is_greeted_as_one_whatever_the_access_node_calls_it() -> None:
    """A liar must not aim us at a machine: it may give it many names, and new ones all the time."""
    rng = Random(2)
    greetings = 0
    known = None
    for _ in range(100):
        access, *others = [NodeId(7), *[NodeId(rng.getrandbits(128)) for _ in range(16)]]
        document = json.loads(json.dumps(document_of(access, others)))
        for side in document["leaf_set"].values():
            for node in side:
                node["address"] = "192.0.2.77:4160"
        known = known or Known(access, document)
        known.learn(document)
        for _ in range(20):
            known.ring.holder(Name(rng.randbytes(32)), known.now)
        sent, known.context.outbox.datagrams = known.context.outbox.datagrams, []
        greetings += len(sent)
        known.now += 1
    assert greetings <= 8  # after 1, 2, 4, ... 60 s


def test_far_holders_are_for_the_access_node_to_ask() -> None:
    access, others, name, _ = eight()
    known = Known(access, document_of(access, others), rtt_s=2 * NEAR_S)
    known.meet(name, others)
    assert known.ring.holder(name, known.now) is None
    assert known.replicas(name) == []
    for _ in range(50):
        known.access.sample_rtt(2 * NEAR_S)  # the access node is as far as they are
    assert known.ring.holder(name, known.now) is not None


def test_one_address_written_in_several_ways_is_one() -> None:
    access, others, _, _ = eight()
    document = document_of(access, others[:4])
    ways = ["192.0.2.7", "::ffff:192.0.2.7", "[::FFFF:c000:207]", "::ffff:c000:0207"]
    shown = [
        {"id": f"{node_id:032x}", "address": f"{way}:4160", "liveness": "alive"}
        for node_id, way in zip(others, ways, strict=False)
    ]
    known = Known(access, {**document, "leaf_set": {"left": [], "right": shown}})
    assert set(known.ring._backoffs) == {("192.0.2.7", 4160)}


def test_who_fell_silent_is_asked_again_when_it_answers_a_greeting() -> None:
    access, others, name, holders = eight()
    known = Known(access, document_of(access, others))
    known.meet(name, others)
    root = known.ring.holder(name, known.now)
    assert root is not None and root.id == holders[0]
    known.ring.note_silence(root, known.now)
    second = known.ring.holder(name, known.now)
    assert second is not None and second.id in holders[1:]
    assert known.replicas(name) == [] and not known.greetings()
    known.now += 2 * GREET_S
    known.meet(name, others)
    assert known.ring.holder(name, known.now) is root


def test_once_large_items_are_wanted_a_path_is_probed_before_it_is_used() -> None:
    access, others, name, _ = eight()
    known = Known(access, document_of(access, others))
    known.meet(name, others)
    root = known.ring.holder(name, known.now)
    assert root is not None and not window_of(root).probing
    known.ring.note_pull()
    assert known.ring.holder(name, known.now) is None
    assert window_of(root).probing
    for _ in range(10):  # nothing longer than usual gets through
        known.now += 1
        known.context.deadlines.run_due(known.now)
    assert known.ring.holder(name, known.now) is root


def test_who_is_not_ready_or_suspected_is_not_asked() -> None:
    access, others, name, holders = eight()
    known = Known(access, document_of(access, others, dead=frozenset(holders[:1])))
    known.ring.holder(name, known.now)
    known.welcome(others, active=False)
    assert known.ring.holder(name, known.now) is None
    known.now += 2 * GREET_S
    known.meet(name, others)
    holder = known.ring.holder(name, known.now)
    assert holder is not None and holder.id != holders[0]


def test_another_node_at_a_members_address_is_not_the_member() -> None:
    access, others, name, _ = eight()
    known = Known(access, document_of(access, others))
    known.ring.holder(name, known.now)
    stranger = handle_at(5)
    for nonce in known.greetings().values():
        peer: Peer = known.context.heard(stranger, 100, known.now)
        welcome = Welcome(nonce, stranger, "192.0.2.9", 5, True, *NOBODY, 0)
        assert not known.ring.on_welcome(welcome, peer, known.now)
    assert known.ring.holder(name, known.now) is None


def test_the_access_node_is_asked_who_is_there_after_some_requests_and_then_seldom() -> None:
    access, others, _, _ = eight()
    known = Known(access, document_of(access, others))
    assert [known.ring.wants_status(NOW) for _ in range(LEARN_AFTER + 3)] == [
        *[False] * LEARN_AFTER,
        True,
        False,
        False,
    ]
    assert not known.ring.wants_status(NOW + REFRESH_S - 1)
    assert known.ring.wants_status(NOW + REFRESH_S)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["leaf_set", "left", "right", "config", "replicas", "id", "address"]),
            inner,
        )
    ),
)


@given(JSON)
def test_no_document_makes_it_raise(document: object) -> None:
    access, _, name, _ = eight()
    known = Known(access, document)
    assert known.ring.holder(name, NOW) is None
    assert known.context.stats.counters["status_unusable"] == 1


def _side_of(address: object) -> dict[str, object]:
    return {"left": [{"id": "0" * 32, "address": address, "liveness": "alive"}], "right": []}


@pytest.mark.parametrize(
    "change",
    [
        {"active": False},
        {"config": {"replicas": 0}},
        {"config": {"replicas": 10**9}},
        {"config": {"replicas": "3"}},
        {"leaf_set": {"left": [{"id": "00", "address": "h:1", "liveness": "alive"}], "right": []}},
        {"leaf_set": _side_of(7)},
        {"leaf_set": {"left": "x", "right": None}},
        *({"leaf_set": _side_of(f"{host}:4160")} for host in ("a\0b", "name", "\ud800")),
        *({"leaf_set": _side_of(f"[::1%{zone}]:4160")} for zone in ("²", "a\0b", "1")),
        *({"leaf_set": _side_of(f"192.0.2.1:{port}")} for port in (0, -1, 65_536, "x", "")),
    ],
)
def test_a_document_that_is_wrong_in_one_place_teaches_nothing(change: dict[str, object]) -> None:
    access, others, name, _ = eight()
    known = Known(access, {**document_of(access, others), **change})
    assert known.ring.holder(name, NOW) is None and not known.greetings()
    assert known.context.stats.counters["status_unusable"] == 1
