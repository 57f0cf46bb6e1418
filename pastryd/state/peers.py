"""What we believe of other nodes and clients: liveness, distance, whether an address is proven.

Bounded: who is in no table of ours is forgotten when newer peers need the room. Decides nothing;
the machines in `protocol/` do.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from pastryd.ids import NodeId
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.rtt import RtoBounds, retransmission_timeout, smoothed

HELD_MAX = 8
PEERS_MAX = 8192
IDLE_S = 60.0
"""After so long without a word in either direction a node in no table of ours is forgotten."""
REMEMBERED_S = 600.0
"""The same, for who was given up for dead, or whose path's capacity we know."""
NEVER = float("-inf")


def is_loopback(host: str) -> bool:
    """Tell whether an address means something on its own machine only."""
    return host.startswith("127.") or host == "::1"


class Liveness(Enum):
    """SWIM's three beliefs."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


ALIVE = Liveness.ALIVE
"""To look it up in the enum costs as much as a call, for each datagram."""


class Unproven:
    """What an address that has not shown yet that it receives what we send may be sent."""

    __slots__ = ("credit_bytes", "held", "hello_nonce")

    def __init__(self) -> None:
        self.credit_bytes = 0
        """What it may still be sent."""
        self.held: Sequence[bytes] = ()
        """What waits for the proof; a new list each time, mostly there is none."""
        self.hello_nonce = 0
        """Of the `Hello` that is on its way to prove it; 0: none."""


class Peer:
    """One other node, or a client."""

    __slots__ = (
        "_rto_bounds",
        "_told",
        "active",
        "advertised",
        "handle",
        "holds_items",
        "id",
        "last_heard",
        "last_sent",
        "left",
        "liveness",
        "mismatch",
        "rttvar_s",
        "rumour",
        "srtt_s",
        "unproven",
        "window",
    )

    def __init__(self, handle: Handle, rto_bounds: RtoBounds) -> None:
        self.handle = handle
        self.id: NodeId = handle.id
        self._rto_bounds = rto_bounds
        self.srtt_s: float | None = None
        """Smoothed RTT; None before the first sample."""
        self.rttvar_s = 0.0
        self.liveness = ALIVE
        self.active = False
        """Whether it serves in a ring, as it last told us."""
        self.left = False
        """Whether it told that it leaves. It may tell so often, and serve until it is gone."""
        self.advertised: Endpoint | None = None
        """Where it says that it wants to be reached, if it says so."""
        self._told: Handle | None = None
        self.unproven: Unproven | None = Unproven()
        """None: the address showed that it receives what we send to it."""
        self.rumour: Handle | None = None
        """A later life of it elsewhere, of which others told us and which nobody has asked yet."""
        self.last_heard = NEVER
        self.last_sent = NEVER
        self.mismatch = 0
        """Its digest XOR ours at its last heartbeat; inverted: we have asked why they differ."""
        self.holds_items = True
        """Whether its store is not empty, as it last told us."""
        self.window: object | None = None
        """The transfer's congestion state for this path."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it is."""
        return self.handle.endpoint

    def note_active(self, active: bool) -> None:
        """Note whether it serves in a ring; who does not is about to join, in a new life."""
        self.active = active
        self.left = self.left and active

    def move_to(self, handle: Handle) -> bool:
        """Follow a peer to a new incarnation or address; return whether the address is another.

        A new address must prove itself again.
        """
        known, self.handle = self.handle, handle
        if known.endpoint == handle.endpoint:
            return False
        if self.advertised == known.endpoint:
            self.advertised = None  # where it said that it was, and is no more
        fresh = Unproven()
        if self.unproven is not None:
            fresh.held = self.unproven.held
        self.unproven = fresh
        return True

    def advertise(self, host: str, port: int) -> None:
        """Note where it says that it wants to be reached (no host: it does not say)."""
        endpoint = self.handle.endpoint
        if (host, port) != endpoint:
            self.advertised = (host, port) if host else None
        else:
            self.advertised = endpoint

    @property
    def told(self) -> Handle:
        """The handle to tell others: at the advertised address, unless only it can use that."""
        handle, advertised = self.handle, self.advertised
        if advertised is None or advertised == handle.endpoint:
            return handle
        if is_loopback(advertised[0]) and not is_loopback(handle.host):
            return handle
        told = self._told
        if told is None or told.incarnation != handle.incarnation or told.endpoint != advertised:
            self._told = told = handle.at(advertised)
        return told

    @property
    def rto_s(self) -> float:
        """How long to wait for an answer, in seconds (`rtt.py`)."""
        return retransmission_timeout(self.srtt_s, self.rttvar_s, self._rto_bounds)

    def sample_rtt(self, rtt_s: float) -> None:
        """Take in one measured round trip (`rtt.py`)."""
        self.srtt_s, self.rttvar_s = smoothed(self.srtt_s, self.rttvar_s, rtt_s)


class PeerTable:
    """Peers by id."""

    __slots__ = ("_keep", "_peers", "_rto_bounds", "get")

    def __init__(self, rto_bounds: RtoBounds, keep: Callable[[NodeId], bool]) -> None:
        """`keep` tells which ids must not be forgotten."""
        self._peers: dict[NodeId, Peer] = {}
        self.get: Callable[[NodeId], Peer | None] = self._peers.get
        """What we believe of a node, if anything; the dict's own, for it is asked all the time."""
        self._rto_bounds = rto_bounds
        self._keep = keep

    def of(self, handle: Handle) -> Peer:
        """Return the peer of a handle; a new one starts from the handle.

        A handle of a later incarnation than the one we know is hearsay. It is believed of a node
        that we do not hear; of one that lives it is a rumour to be verified, or a liar could cut
        it off: if it did restart elsewhere it will answer there.
        """
        peer = self._peers.get(handle.id)
        if peer is None:
            if len(self._peers) >= PEERS_MAX:
                self._forget_some()
            peer = self._peers[handle.id] = Peer(handle, self._rto_bounds)
        elif peer.handle is not handle and handle.incarnation > peer.handle.incarnation:
            if peer.liveness is not Liveness.ALIVE or peer.last_heard == NEVER:
                peer.move_to(handle)
            elif handle.endpoint != peer.endpoint:
                peer.rumour = handle
        return peer

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._peers.values()))

    def forget_idle(self, now: float) -> None:
        """Drop those with whom we have had nothing to do for a while and that no table needs."""
        kept: dict[NodeId, Peer] = {}
        for node_id, peer in self._peers.items():
            lasting = peer.window is not None or peer.liveness is not Liveness.ALIVE
            since = now - (REMEMBERED_S if lasting else IDLE_S)
            if peer.last_heard >= since or peer.last_sent >= since or self._keep(node_id):
                kept[node_id] = peer
        self._peers, self.get = kept, kept.get

    def _forget_some(self) -> None:
        """Drop the older half of those that no table needs."""
        loose = [p for p in self._peers.values() if not self._keep(p.id)]
        loose.sort(key=lambda p: p.last_heard)
        for peer in loose[: max(1, len(loose) // 2)]:
            del self._peers[peer.id]
