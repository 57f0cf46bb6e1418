"""`net/seal.py` (DESIGN sec. 4): keys, incarnations, replays, bounds."""

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pastryd.net.keys import PUBLIC_NETWORK_KEY
from pastryd.net.seal import (
    AGREEMENTS_BURST,
    BY_OURSELVES,
    GREETINGS_MAX,
    NETWORK,
    OVERHEAD_BYTES,
    SessionTable,
)
from pastryd.net.udp import endpoint_of
from pastryd.state.handle import Handle
from pastryd.stats import Stats

_HERE = ("192.0.2.1", 4160)
_THERE = ("192.0.2.2", 4160)


class Side:
    """One node's keys and counters."""

    def __init__(
        self,
        seed: int,
        incarnation: int = 1,
        network_key: bytes = PUBLIC_NETWORK_KEY,
        sessions_max: int = 16,
    ) -> None:
        self.private_key = X25519PrivateKey.from_private_bytes(sha256(b"%d" % seed).digest())
        self.public_key = self.private_key.public_key().public_bytes_raw()
        self.stats = Stats()
        self.handle = Handle(self.public_key, *_THERE, incarnation)
        self.table = SessionTable(
            self.private_key,
            incarnation,
            network_key,
            endpoint_of,
            self.stats,
            sessions_max,
        )

    def seal(self, to: "Side", payload: bytes = b"x") -> bytes:
        sealed = self.table.seal(payload, to.handle, 0.0)
        assert sealed is not None
        return sealed

    def opens(self, datagram: bytes, now: float = 0.0) -> bool:
        return self.table.open(datagram, _HERE, now) is not None


def test_the_keys_are_what_the_wire_page_says() -> None:
    a, b = Side(1, 7), Side(2)
    datagram = a.seal(b, b"payload")
    shared = b.private_key.exchange(X25519PublicKey.from_public_bytes(a.public_key))
    info = b"pastryd 1 pair" + a.public_key + b.public_key + (7).to_bytes(8, "big")
    key = HKDF(SHA256(), 32, PUBLIC_NETWORK_KEY, info).derive(shared)
    assert datagram[:49] == b"\x10" + a.public_key + (7).to_bytes(8, "big") + bytes(8)
    assert AESGCM(key).decrypt(bytes(12), datagram[49:], datagram[:49]) == b"payload"


def test_the_hello_key_is_what_the_wire_page_says() -> None:
    a = Side(1, 7)
    datagram = a.table.seal_hello(b"payload")
    info = b"pastryd 1 network" + a.public_key + (7).to_bytes(8, "big")
    key = HKDF(SHA256(), 32, b"", info).derive(PUBLIC_NETWORK_KEY)
    assert datagram[:1] == b"\x11"
    assert AESGCM(key).decrypt(bytes(12), datagram[49:], datagram[:49]) == b"payload"


def test_the_sender_is_the_same_object_each_time() -> None:
    a, b = Side(1), Side(2)
    first = b.table.open(a.seal(b), _HERE, 0.0)
    second = b.table.open(a.seal(b), _HERE, 0.0)
    moved = b.table.open(a.seal(b), _THERE, 0.0)
    back = b.table.open(a.seal(b), _HERE, 0.0)
    assert first and second and moved and back
    assert first[1] is second[1] is back[1]
    assert moved[1].endpoint == _THERE


def test_another_network_key_is_counted_and_not_answered() -> None:
    a, b = Side(1, network_key=b"k" * 32), Side(2)
    assert not b.opens(a.seal(b))
    assert not b.opens(a.table.seal_hello(b"x"))
    assert b.stats.counters == {"datagrams_bad_seal": 2}
    assert len(b.table) == 0


def test_a_replayed_datagram_is_counted_and_dropped() -> None:
    a, b = Side(1), Side(2)
    datagram = a.seal(b)
    assert b.opens(datagram)
    assert not b.opens(datagram)
    assert b.stats.counters == {"datagrams_replayed": 1}


def test_our_own_datagram_reflected_is_dropped_but_our_own_hello_names_us() -> None:
    a, b = Side(1), Side(2)
    assert not a.opens(a.seal(b))
    assert a.stats.counters == {"datagrams_reflected": 1}
    opened = a.table.open(a.table.seal_hello(b"x"), _HERE, 0.0)
    assert opened and opened[1].id == a.handle.id


def test_nothing_is_sealed_for_a_key_of_low_order() -> None:
    a = Side(1)
    assert a.table.seal(b"x", Handle(bytes(32), *_THERE, 1), 0.0) is None
    assert a.stats.counters == {"datagrams_unsealable": 1}


def test_what_a_later_life_of_ours_sealed_for_us_is_told_apart_and_nobody_else_can_make_it() -> (
    None
):
    earlier, later, liar = Side(1, 5), Side(1, 6), Side(2, 7)
    sealed = later.seal(earlier, b"proof")
    opened = earlier.table.open(sealed, _HERE, 0.0)
    assert opened == (b"proof", later.handle.at(_HERE), BY_OURSELVES)
    assert earlier.table.open(sealed, _HERE, 0.0) == opened, "who asks knows what is fresh"
    assert not later.opens(earlier.seal(later)), "an earlier life has nothing to say"
    assert later.stats.counters == {"datagrams_reflected": 1}
    assert not earlier.opens(earlier.seal(earlier))
    assert earlier.stats.counters == {"datagrams_reflected": 1}
    header = sealed[:1] + earlier.public_key + (9).to_bytes(8, "big") + bytes(8)
    for forged in (liar.seal(earlier), liar.table.seal_hello(b"proof")):
        assert not earlier.opens(header + forged[49:])
    other_network = Side(1, 9, network_key=bytes(32))
    assert not earlier.opens(other_network.seal(earlier))
    assert earlier.stats.counters["datagrams_bad_seal"] == 3


