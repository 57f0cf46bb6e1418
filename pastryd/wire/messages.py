"""Every message of the protocol: a named tuple, one integer tag, one field specification each.

Tags are append-only. `docs/wire.md` lists them for other implementations; golden vectors
(`tests/golden/wire`) pin their bytes. `codec.py` checks every field's type and bound on decode, so
that no message can make a node allocate more than its own length.
"""

from typing import NamedTuple

from pastryd.ids import Name, NodeId, Position
from pastryd.state.handle import Handle

HANDLES_MAX = 16
TRAIL_MAX = 12
NAMES_MAX = 32
ACKS_MAX = 64
RECORDS_MAX = 8
FAILED_MAX = 8
RANGES_MAX = 16
DEEPEST_ROW = 255
RTT_US_MAX = 0xFFFFFFFF
ROW_PADDING = bytes(300)
"""With it a `RowRequest` has a third of the bytes of the longest row."""
SUMMARY_BYTES_MAX = 2 * HANDLES_MAX
PAYLOAD_MAX = 65_000
APPLICATION_MAX = 16


def microseconds(rtt_s: float | None) -> int:
    """Return a round trip time as messages carry it: 0 if it is not known."""
    return int(min((rtt_s or 0.0) * 1e6, RTT_US_MAX))


class Hello(NamedTuple):
    """Who are you? Padded so that the answer is never longer; proves that an address hears us."""

    nonce: int
    padding: bytes


class Welcome(NamedTuple):
    """Answers `Hello`: who we are and where the asker was seen. `active`: ready to be joined.
    `ahead_host` and `ahead_port`: whom the sender asks itself, while it is not. `cookie`: what
    `Echo` brings back.
    """

    nonce: int
    sender: Handle
    seen_host: str
    seen_port: int
    active: bool
    ahead_host: str
    ahead_port: int
    cookie: int


class Hop(NamedTuple):
    """A node and a smoothed RTT (0: not measured): to the next of a trail, or from who tells."""

    handle: Handle
    rtt_us: int


class Route(NamedTuple):
    """A message on its way to the root of `key`. `seq` is acknowledged by the next hop alone."""

    seq: int
    key: Position
    source: Handle
    hops: int
    application: str
    payload: bytes
    keep_trail: bool
    trail: tuple[Hop, ...]


class HopAck(NamedTuple):
    """The next hop has taken over responsibility for these `Route`s."""

    seqs: tuple[int, ...]


class JoinReply(NamedTuple):
    """From the root of the joiner's id: the nodes on the way; the sender is the root."""

    nonce: int
    trail: tuple[Handle, ...]


class LeafSetProbe(NamedTuple):
    """MSPastry's LS-PROBE: the sender's leaf set, and whom it believes to have failed.

    `summary`: two bytes for each member, clockwise from the sender: the top 16 bits of its id times
    `nonce`, modulo 2^128. `members`: those of whom the receiver is known to lack. `host` and
    `port`: where the sender wants to be reached. `holds_items`: whether its store is not empty.
    `failure_rate`: its estimate, in 1e-9 per node and second.
    """

    nonce: int
    host: str
    port: int
    active: bool
    holds_items: bool
    failure_rate: int
    summary: bytes
    members: tuple[Handle, ...]
    failed: tuple[tuple[NodeId, int], ...]


class LeafSetReply(NamedTuple):
    """Answers `LeafSetProbe` with the same of the other side, and with whom the asker lacks."""

    nonce: int
    host: str
    port: int
    active: bool
    holds_items: bool
    failure_rate: int
    summary: bytes
    members: tuple[Handle, ...]
    failed: tuple[tuple[NodeId, int], ...]


class RowRequest(NamedTuple):
    """Send me a row of your routing table. Padded: the answer is less than three times as long.

    Row 255: the deepest that has at least 8 entries.
    """

    nonce: int
    row: int
    padding: bytes


class RowReply(NamedTuple):
    """Answers `RowRequest`: the entries, and how far each is from the sender."""

    nonce: int
    row: int
    entries: tuple[Hop, ...]


class Ping(NamedTuple):
    """Are you there, and how far? `rtt_us`: what the sender measured, if it is active (else 0)."""

    nonce: int
    rtt_us: int


class Pong(NamedTuple):
    """Answers `Ping`. `wanted_us`: were the asker nearer, it would get a slot of our table."""

    nonce: int
    wanted_us: int


class Heartbeat(NamedTuple):
    """To the immediate left neighbour, each period. `digest`: of those whom both should know.

    These are the sender's members without the rightmost, and itself; and the receiver's without
    the leftmost, and itself. Where the digests differ the receiver sends a `LeafSetProbe`.
    """

    digest: int


