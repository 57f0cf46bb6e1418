"""What all machines of one node share: identity, tables, outbox, deadlines, and the way out.

Every datagram to a peer leaves through `Context.send`, which keeps the amplification rule of
DESIGN sec. 4: until an address has proved that it receives what we send to it, it is sent at most
three times what it sent us, except for a `Hello`, which is what proves it. What must wait meanwhile
is held (bounded) and follows at once when the `Welcome` comes. Addresses that only others name get
a few Hellos in all: a liar must not aim us at a machine that never spoke. A short question goes in
place of a Hello, under the same budget: its answer proves the address as well. So does a short
`Route`, whose `HopAck` proves nothing, but earns credit for the next one. Who says Hello itself and
will want much (a client, a joiner) proves its own address with what comes back: an `Echo` of the
`Welcome`'s cookie, of which nothing is kept here (RFC 9000, sec. 8.1.3, has tokens like it).
"""

from collections.abc import Sequence
from hashlib import blake2b
from random import Random

from pastryd.config import Config
from pastryd.ids import NodeId
from pastryd.protocol.outbox import Completion, Logged, Outbox
from pastryd.state.deadlines import Deadlines, Timer
from pastryd.state.handle import Endpoint, Handle, show_endpoint
from pastryd.state.leaf_set import LeafSet
from pastryd.state.neighborhood import NeighborhoodSet
from pastryd.state.peers import (
    ALIVE,
    HELD_MAX,
    IDLE_S,
    NEVER,
    Peer,
    PeerTable,
    Unproven,
    is_loopback,
)
from pastryd.state.routing_table import RoutingTable
from pastryd.state.rtt import RtoBounds
from pastryd.state.token_bucket import TokenBucket
from pastryd.stats import Stats
from pastryd.wire.codec import encode
from pastryd.wire.handles import intern_handle, pack_handle
from pastryd.wire.messages import Alive, Echo, Hello, Message, Suspect, Welcome

AMPLIFICATION = 3
HELLO_PADDING = bytes(113)
"""As much as makes a question no shorter than its answer, with IPv6 addresses."""
NOBODY: Endpoint = ("", 0)
COOKIE_S = 60.0
"""A cookie is good for so long at least, and twice that at most: addresses change hands."""
STAND_IN_BYTES_MAX = 320
"""What may go in place of a Hello of 126, of which there may be three: a probe of a leaf set is as
short as that, a routed lookup and a question for a row are not, and go twice at most. All are small
beside what the budget below lets through."""
HELLO_ATTEMPTS = 3
ASK_ADDRESS_S = 5.0
SEEN_S = 60.0
"""For how long it counts where one peer saw us."""
HEARSAY_HELLOS_PER_S = 50.0
HEARSAY_HELLOS_BURST = 256.0
"""To all addresses that never spoke together. A join in a large ring asks a hundred nodes."""
DATAGRAM_OVERHEAD_BYTES = 65


