"""`net/seal.py` under any bytes: what one side sealed the other opens once, and nothing else."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pastryd.net.keys import PUBLIC_NETWORK_KEY
from pastryd.net.seal import OVERHEAD_BYTES, PAIR, SessionTable
from pastryd.net.udp import endpoint_of
from pastryd.state.handle import Handle
from pastryd.stats import Stats

_KEYS = [X25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2)]
_FROM = ("192.0.2.1", 4160)


def _table(i: int) -> SessionTable:
    return SessionTable(_KEYS[i], 7, PUBLIC_NETWORK_KEY, endpoint_of, Stats())


def _handle(i: int) -> Handle:
    return Handle(_KEYS[i].public_key().public_bytes_raw(), "192.0.2.9", 4160, 7)


def _sealed(payload: bytes) -> bytes:
    datagram = _table(0).seal(payload, _handle(1), 0.0)
    assert datagram is not None
    return datagram


@given(st.binary(max_size=1200))
def test_what_was_sealed_opens_to_the_same_bytes_and_names_its_sender(payload: bytes) -> None:
    datagram = _sealed(payload)
    assert len(datagram) == len(payload) + OVERHEAD_BYTES
    opened = _table(1).open(datagram, _FROM, 0.0)
    assert opened == (payload, _handle(0).at(_FROM), False)


@given(st.binary(max_size=200), st.integers(0), st.booleans())
def test_no_bit_can_be_flipped(payload: bytes, place: int, known: bool) -> None:
    sender, receiver = _table(0), _table(1)
    if known:
        first = sender.seal(b"first", _handle(1), 0.0)
        assert first is not None
        assert receiver.open(first, _FROM, 0.0)
    datagram = bytearray(sender.seal(payload, _handle(1), 0.0) or b"")
    bit = place % (len(datagram) * 8)
    datagram[bit // 8] ^= 1 << bit % 8
    assert receiver.open(bytes(datagram), _FROM, 0.0) is None


@given(st.binary(max_size=200), st.integers(0))
def test_no_end_can_be_cut_off(payload: bytes, place: int) -> None:
    datagram = _sealed(payload)
    assert _table(1).open(datagram[: place % len(datagram)], _FROM, 0.0) is None


@given(st.lists(st.integers(0, 29), max_size=60))
def test_in_any_order_and_however_often_each_datagram_opens_once(order: list[int]) -> None:
    sender, receiver = _table(0), _table(1)
    datagrams = [sender.seal(bytes([i]), _handle(1), 0.0) or b"" for i in range(30)]
    seen: set[int] = set()
    for i in order:
        opened = receiver.open(datagrams[i], _FROM, 0.0)
        assert (opened is None) == (i in seen)
        seen.add(i)


@given(st.binary(max_size=300), st.sampled_from([None, PAIR, PAIR + 1]))
def test_arbitrary_bytes_are_refused_and_never_raise(data: bytes, first: int | None) -> None:
    if first is not None:
        data = bytes([first]) + data
    receiver = _table(1)
    assert receiver.open(data, _FROM, 0.0) is None
    assert len(receiver) == 0


@given(st.binary(min_size=32, max_size=32))
def test_any_public_key_can_be_tried_as_a_receiver(public_key: bytes) -> None:
    table = _table(0)
    sealed = table.seal(b"x", Handle(public_key, "192.0.2.9", 4160, 7), 0.0)
    assert sealed is None or len(sealed) == 1 + OVERHEAD_BYTES


@given(
    st.lists(
        st.tuples(st.integers(0, 79), st.sampled_from(["", "", "", "flip", "short", "hello"])),
        min_size=1,
        max_size=50,
    ),
    st.integers(0, 3),
)
def test_a_train_opens_exactly_to_what_its_datagrams_open_to_one_by_one(
    train: list[tuple[int, str]], seen_before: int
) -> None:
    """In order or not, with gaps, repeats, forgeries and Hellos in between, and across blocks."""
    sender, together, alone = _table(0), _table(1), _table(1)
    sealed = [sender.seal(b"%5d" % i, _handle(1), 0.0) or b"" for i in range(80)]
    hello = sender.seal_hello(b"hello")
    for receiver in (together, alone):
        for datagram in sealed[:seen_before]:
            receiver.open(datagram, _FROM, 0.0)
    datagrams = []
    for number, fault in train:
        datagram = bytearray(hello if fault == "hello" else sealed[number])
        if fault == "flip":
            datagram[number % len(datagram)] ^= 1
        datagrams.append(bytes(datagram[:-1] + b"x" if fault == "short" else datagram))
    opened = [alone.open(datagram, _FROM, 0.0) for datagram in datagrams]
    groups = together.open_train(memoryview(b"".join(datagrams)), len(datagrams[0]), _FROM, 0.0)
    flat = [(payload, who, is_hello) for payloads, who, is_hello in groups for payload in payloads]
    assert flat == [one for one in opened if one is not None]
    fresh = [together.open(datagram, _FROM, 0.0) is not None for datagram in sealed]
    assert fresh == [alone.open(datagram, _FROM, 0.0) is not None for datagram in sealed]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=60))
def test_a_sealed_train_is_its_datagrams_one_behind_the_other(payloads: list[bytes]) -> None:
    train = _table(0).seal_train(payloads, _handle(1), 0.0)
    one_by_one = _table(0)
    assert train == b"".join(one_by_one.seal(p, _handle(1), 0.0) or b"" for p in payloads)