class IndirectPing(NamedTuple):
    """Ping `target` for me (SWIM sec. 4.1)."""

    nonce: int
    target: Handle


class IndirectPong(NamedTuple):
    """Answers `IndirectPing`; `alive` False is Lifeguard's negative ack."""

    nonce: int
    alive: bool


class Suspect(NamedTuple):
    """The sender suspects this node in this incarnation, or has given it up: verify it.

    To that node itself: others call it dead, it is to refute that; in a later incarnation than its
    own: a later life of it is known, which `members` names. Otherwise `members`: who comes into the
    receiver's leaf set in its place, as far as the sender knows.
    """

    id: NodeId
    incarnation: int
    members: tuple[Handle, ...]


class Alive(NamedTuple):
    """The sender refutes suspicions: it lives, in this incarnation. Ends the receiver's doubts."""

    incarnation: int


class Leave(NamedTuple):
    """The sender leaves; do not count on it any more."""

    incarnation: int


class Measured(NamedTuple):
    """The sender is so far from you, and ready to be routed through: see `Pong.wanted_us`."""

    rtt_us: int


class Echo(NamedTuple):
    """The cookie of a `Welcome`: the sender receives what is sent to where it was seen."""

    cookie: int


class Find(NamedTuple):
    """Do you hold what is stored under this key? Small items come back in the answer."""

    nonce: int
    name: Name


class Found(NamedTuple):
    """An object (`size` >= 0, `data` whole when it fits) or the index entries at that key."""

    nonce: int
    size: int
    data: bytes
    records: tuple[bytes, ...]


class Replicas(NamedTuple):
    """I do not hold it (`Find`), or you asked who should. The replica set, root first."""

    nonce: int
    holders: tuple[Handle, ...]


class Store(NamedTuple):
    """Please hold this item; pull it from me unless `data` is it."""

    nonce: int
    name: Name
    size: int
    data: bytes


class Stored(NamedTuple):
    """Answers `Store`: a `StoreStatus`."""

    nonce: int
    status: int


class HaveQuery(NamedTuple):
    """Which of these do you hold durably? `expect`: you should; pull the others from me."""

    nonce: int
    expect: bool
    names: tuple[Name, ...]


class HaveReply(NamedTuple):
    """Answers `HaveQuery`: bit i is names[i]."""

    nonce: int
    bitmap: int


class Pull(NamedTuple):
    """Send the segments `first + i` for each set bit i of `mask`, each `segment_bytes` long."""

    nonce: int
    name: Name
    segment_bytes: int
    first: int
    mask: int


class Segment(NamedTuple):
    """One segment; integers have constant width, so that a burst has one datagram size."""

    nonce: int
    index: int  # type: ignore[assignment]
    size: int
    data: bytes | memoryview


class PathProbe(NamedTuple):
    """Answer with a message of exactly this many bytes: does your path to me carry that?"""

    nonce: int
    message_bytes: int


class PathReply(NamedTuple):
    """Answers `PathProbe`, padded to the wanted length."""

    nonce: int
    padding: bytes


class Absent(NamedTuple):
    """Answers `Pull`: not here."""

    nonce: int
    name: Name


class Range(NamedTuple):
    """The items on the arc [start, end): how many, and the XOR of their fingerprints."""

    start: Position
    end: Position
    count: int  # type: ignore[assignment]
    fingerprint: int


class Ranges(NamedTuple):
    """Compare these ranges with yours, or (`final`) the answer: those that differ, as we see it."""

    nonce: int
    final: bool
    ranges: tuple[Range, ...]


class Names(NamedTuple):
    """All that the sender holds on [start, end), or (`final`) what the receiver lacks of it."""

    nonce: int
    start: Position
    end: Position
    final: bool
    names: tuple[Name, ...]


class Request(NamedTuple):
    """A client's command to its access node: a `Verb`. Repeated until answered."""

    nonce: int
    verb: int
    name: bytes
    number: int
    data: bytes


class Answer(NamedTuple):
    """Answers `Request`: a status and a document of `size` bytes, here or to be pulled."""

    nonce: int
    status: int
    number: int
    name: bytes
    size: int
    data: bytes


Message = (
    Hello | Welcome | Route | HopAck | JoinReply | LeafSetProbe | LeafSetReply | RowRequest
    | RowReply | Ping | Pong | Heartbeat | IndirectPing | IndirectPong | Suspect | Alive | Leave
    | Find | Found | Replicas | Store | Stored | HaveQuery | HaveReply | Pull | Segment | Absent
    | Ranges | Names | Request | Answer | PathProbe | PathReply | Measured
    | Echo
)  # fmt: skip
