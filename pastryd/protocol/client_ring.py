"""Which nodes a client asks itself: those around its access node that hold or should hold an item.

An access node has to fetch what it does not hold, and to pass on what is put. A client that asks
for many things learns who its access node's neighbours are, greets them, and then asks the holders
(Dynamo, DeCandia et al. 2007, section 6.4: client-driven coordination): two datagrams for a get in
place of four, and one round trip for a put. Nothing depends on it. Who cannot be reached from here
(NAT, containers), is farther than the access node or does not answer at once is not asked.

Owns who these nodes are and which of them answer; what is asked is `client_session.py`'s.
"""

import json
from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass

from pastryd.ids import ID_BYTES, Name, NodeId, clockwise, position_of, rank, ring_distance
from pastryd.protocol.context import Context
from pastryd.protocol.path_prober import PathProber
from pastryd.protocol.path_window import window_of
from pastryd.state.handle import Endpoint
from pastryd.state.peers import Liveness, Peer, is_loopback
from pastryd.wire.addresses import host_from_bytes, host_to_bytes
from pastryd.wire.messages import Echo, Welcome

LEARN_AFTER = 16
"""Requests that go through the access node first: who wants little needs no other sessions."""
REFRESH_S = 30.0
"""How often to ask who is there, while there are requests."""
MEMBERS_MAX = 128
"""Of larger rings a piece is known, around the access node."""
SIDE_MAX = 64
REPLICAS_MAX = 16
NEAR_S = 0.01
"""Round trips this short are all the same: one machine, one site. A holder may be this far, or
twice as far as the access node; what is farther is for the access node to fetch, which chooses the
nearest of all holders and keeps what it fetched."""
GREET_S, GREET_MAX_S = 1.0, 60.0
"""How long to wait before somebody who does not answer is greeted again, at first and at most."""
SILENT = float("inf")


class _Backoff:
    """When one address may be greeted again, whoever is said to be there: a liar gives it names."""

    __slots__ = ("greet_at", "wait_s")

    def __init__(self) -> None:
        self.greet_at = float("-inf")
        self.wait_s = GREET_S


class _Member:
    """One node near the access node."""

    __slots__ = ("answered_at", "backoff", "endpoint", "greeted_at", "id", "nonce", "rtt_s")

    def __init__(self, node_id: NodeId, endpoint: Endpoint, backoff: _Backoff) -> None:
        self.id = node_id
        self.endpoint = endpoint
        self.backoff = backoff
        self.nonce = 0
        self.greeted_at = 0.0
        self.rtt_s = SILENT
        """Of the last greeting; `SILENT`: not answered, or silent since."""
        self.answered_at = float("-inf")
        """When it answered a request last."""


@dataclass(slots=True)
class _Piece:
    """Which part of the ring is known: all nodes clockwise from `start` to `end`."""

    start: NodeId
    end: NodeId
    is_whole: bool
    replicas: int


@dataclass(frozen=True, slots=True)
class _Status:
    """What a node's status document says of the ring: who is around it, nearest first."""

    id: NodeId
    left: dict[NodeId, Endpoint]
    right: dict[NodeId, Endpoint]
    replicas: int


