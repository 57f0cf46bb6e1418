"""Sealed datagrams (DESIGN sec. 4; `docs/wire.md` for other implementations).

    byte 0     version (high four bits) and kind: 0 pair, 1 network
    1..32      sender's X25519 public key
    33..40     sender's incarnation
    41..48     counter
    49..       AES-256-GCM: nonce = 4 zero bytes + counter, associated data = bytes 0..48

Owns every key but knows no sockets and no messages; `now` is an argument. Rules it keeps: a (key,
counter) pair is never used twice; nothing that an unauthenticated datagram says changes what we
believe; each refusal costs bounded time and is counted by its reason.
"""

import struct
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pastryd.net.keys import expand, extract
from pastryd.net.replay import ReplayWindow
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.token_bucket import TokenBucket
from pastryd.stats import Stats
from pastryd.wire.handles import intern_handle

VERSION = 1
PAIR = VERSION << 4
NETWORK = VERSION << 4 | 1
HEADER_BYTES = 49
TAG_BYTES = 16
OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES

SESSIONS_MAX = 16_384
GREETINGS_MAX = 1024
HANDLES_MAX = 65_536
AGREEMENTS_PER_S = 1000.0
AGREEMENTS_BURST = 256.0
"""Key agreements, at most 6 % of a core: for keys that only an unauthenticated datagram mentions,
and as many for those whom we say something, newcomers' Hellos among the reasons."""

PAIR_LABEL = b"pastryd 1 pair"
NETWORK_LABEL = b"pastryd 1 network"

Address = tuple[str, int] | tuple[str, int, int, int]
"""What the socket calls an endpoint."""

BY_PEER = 0
BY_MEMBER = 1
"""Under the network key alone: whoever has that may be the sender."""
BY_OURSELVES = 2
"""Under our own key, in a later incarnation: by another node that has our private key."""

Opened = tuple[bytes, Handle, int]
"""Payload, sender as it presents itself now, and by whom it was sealed."""

OpenedTrain = tuple[list[bytes], Handle, int]
"""Payloads in order, and of each what `Opened` says."""

_NUMBERS = struct.Struct(">QQ")
_NONCE = struct.Struct(">IQ")
_NONCE_PREFIX = bytes(4)
_NO_INCARNATION = -1


class _Session:
    """Keys and counters of one peer. Either direction may be missing until it is used."""

    __slots__ = (
        "address",
        "counter",
        "handle",
        "incarnation",
        "own_incarnation",
        "root",
        "seal",
        "unseal",
        "used",
        "window",
    )

    def __init__(self, root: bytes, now: float) -> None:
        self.root = root
        """HKDF's pseudorandom key of this pair."""
        self.own_incarnation = _NO_INCARNATION
        self.counter = 0
        self.seal: AESGCM
        self.incarnation = _NO_INCARNATION
        """The highest one in which the peer authenticated itself."""
        self.unseal: AESGCM
        self.window: ReplayWindow
        self.address: Address
        self.handle: Handle
        self.used = now


class _Greeting:
    """Key and replay window of a sender of Hellos."""

    __slots__ = ("unseal", "window")

    def __init__(self, unseal: AESGCM) -> None:
        self.unseal = unseal
        self.window = ReplayWindow()


