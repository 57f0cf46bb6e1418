"""What we believe of other nodes and clients: liveness, distance, whether an address is proven.

Bounded: who is in no table of ours is forgotten when newer peers need the room. Decides nothing;
the machines in `protocol/` do.
"""

from collections.abc import Callable, Sequence
from enum import Enum

from pastryd.ids import NodeId
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.rtt import RttEstimator

HELD_MAX = 8
PEERS_MAX = 8192


def is_loopback(host: str) -> bool:
    """Tell whether an address means something on its own machine only."""
    return host.startswith("127.") or host == "::1"


class Liveness(Enum):
    """SWIM's three beliefs."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


class Peer:
    """One other node, or a client."""

    __slots__ = (
        "_told",
        "active",
        "advertised",
        "credit_bytes",
        "digest",
        "digest_told",
        "handle",
        "held",
        "hello_nonce",
        "last_heard",
        "last_sent",
        "liveness",
        "proven",
        "rtt",
        "rumour",
        "spoke",
        "window",
    )

    def __init__(self, handle: Handle, rtt: RttEstimator) -> None:
        self.handle = handle
        self.rtt = rtt
        self.liveness = Liveness.ALIVE
        self.active = False
        self.advertised: Endpoint | None = None
        """Where it says that it wants to be reached, if it says so."""
        self._told: Handle | None = None
        self.proven = False
        """The address showed that it receives what we send to it."""
        self.spoke = False
        """Something came from this very address; otherwise we know it from hearsay alone."""
        self.rumour: Handle | None = None
        """A later life of it elsewhere, of which others told us and which nobody has asked yet."""
        self.credit_bytes = 0
        """What an unproven address may still be sent."""
        self.held: Sequence[bytes] = ()
        """What waits for the address to be proven; a new list each time, mostly there is none."""
        self.hello_nonce = 0
        """Of the `Hello` that is on its way to prove the address; 0: none."""
        self.last_heard = float("-inf")
        self.last_sent = float("-inf")
        self.digest = 0
        """Of its leaf set, as it last told us."""
        self.digest_told = 0
        """Of our leaf set, as it last confirmed."""
        self.window: object | None = None
        """The transfer's congestion state for this path."""

    @property
    def id(self) -> NodeId:
        """The node's id."""
        return self.handle.id

    @property
    def endpoint(self) -> Endpoint:
        """Where it is."""
        return self.handle.endpoint

    def move_to(self, handle: Handle) -> bool:
        """Follow a peer to a new incarnation or address; return whether the address is another.

        A new address must prove itself again.
        """
        known, self.handle = self.handle, handle
        if known.endpoint == handle.endpoint:
            return False
        self.proven = False
        self.spoke = False
        self.credit_bytes = 0
        self.hello_nonce = 0
        return True

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
    def srtt_s(self) -> float | None:
        """Smoothed RTT, None before the first sample."""
        return self.rtt.srtt


class PeerTable:
    """Peers by id."""

    __slots__ = ("_keep", "_new_rtt", "_peers")

    def __init__(self, new_rtt: Callable[[], RttEstimator], keep: Callable[[NodeId], bool]) -> None:
        """`keep` tells which ids must not be forgotten."""
        self._peers: dict[NodeId, Peer] = {}
        self._new_rtt = new_rtt
        self._keep = keep

    def get(self, node_id: NodeId) -> Peer | None:
        """Return what we believe of a node, if anything."""
        return self._peers.get(node_id)

    def of(self, handle: Handle) -> Peer:
        """Return the peer of a handle; a new one starts from the handle.

        A handle of a later incarnation than the one we know is hearsay. It is believed of a node
        that we do not hear; of one that lives it is a rumour to be verified, or a liar could cut
        it off: if it did restart elsewhere it will answer there.
        """
        peer = self._peers.get(handle.id)
        if peer is not None and handle.incarnation > peer.handle.incarnation:
            if peer.liveness is not Liveness.ALIVE or peer.last_heard == float("-inf"):
                peer.move_to(handle)
            elif handle.endpoint != peer.endpoint:
                peer.rumour = handle
        if peer is None:
            if len(self._peers) >= PEERS_MAX:
                self._forget_some()
            peer = self._peers[handle.id] = Peer(handle, self._new_rtt())
        return peer

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(list(self._peers.values()))

    def _forget_some(self) -> None:
        """Drop the older half of those that no table needs."""
        loose = [p for p in self._peers.values() if not self._keep(p.id)]
        loose.sort(key=lambda p: p.last_heard)
        for peer in loose[: max(1, len(loose) // 2)]:
            del self._peers[peer.id]