def test_forged_datagrams_in_our_own_name_cannot_burn_the_cpu() -> None:
    a = Side(1)
    header = b"\x10" + a.public_key + (9).to_bytes(8, "big") + bytes(8)
    for _ in range(2 * int(AGREEMENTS_BURST)):
        assert not a.opens(header + bytes(32))
    assert a.stats.counters["datagrams_bad_seal"] == AGREEMENTS_BURST


def test_a_train_of_a_later_life_of_ours_is_told_apart() -> None:
    earlier, later = Side(1, 5), Side(1, 6)
    train = later.table.seal_train([b"one", b"two"], earlier.handle, 0.0)
    assert train is not None
    groups = earlier.table.open_train(memoryview(train), len(train) // 2, _HERE, 0.0)
    assert groups == [([b"one", b"two"], later.handle.at(_HERE), BY_OURSELVES)]


def test_a_higher_incarnation_is_believed_only_after_its_seal_opened() -> None:
    a, b = Side(1, 5), Side(2)
    assert b.opens(a.seal(b))
    forged = bytearray(a.seal(b))
    forged[33:41] = (2**64 - 1).to_bytes(8, "big")
    assert not b.opens(bytes(forged))
    assert b.opens(a.seal(b))


def test_an_older_life_of_a_peer_is_not_heard_any_more() -> None:
    old, new, b = Side(1, 5), Side(1, 6), Side(2)
    assert b.opens(old.seal(b))
    assert b.opens(new.seal(b))
    assert not b.opens(old.seal(b))
    assert b.stats.counters == {"datagrams_old_incarnation": 1}


def test_a_refutation_starts_fresh_keys_with_counters_from_zero() -> None:
    a, b = Side(1, 5), Side(2)
    assert b.opens(a.seal(b))
    a.table.renew(6)
    datagram = a.seal(b)
    assert datagram[33:49] == (6).to_bytes(8, "big") + bytes(8)
    assert b.opens(datagram)


def test_a_hello_cannot_speak_for_the_session_of_the_key_that_it_names() -> None:
    a, b, liar = Side(1, 5), Side(2), Side(1, 99)
    assert b.opens(a.seal(b))
    opened = b.table.open(liar.table.seal_hello(b"x"), _HERE, 0.0)
    assert opened and opened[2]
    assert b.opens(a.seal(b))


def test_a_replayed_hello_is_dropped_and_greetings_are_bounded() -> None:
    b = Side(2)
    hello = Side(1).table.seal_hello(b"x")
    assert b.opens(hello)
    assert not b.opens(hello)
    for seed in range(3, GREETINGS_MAX + 5):
        assert b.opens(Side(seed).table.seal_hello(b"x"))
    assert len(b.table._greetings) == GREETINGS_MAX


def test_a_forgotten_session_never_reuses_a_counter() -> None:
    a, b = Side(1, sessions_max=2), Side(2)
    used = {a.seal(b)[41:49] for _ in range(10)}
    for seed in range(3, 12):
        a.seal(Side(seed))
    assert a.stats.counters["sessions_forgotten"] > 0
    assert a.seal(b)[41:49] not in used
    assert len(a.table) <= 2


def test_spoofed_public_keys_cannot_burn_the_cpu_but_a_hello_still_opens() -> None:
    b = Side(2)
    flood = 3 * int(AGREEMENTS_BURST)
    for seed in range(flood):
        spoofed = b"\x10" + (seed + 9).to_bytes(32, "little") + bytes(16) + bytes(16)
        assert not b.opens(spoofed)
    assert b.stats.counters["datagrams_agreement_limit"] == flood - AGREEMENTS_BURST
    newcomer = Side(1)
    assert not b.opens(newcomer.seal(b))
    assert b.opens(newcomer.table.seal_hello(b"x"))
    b.seal(newcomer)
    assert b.opens(newcomer.seal(b))
    assert b.opens(Side(3).seal(b), now=1.0)


def test_every_refusal_has_its_reason() -> None:
    b = Side(2)
    for data in (b"", bytes([NETWORK]) * (OVERHEAD_BYTES - 1)):
        assert not b.opens(data)
    assert not b.opens(b"\x20" + bytes(OVERHEAD_BYTES))
    assert not b.opens(b"\x1f" + bytes(OVERHEAD_BYTES))
    assert b.stats.counters == {
        "datagrams_short": 2,
        "datagrams_wrong_version": 1,
        "datagrams_unknown_kind": 1,
    }


def test_the_last_counter_of_all_at_the_head_of_a_train_is_a_counter_like_others() -> None:
    a, b = Side(1), Side(2)
    train = b""
    a.seal(b)
    for counter in (2**64 - 1, 0):
        a.table._sessions[b.public_key].counter = counter
        train += a.seal(b, b"payload")
    step = len(b"payload") + OVERHEAD_BYTES
    opened = b.table.open_train(memoryview(train), step, _HERE, 0.0)
    assert [payload for payloads, _, _ in opened for payload in payloads] == [b"payload"]


def test_who_says_hello_under_ever_new_keys_makes_us_agree_on_a_few_only() -> None:
    b = Side(2, sessions_max=10_000)
    refused = 0
    for seed in range(10, 10 + 2 * int(AGREEMENTS_BURST)):
        refused += b.table.seal(b"welcome", Side(seed).handle, 0.0) is None
    assert refused == AGREEMENTS_BURST
    assert b.stats.counters["datagrams_agreement_limit"] == refused
    assert b.table.seal(b"welcome", Side(5).handle, 1.0) is not None