class ClientRing:
    """The piece of the ring around an access node, as a client knows it."""

    __slots__ = (
        "_access",
        "_asked",
        "_backoffs",
        "_before",
        "_context",
        "_ids",
        "_learn_at",
        "_members",
        "_piece",
        "_prober",
        "_pulls",
        "is_beside",
    )

    def __init__(self, context: Context, prober: PathProber) -> None:
        self._context = context
        self._prober = prober
        self._pulls = False
        self._access: Peer | None = None
        self._piece: _Piece | None = None
        self._members: dict[NodeId, _Member] = {}
        self._before: dict[NodeId, _Member] = {}
        """Who was a member before the access node was asked last."""
        self._backoffs: dict[Endpoint, _Backoff] = {}
        """Of the members' addresses, now and before."""
        self._ids: list[NodeId] = []
        """Sorted, the access node's among them."""
        self._asked = 0
        self._learn_at = float("-inf")
        self.is_beside = False
        """Whether the access node is on our machine: what it sends to k nodes goes over the same
        wire as what we send to them ourselves."""

    def restart(self, access: Peer, seen_host: str) -> None:
        """There is another access node, or the same one anew; it sees us at `seen_host`."""
        self._access = access
        host = access.handle.host
        self.is_beside = is_loopback(host) or host == seen_host
        self._piece = None
        self._members, self._before, self._backoffs, self._ids = {}, {}, {}, []
        self._asked = 0
        self._learn_at = float("-inf")

    def note_pull(self) -> None:
        """Large items are wanted: from now on holders are asked when their paths are known."""
        self._pulls = True

    # -- who is there --

    def wants_status(self, now: float) -> bool:
        """Count a request; tell whether to ask the access node for its status document now."""
        self._asked += 1
        if self._asked <= LEARN_AFTER or now < self._learn_at:
            return False
        self._learn_at = now + REFRESH_S
        return True

    def learn(self, document: bytes, now: float) -> list[NodeId]:
        """Take in a status document, the access node's first; return whose are wanted next.

        In a ring larger than a leaf set those at the ends of what is known know more, up to
        `MEMBERS_MAX`. A document that is none is counted.
        """
        access, piece = self._access, self._piece
        if access is None:
            return []
        try:
            status = _read(document)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._context.stats.count("status_unusable")
            return []
        if status.id == access.id:
            return self._begin_piece(status, now)
        if piece is None or piece.is_whole or status.id not in (piece.start, piece.end):
            return []
        is_start = status.id == piece.start
        outward = status.left if is_start else status.right
        if not outward:
            return []
        piece.is_whole = any(i in self._members or i == access.id for i in outward)
        farthest = next(reversed(outward))
        if is_start:
            piece.start = farthest
        else:
            piece.end = farthest
        self._add(outward)
        more = not piece.is_whole and len(self._members) < MEMBERS_MAX
        return [farthest] if more else []

    def _begin_piece(self, status: _Status, now: float) -> list[NodeId]:
        left, right = status.left, status.right
        start, end = next(reversed(left), status.id), next(reversed(right), status.id)
        is_whole = bool(left.keys() & right.keys()) or not (left or right)
        self._piece = _Piece(start, end, is_whole, status.replicas)
        self._before, self._members = self._members, {}
        self._backoffs = {m.endpoint: m.backoff for m in self._before.values()}
        self._add(left | right)
        self._context.peers.forget_idle(now)
        return [] if is_whole else [start, end]

    def _add(self, nodes: dict[NodeId, Endpoint]) -> None:
        """Know these nodes, too; who was known at the same address need not be greeted again."""
        access = self._access
        assert access is not None
        for node_id, endpoint in nodes.items():
            if node_id == access.id or node_id in self._members:
                continue
            member = self._before.get(node_id)
            if member is None or member.endpoint != endpoint:
                backoff = self._backoffs.setdefault(endpoint, _Backoff())
                member = _Member(node_id, endpoint, backoff)
            self._members[node_id] = member
        self._ids = sorted([access.id, *self._members])

    def on_welcome(self, message: Welcome, peer: Peer, now: float) -> bool:
        """Take note of who answers a greeting; tell whether it was one of ours."""
        member = self._members.get(peer.id)
        if member is None or message.nonce != member.nonce or not member.nonce:
            return False
        member.nonce = 0
        self._context.prove(peer, member.endpoint, now)
        self._context.send(Echo(message.cookie), peer, now)
        if message.active:
            member.rtt_s = now - member.greeted_at
            peer.sample_rtt(member.rtt_s)
        return True

    def note_answer(self, peer: Peer, now: float) -> None:
        """Who answers may be greeted soon, should it ever fall silent."""
        member = self._members.get(peer.id)
        if member is not None:
            member.backoff.wait_s = GREET_S
            member.answered_at = now

    def has_answered(self, peer: Peer, since: float) -> bool:
        """Tell whether a member has answered any request since; of others nobody knows: True."""
        member = self._members.get(peer.id)
        return member is None or member.answered_at >= since

    def note_silence(self, peer: Peer, now: float) -> None:
        """Who does not answer at once is not asked until it answers a greeting."""
        member = self._members.get(peer.id)
        if member is not None:
            member.rtt_s = SILENT
            member.backoff.greet_at = now + member.backoff.wait_s
            self._learn_at = min(self._learn_at, now + GREET_S)

    # -- whom to ask --

    def holder(self, name: Name, now: float) -> Peer | None:
        """Return who should hold an item; None: ask the access node, which may be one of them."""
        closest = self._closest(name)
        if None in closest:
            return None
        near = self._near(closest, now)
        # The closest to the key, unless another is nearer to us by more than a site.
        return min(near, key=lambda peer: int((peer.srtt_s or 0.0) / NEAR_S), default=None)

    def replicas(self, name: Name, now: float) -> list[Peer]:
        """Return all that are to store an item, the access node perhaps among them; or nobody.

        Whether fewer than k are all that there are is the access node's to judge.
        """
        closest = self._closest(name)
        near = self._near(closest, now)
        if self._access is not None and None in closest:
            near.append(self._access)
        wanted = 0 if self._piece is None else self._piece.replicas
        return near if len(near) == wanted else []

    def others(self, name: Name, asked: Peer) -> list[Peer]:
        """Return who else should hold what `asked` holds, of those that answer us."""
        get = self._context.peers.get
        members = [m for m in self._closest(name) if m is not None and m.rtt_s < SILENT]
        peers = [get(m.id) for m in members if m.id != asked.id]
        return [peer for peer in peers if peer is not None]

    def _closest(self, name: Name) -> list[_Member | None]:
        """Return the k closest to an item, root first; None: the access node. Empty: unknown.

        Near the ends of what we know others may be closer than the last that we see.
        """
        piece, ids = self._piece, self._ids
        if piece is None:
            return []
        position = position_of(name)
        at = bisect(ids, position)
        around = {ids[i % len(ids)] for i in range(at - piece.replicas, at + piece.replicas)}
        closest = sorted(around, key=lambda node_id: rank(position, node_id))[: piece.replicas]
        if not piece.is_whole:
            reach = ring_distance(position, closest[-1])
            length = clockwise(piece.start, piece.end)
            to_start = clockwise(piece.start, position)
            if not reach <= to_start <= length - reach:
                return []
        return [self._members.get(node_id) for node_id in closest]

    def _near(self, members: Iterable[_Member | None], now: float) -> list[Peer]:
        """Return those that answer us and are not far; greet the others, now and then."""
        access_rtt_s = 0.0 if self._access is None else self._access.srtt_s or 0.0
        limit_s = max(NEAR_S, 2 * access_rtt_s)
        near: list[Peer] = []
        for member in members:
            if member is None:
                continue
            peer = self._context.peers.get(member.id)
            if peer is not None and member.rtt_s <= limit_s:
                if self._is_probed(peer, now):
                    near.append(peer)
            elif now >= member.backoff.greet_at:
                self._greet(member, now)
        return near

    def _greet(self, member: _Member, now: float) -> None:
        backoff = member.backoff
        member.nonce = self._context.hello_endpoint(member.endpoint)
        member.greeted_at = now
        backoff.greet_at = now + backoff.wait_s
        backoff.wait_s = min(2 * backoff.wait_s, GREET_MAX_S)

    def _is_probed(self, peer: Peer, now: float) -> bool:
        """Tell whether to ask somebody now: a large item would wait until its path is probed."""
        window = window_of(peer)
        if self._pulls and not window.probing and window.probe_at == float("-inf"):
            self._prober.probe(peer, now)
        return not window.probing