class SessionTable:
    """Seals for and opens from every peer, as one node in its present incarnation."""

    __slots__ = (
        "_agreements",
        "_counter_floor",
        "_endpoint_of",
        "_greetings",
        "_handles",
        "_hello_counter",
        "_hello_prefix",
        "_hello_seal",
        "_network_key",
        "_network_root",
        "_own_agreements",
        "_pair_prefix",
        "_private_key",
        "_public_key",
        "_sessions",
        "_sessions_max",
        "_stats",
        "incarnation",
    )

    def __init__(
        self,
        private_key: X25519PrivateKey,
        incarnation: int,
        network_key: bytes,
        endpoint_of: Callable[[Address], Endpoint],
        stats: Stats,
        sessions_max: int = SESSIONS_MAX,
    ) -> None:
        self._private_key = private_key
        self._public_key = private_key.public_key().public_bytes_raw()
        self._network_key = network_key
        self._network_root = extract(b"", network_key)
        self._endpoint_of = endpoint_of
        self._stats = stats
        self._agreements = TokenBucket(AGREEMENTS_PER_S, AGREEMENTS_BURST)
        self._own_agreements = TokenBucket(AGREEMENTS_PER_S, AGREEMENTS_BURST)
        self._sessions: dict[bytes, _Session] = {}
        self._sessions_max = sessions_max
        self._counter_floor = 0
        """Above every counter of a session that was forgotten: made again, it has the same key."""
        self._greetings: dict[bytes, _Greeting] = {}
        self._handles: dict[tuple[bytes, int, Endpoint], Handle] = {}
        self.incarnation = _NO_INCARNATION
        self.renew(incarnation)

    def __len__(self) -> int:
        return len(self._sessions)

    def renew(self, incarnation: int) -> None:
        """Go on in a higher incarnation: fresh keys, counters from 0."""
        assert incarnation > self.incarnation, "an incarnation must never come back: keys would"
        self.incarnation = incarnation
        sender = self._public_key + incarnation.to_bytes(8, "big")
        self._pair_prefix = bytes([PAIR]) + sender
        self._hello_prefix = bytes([NETWORK]) + sender
        self._hello_seal = AESGCM(self._network_seal_key(sender))
        self._hello_counter = 0
        self._counter_floor = 0

    # -- out --

    def seal(self, payload: bytes, receiver: Handle, now: float) -> bytes | None:
        """Return a datagram that only `receiver` can open; None when its key is not usable."""
        session = self._sessions.get(receiver.public_key)
        if session is None or session.own_incarnation != self.incarnation:
            session = self._prepare(receiver.public_key, now)
            if session is None:
                return None
        session.used = now
        counter = session.counter.to_bytes(8, "big")
        session.counter += 1
        header = self._pair_prefix + counter
        return header + session.seal.encrypt(_NONCE_PREFIX + counter, payload, header)

    def seal_train(self, payloads: Sequence[bytes], receiver: Handle, now: float) -> bytes | None:
        """Return several datagrams for one receiver, one behind the other; None as in `seal`."""
        session = self._sessions.get(receiver.public_key)
        if session is None or session.own_incarnation != self.incarnation:
            session = self._prepare(receiver.public_key, now)
            if session is None:
                return None
        session.used = now
        counter, encrypt, prefix = session.counter, session.seal.encrypt, self._pair_prefix
        session.counter += len(payloads)
        parts: list[bytes] = []
        for payload in payloads:
            number = counter.to_bytes(8, "big")
            counter += 1
            header = prefix + number
            parts.append(header)
            parts.append(encrypt(_NONCE_PREFIX + number, payload, header))
        return b"".join(parts)

    def seal_hello(self, payload: bytes) -> bytes:
        """Return a datagram that whoever has the network key can open."""
        counter = self._hello_counter.to_bytes(8, "big")
        self._hello_counter += 1
        header = self._hello_prefix + counter
        return header + self._hello_seal.encrypt(_NONCE_PREFIX + counter, payload, header)

    def _prepare(self, public_key: bytes, now: float) -> _Session | None:
        """Make a session ready to seal in our present incarnation."""
        session = self._sessions.get(public_key)
        if session is None:
            if not self._own_agreements.take(now):
                self._stats.count("datagrams_agreement_limit")
                return None
            session = self._agree(public_key, now)
            if session is None:
                self._stats.count("datagrams_unsealable")
                return None
            self._keep(public_key, session)
        sender = self._public_key + public_key + self.incarnation.to_bytes(8, "big")
        session.seal = AESGCM(expand(session.root, PAIR_LABEL + sender))
        session.own_incarnation = self.incarnation
        session.counter = self._counter_floor
        return session

    # -- in --

    def open(self, datagram: bytes | memoryview, address: Address, now: float) -> Opened | None:
        """Return what a datagram says and who says it; None, and counted, when it is not for us."""
        if len(datagram) < OVERHEAD_BYTES:
            return self._refuse("datagrams_short")
        if datagram[0] != PAIR:
            return self._open_network(bytes(datagram), address)
        session = self._sessions.get(bytes(datagram[1:33]))
        incarnation, counter = _NUMBERS.unpack_from(datagram, 33)
        if session is None or incarnation != session.incarnation:
            first = bytes(datagram)
            return self._open_first(first, session, incarnation, counter, address, now)
        window = session.window
        if counter <= window.highest and not window.is_fresh(counter):
            return self._refuse("datagrams_replayed")
        try:
            payload = session.unseal.decrypt(
                _NONCE.pack(0, counter), datagram[HEADER_BYTES:], datagram[:HEADER_BYTES]
            )
        except InvalidTag:
            return self._refuse("datagrams_bad_seal")
        window.accept(counter)
        session.used = now
        if address != session.address:
            session.address = address
            session.handle = self._handle(bytes(datagram[1:33]), incarnation, address)
        return payload, session.handle, BY_PEER

    def open_train(
        self, train: memoryview, step: int, address: Address, now: float
    ) -> list[OpenedTrain]:
        """Open datagrams of `step` bytes that came together from one address."""
        groups: list[OpenedTrain] = []
        start = 0
        while start < len(train):
            datagram = train[start : start + step]
            start += step
            opened = self.open(datagram, address, now)
            if opened is None:
                continue
            payload, sender, sealed = opened
            if not groups or groups[-1][1] is not sender or groups[-1][2] != sealed:
                groups.append(([], sender, sealed))
            payloads = groups[-1][0]
            payloads.append(payload)
            if sealed != BY_PEER:
                continue
            session = self._sessions[sender.public_key]
            counter = _NUMBERS.unpack_from(datagram, 33)[1]
            if session.window.highest == counter:
                run = _open_run(session, counter + 1, train[start:], step)
                payloads += run
                start += len(run) * step
        return groups

    def _open_first(
        self,
        datagram: bytes,
        session: _Session | None,
        incarnation: int,
        counter: int,
        address: Address,
        now: float,
    ) -> Opened | None:
        """Open a peer's first datagram in an incarnation; believe it only if the seal holds."""
        public_key = datagram[1:33]
        if public_key == self._public_key:
            return self._open_own(datagram, incarnation, address, now)
        if session is not None and incarnation < session.incarnation:
            return self._refuse("datagrams_old_incarnation")
        is_new = session is None
        if session is None:
            if not self._agreements.take(now):
                return self._refuse("datagrams_agreement_limit")
            session = self._agree(public_key, now)
            if session is None:
                return self._refuse("datagrams_bad_seal")
        info = PAIR_LABEL + public_key + self._public_key + datagram[33:41]
        unseal = AESGCM(expand(session.root, info))
        try:
            payload = unseal.decrypt(_NONCE_PREFIX + datagram[41:49], datagram[49:], datagram[:49])
        except InvalidTag:
            return self._refuse("datagrams_bad_seal")
        if is_new:
            self._keep(public_key, session)
        session.incarnation = incarnation
        session.unseal = unseal
        session.window = ReplayWindow()
        session.window.accept(counter)
        session.address = address
        session.handle = self._handle(public_key, incarnation, address)
        session.used = now
        return payload, session.handle, BY_PEER

    def _open_own(
        self, datagram: bytes, incarnation: int, address: Address, now: float
    ) -> Opened | None:
        """Open what another holder of our own key sealed; ours comes back from who reflects it.

        Nothing of it is kept: whether it is fresh is for the core to know, which asked for it.
        """
        if incarnation <= self.incarnation:
            return self._refuse("datagrams_reflected")
        if not self._agreements.take(now):
            return self._refuse("datagrams_agreement_limit")
        public_key = self._public_key
        session = self._agree(public_key, now)
        assert session is not None
        info = PAIR_LABEL + public_key + public_key + datagram[33:41]
        unseal = AESGCM(expand(session.root, info))
        try:
            payload = unseal.decrypt(_NONCE_PREFIX + datagram[41:49], datagram[49:], datagram[:49])
        except InvalidTag:
            return self._refuse("datagrams_bad_seal")
        return payload, self._handle(public_key, incarnation, address), BY_OURSELVES

    def _open_network(self, datagram: bytes, address: Address) -> Opened | None:
        """Open what is sealed under the network key.

        It proves membership, not who sent it: it must not touch the session of the key it names.
        Our own Hello passes: it tells the core that one of its seeds is itself.
        """
        if datagram[0] != NETWORK:
            right_version = datagram[0] >> 4 == VERSION
            return self._refuse(
                "datagrams_unknown_kind" if right_version else "datagrams_wrong_version"
            )
        public_key = datagram[1:33]
        incarnation, counter = _NUMBERS.unpack_from(datagram, 33)
        sender = datagram[1:41]
        greeting = self._greetings.get(sender)
        unseal = greeting.unseal if greeting else AESGCM(self._network_seal_key(sender))
        if greeting and not greeting.window.is_fresh(counter):
            return self._refuse("datagrams_replayed")
        try:
            payload = unseal.decrypt(_NONCE_PREFIX + datagram[41:49], datagram[49:], datagram[:49])
        except InvalidTag:
            return self._refuse("datagrams_bad_seal")
        if greeting is None:
            if len(self._greetings) >= GREETINGS_MAX:
                del self._greetings[next(iter(self._greetings))]
            greeting = self._greetings[sender] = _Greeting(unseal)
        greeting.window.accept(counter)
        return payload, self._handle(public_key, incarnation, address), BY_MEMBER

    # -- what both share --

    def _network_seal_key(self, sender: bytes) -> bytes:
        return expand(self._network_root, NETWORK_LABEL + sender)

    def _agree(self, public_key: bytes, now: float) -> _Session | None:
        """Return a session with a key, not kept yet; None for a key that X25519 refuses."""
        try:
            shared = self._private_key.exchange(X25519PublicKey.from_public_bytes(public_key))
        except ValueError:
            return None
        return _Session(extract(self._network_key, shared), now)

    def _keep(self, public_key: bytes, session: _Session) -> None:
        """Keep a session; when there are too many, forget the quarter that was idle longest."""
        if len(self._sessions) >= self._sessions_max:
            idle = sorted(self._sessions, key=lambda k: self._sessions[k].used)
            for key in idle[: max(1, len(idle) // 4)]:
                forgotten = self._sessions.pop(key)
                if forgotten.own_incarnation == self.incarnation:
                    self._counter_floor = max(self._counter_floor, forgotten.counter)
            self._stats.count("sessions_forgotten", max(1, len(idle) // 4))
        self._sessions[public_key] = session

    def _handle(self, public_key: bytes, incarnation: int, address: Address) -> Handle:
        """Return the one object that stands for this sender."""
        endpoint = self._endpoint_of(address)
        key = (public_key, incarnation, endpoint)
        handle = self._handles.get(key)
        if handle is None:
            if len(self._handles) >= HANDLES_MAX:
                self._handles.clear()
            handle = intern_handle(Handle(public_key, *endpoint, incarnation))
            self._handles[key] = handle
        return handle

    def _refuse(self, reason: str) -> Opened | None:
        self._stats.count(reason)
        return None


def _open_run(session: _Session, first: int, train: memoryview, step: int) -> list[bytes]:
    """Open datagrams as long as their counters go on from `first`, higher than any before.

    A sender numbers a train in a row, so that the counters need not be read: the header with the
    true one is authenticated, and what does not open by the guess is not of this run.
    """
    decrypt, pack = session.unseal.decrypt, _NONCE.pack
    counter = first
    payloads: list[bytes] = []
    try:
        for start in range(0, len(train), step):
            body = start + HEADER_BYTES
            header, sealed = train[start:body], train[body : start + step]
            payloads.append(decrypt(pack(0, counter), sealed, header))
            counter += 1
    except (InvalidTag, struct.error):  # another's or a forged one, or beyond the last counter
        pass
    session.window.accept_run(first, counter)
    return payloads