class Context:
    """Shared by the machines of one node (or of one client, whose tables stay empty)."""

    __slots__ = (
        "_address_nonce",
        "_asked_address_at",
        "_cookie_key",
        "_hearsay_hellos",
        "_learns_address",
        "_seen_elsewhere",
        "config",
        "deadlines",
        "identity",
        "items_near",
        "leaf_set",
        "neighborhood",
        "outbox",
        "peers",
        "rng",
        "stats",
        "table",
    )

    def __init__(self, identity: Handle, config: Config, rng: Random) -> None:
        self.identity = identity
        self.config = config
        self.rng = rng
        self.outbox = Outbox()
        self._address_nonce = 0
        self._asked_address_at = NEVER
        self._learns_address = not identity.host
        """Nobody told us where we are: others do, and it may change."""
        self._seen_elsewhere: tuple[Endpoint, NodeId, float] | None = None
        """Where one peer saw us that is not where we think, who, and when."""
        self._cookie_key = rng.randbytes(16)
        self._hearsay_hellos = TokenBucket(HEARSAY_HELLOS_PER_S, HEARSAY_HELLOS_BURST)
        self.items_near = False
        """Whether anybody whom we know has ever said that it holds items."""
        self.stats = Stats()
        self.deadlines = Deadlines()
        self.leaf_set = LeafSet(identity.id, config.leaf_set_size)
        self.table = RoutingTable(identity.id, config.bits_per_digit)
        self.neighborhood = NeighborhoodSet(identity.id, config.neighborhood_size)
        rto_bounds = RtoBounds(config.rto_min_s, config.rto_max_s, config.rto_initial_s)
        self.peers = PeerTable(rto_bounds, self._is_needed)

    def start(self, now: float) -> None:
        """Begin to forget whom nothing is heard of (a client keeps what it knows)."""
        self._forget_idle(now)

    def _forget_idle(self, now: float) -> None:
        self.peers.forget_idle(now)
        self.deadlines.arm(now + IDLE_S, self._forget_idle)

    def _is_needed(self, node_id: NodeId) -> bool:
        return node_id in self.leaf_set or self.in_table(node_id)

    def in_table(self, node_id: NodeId) -> bool:
        """Tell whether a node holds a slot of our routing table."""
        entry = self.table.lookup(node_id)
        return entry is not None and entry.id == node_id

    def nonce(self) -> int:
        """Return a number that nobody who did not read our datagram can guess."""
        return self.rng.getrandbits(63) | 1

    def usable(self, node_id: NodeId) -> bool:
        """Tell whether to route through a node: neither suspected nor dead."""
        peer = self.peers.get(node_id)
        return peer is None or peer.liveness is ALIVE

    def log(self, event: str, **fields: object) -> None:
        """Report a state transition."""
        self.outbox.events.append(Logged(event, fields))

    def complete(self, request_id: int, result: object) -> None:
        """Hand a local command its result."""
        self.outbox.events.append(Completion(request_id, result))

    # -- the way out --

    def send(self, message: Message, peer: Peer, now: float) -> None:
        """Send a message to a peer."""
        self.send_bytes(encode(message), peer, now)

    def send_bytes(self, data: bytes, peer: Peer, now: float, *, is_question: bool = False) -> None:
        """Send an encoded message; held while the peer's address is unproven and out of credit.

        `is_question`: the answer proves the address, or gives credit, so that it may stand in for
        the Hello.
        """
        if peer.rumour is not None:
            self._verify_rumour(peer, now)
        unproven = peer.unproven
        if unproven is not None:
            cost = len(data) + DATAGRAM_OVERHEAD_BYTES
            if unproven.credit_bytes >= cost:
                unproven.credit_bytes -= cost
            elif not (is_question and self._may_stand_for_hello(data, unproven, now)):
                self._hold(data, peer, unproven, now)
                return
        peer.last_sent = now
        self.outbox.datagrams.append((data, peer.handle))

    def send_all(self, messages: Sequence[bytes], peer: Peer, now: float) -> None:
        """Send encoded messages to one peer."""
        if peer.unproven is not None or peer.rumour is not None:
            for data in messages:
                self.send_bytes(data, peer, now)
            return
        peer.last_sent = now
        handle = peer.handle
        self.outbox.datagrams += [(data, handle) for data in messages]

    def hello_endpoint(self, endpoint: Endpoint) -> int:
        """Ask a bare address who it is; return the nonce that its `Welcome` will carry."""
        nonce = self.nonce()
        self.outbox.datagrams.append((encode(Hello(nonce, HELLO_PADDING)), endpoint))
        return nonce

    def hello_hearsay(self, endpoint: Endpoint, now: float) -> int:
        """Greet an address that somebody else named, as `hello_endpoint`; 0: not now."""
        return self.hello_endpoint(endpoint) if self._may_greet(now) else 0

    def _may_greet(self, now: float) -> bool:
        """Take a greeting that hearsay causes, of as many as there may be; count it if refused."""
        if self._hearsay_hellos.take(now):
            return True
        self.stats.count("hearsay_hellos_refused")
        return False

    def _verify_rumour(self, peer: Peer, now: float) -> None:
        """Greet a peer where it is said to be: what it says from there itself is believed."""
        rumour, peer.rumour = peer.rumour, None
        if rumour is None or rumour.incarnation <= peer.handle.incarnation:
            return
        if self._may_greet(now):
            self.outbox.datagrams.append((encode(Hello(self.nonce(), HELLO_PADDING)), rumour))

    def _may_stand_for_hello(self, data: bytes, unproven: Unproven, now: float) -> bool:
        """Tell whether a question may go to an unproven address without credit for it."""
        is_short = len(data) <= STAND_IN_BYTES_MAX
        return is_short and not unproven.hello_nonce and self._hearsay_hellos.take(now)

    def _hold(self, data: bytes, peer: Peer, unproven: Unproven, now: float) -> None:
        if len(unproven.held) >= HELD_MAX:
            self.stats.count("held_dropped")
            return
        unproven.held = [*unproven.held, data]
        self.ask_proof(peer, now)

    def ask_proof(self, peer: Peer, now: float) -> None:
        """Say Hello to an address that has not proved itself, unless that is under way."""
        if peer.unproven is not None and not peer.unproven.hello_nonce:
            self._prove(peer, HELLO_ATTEMPTS, now)

    def _prove(self, peer: Peer, attempts: int, now: float) -> None:
        unproven = peer.unproven
        if unproven is None:
            return
        if not attempts:
            self.stats.count("held_dropped", len(unproven.held))
            unproven.hello_nonce = 0
            unproven.held = ()
            return
        if not unproven.hello_nonce:
            unproven.hello_nonce = self.nonce()
        hello = encode(Hello(unproven.hello_nonce, HELLO_PADDING))
        cost = len(hello) + DATAGRAM_OVERHEAD_BYTES
        if unproven.credit_bytes >= cost:
            unproven.credit_bytes -= cost
            self.outbox.datagrams.append((hello, peer.handle))
        elif self._may_greet(now):
            self.outbox.datagrams.append((hello, peer.handle))
        self.deadlines.arm(now + self.config.rto_initial_s, self._prove, peer, attempts - 1)

    # -- the way in --

    def heard(self, sender: Handle, size: int, now: float) -> Peer:
        """Note that a datagram of `size` bytes came from a peer; return what we believe of it.

        Anything authentic that a node says itself shows that it lives and in which incarnation.
        """
        peer = self.peers.get(sender.id)
        if peer is None:
            peer = self.peers.of(sender)
        elif peer.handle is not sender:
            self._identify(peer, sender, now)
        peer.last_heard = now
        unproven = peer.unproven
        if unproven is not None:
            unproven.credit_bytes += AMPLIFICATION * (size + DATAGRAM_OVERHEAD_BYTES)
        return peer

    def _identify(self, peer: Peer, sender: Handle, now: float) -> None:
        """Follow a peer to a new incarnation or address, in our tables too."""
        incarnation = peer.handle.incarnation
        if peer.move_to(sender):
            self.stats.count("address_changes")
            self.ask_proof(peer, now)  # and have it notice, perhaps
        elif incarnation == sender.incarnation:
            return
        told = peer.told
        if sender.id in self.leaf_set:
            self.leaf_set.add(told)
        if self.in_table(sender.id):
            self.table.consider(told, peer.srtt_s)

    def on_hello(
        self, message: Hello, sender: Handle, active: bool, ahead: Endpoint, now: float
    ) -> None:
        """Answer: who we are and where the asker was seen, in no more bytes than the question.

        `ahead`: whom we ask ourselves, while we are not active.
        """
        if len(message.padding) < len(HELLO_PADDING):
            self.stats.count("hello_too_short")
            return
        host, port = sender.endpoint
        cookie = self._cookie(sender, now)
        welcome = Welcome(message.nonce, self.identity, host, port, active, *ahead, cookie)
        self.outbox.datagrams.append((encode(welcome), sender))
        known = self.peers.get(sender.id)
        if known is not None and known.handle.incarnation > sender.incarnation:
            # A later life of it runs elsewhere, so that nobody listens to this one: it should know,
            # and may ask there whether that is true.
            later = tuple(dict.fromkeys((known.handle, known.told)))
            suspect = Suspect(sender.id, known.handle.incarnation, later)
            self.outbox.datagrams.append((encode(suspect), sender))

    def _cookie(self, handle: Handle, at: float) -> int:
        """Return what only we and who receives at this address now know."""
        turn = int(at / COOKIE_S).to_bytes(8, "big", signed=True)
        digest = blake2b(pack_handle(handle) + turn, key=self._cookie_key, digest_size=8)
        return int.from_bytes(digest.digest(), "big")

    def on_echo(self, message: Echo, peer: Peer, now: float) -> None:
        """Who was welcomed shows that it heard us."""
        if message.cookie in (self._cookie(peer.handle, at) for at in (now, now - COOKIE_S)):
            self.prove(peer, peer.endpoint, now)  # the cookie is of this address alone
        else:
            self.stats.count("echoes_wrong")

    def ask_own_address(self, peer: Peer, now: float) -> None:
        """Ask a peer where it sees us: we have not been told yet, or it wonders where we are."""
        if self._learns_address and now >= self._asked_address_at + ASK_ADDRESS_S:
            self._asked_address_at = now
            self._address_nonce = self.nonce()
            hello = encode(Hello(self._address_nonce, HELLO_PADDING))
            self.outbox.datagrams.append((hello, peer.handle))

    def learn_address(self, message: Welcome, peer: Peer, now: float) -> None:
        """Believe the first peer that says where it sees us; of another place later, two of them.

        What a peer on our own machine sees (loopback) is no address for others: any other goes.
        """
        seen, own = (message.seen_host, message.seen_port), self.identity.endpoint
        if not self._learns_address or not message.seen_host:
            return
        if seen == own:
            self._seen_elsewhere = None
        elif not self.identity.host:
            self._move(self.identity.at(seen))
        elif is_loopback(message.seen_host):
            return
        elif is_loopback(self.identity.host) or self._is_confirmed(seen, peer, now):
            # In a new life: others must not take what they hear for old news.
            self._move(self.identity.at(seen).reborn(self.identity.incarnation + 1))
            for handle in self.leaf_set.members():
                self.send(Alive(self.identity.incarnation), self.peers.of(handle), now)

    def _is_confirmed(self, seen: Endpoint, peer: Peer, now: float) -> bool:
        """Tell whether another peer saw us there, too, or there is none to ask; else ask one."""
        before, self._seen_elsewhere = self._seen_elsewhere, (seen, peer.id, now)
        others = [handle for handle in self.leaf_set.members() if handle.id != peer.id]
        if not others:
            return True
        if before is not None and now - before[2] < SEEN_S and before[1] != peer.id:
            return before[0] == seen
        self._asked_address_at = NEVER
        self.ask_own_address(self.peers.of(self.rng.choice(others)), now)
        return False

    def _move(self, identity: Handle) -> None:
        self._seen_elsewhere = None
        self.identity = intern_handle(identity)
        self.log("address_learned", address=show_endpoint(identity.endpoint))

    def on_welcome(self, message: Welcome, peer: Peer, now: float) -> None:
        """An address has proved itself: what was held for it follows."""
        if self._address_nonce and message.nonce == self._address_nonce:
            self.learn_address(message, peer, now)
        peer.note_active(message.active)
        unproven = peer.unproven
        if unproven is None or message.nonce != (unproven.hello_nonce or -1):
            return
        self.prove(peer, peer.endpoint, now)  # no other address was sent this nonce

    def prove(self, peer: Peer, asked: Endpoint, now: float) -> None:
        """Note that a peer echoed a nonce that was sent to `asked`.

        It may have read it there and answer in another's name: that proves no other address.
        """
        if peer.unproven is None:
            return
        if peer.endpoint != asked:
            self.stats.count("proofs_from_elsewhere")
            return
        unproven, peer.unproven = peer.unproven, None
        if unproven is not None:
            for data in unproven.held:
                self.send_bytes(data, peer, now)


__all__ = ["Context", "Timer"]