def _read(document: bytes) -> _Status:
    """Return what a status document says.

    Raises ValueError, KeyError, TypeError, AttributeError or RecursionError.
    """
    status = json.loads(document)
    if status["active"] is not True:
        raise ValueError("not a member of the ring")
    replicas = status["config"]["replicas"]
    if not isinstance(replicas, int) or not 0 < replicas <= REPLICAS_MAX:
        raise ValueError("not a number of replicas")
    leaf_set = status["leaf_set"]
    return _Status(
        _read_id(status), _read_side(leaf_set["left"]), _read_side(leaf_set["right"]), replicas
    )


def _read_id(node: dict[str, str]) -> NodeId:
    raw_id = bytes.fromhex(node["id"])
    if len(raw_id) != ID_BYTES:
        raise ValueError("not an id")
    return NodeId(int.from_bytes(raw_id, "big"))


def _read_side(nodes: list[dict[str, str]]) -> dict[NodeId, Endpoint]:
    """Return where those who live are, nearest first."""
    side: dict[NodeId, Endpoint] = {}
    for node in nodes[:SIDE_MAX]:
        host, _, port = node["address"].rpartition(":")
        node_id = _read_id(node)
        if host and node["liveness"] == Liveness.ALIVE.value:
            side[node_id] = _read_endpoint(host.removeprefix("[").removesuffix("]"), int(port))
    return side


def _read_endpoint(host: str, port: int) -> Endpoint:
    """Return one form of an address: a machine that is named in several ways is one."""
    if "%" in host:
        raise ValueError("a zone, which means nothing on another machine")
    if not 0 < port < 65_536:
        raise ValueError("not a port")
    return host_from_bytes(host_to_bytes(host)), port
