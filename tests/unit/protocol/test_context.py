"""What an address that has not proved itself may be sent (DESIGN sec. 4)."""

from random import Random

from pastryd.config import Config
from pastryd.protocol.context import (
    HEARSAY_HELLOS_BURST,
    HELLO_PADDING,
    STAND_IN_BYTES_MAX,
    Context,
)
from pastryd.protocol.requests import Requests
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire.codec import decode, encode
from pastryd.wire.messages import (
    ROW_PADDING,
    Echo,
    Heartbeat,
    Hello,
    Ping,
    Pong,
    RowReply,
    RowRequest,
    Welcome,
)
from tests.support.builders import handle_at


def fresh() -> tuple[Context, Requests]:
    context = Context(handle_at(1), Config(), Random(1))
    return context, Requests(context)


def sent(context: Context) -> list[type]:
    kinds = [type(decode(data)) for data, _ in context.outbox.datagrams]
    context.outbox.datagrams.clear()
    return kinds


def ping(context: Context, requests: Requests, peer: Peer) -> int:
    return requests.ask(peer, Ping(context.nonce(), 0), lambda answer, now: None, 0.0)


def test_a_short_question_goes_in_place_of_a_hello_and_its_answer_proves_the_address() -> None:
    context, requests = fresh()
    peer = context.peers.of(handle_at(2))
    nonce = ping(context, requests, peer)
    assert sent(context) == [Ping]
    assert requests.answered(Pong(nonce, 0), peer, 0.1)
    assert peer.unproven is None


def test_a_question_for_a_row_goes_in_place_of_a_hello_too() -> None:
    context, requests = fresh()
    peer = context.peers.of(handle_at(2))
    request = RowRequest(context.nonce(), 0, ROW_PADDING)
    requests.ask(peer, request, lambda answer, now: None, 0.0)
    assert sent(context) == [RowRequest]


def test_a_long_question_waits_for_a_hello() -> None:
    context, requests = fresh()
    peer = context.peers.of(handle_at(2))
    request = RowRequest(context.nonce(), 0, bytes(STAND_IN_BYTES_MAX))
    requests.ask(peer, request, lambda answer, now: None, 0.0)
    assert sent(context) == [Hello]


def test_what_asks_nothing_waits_for_a_hello_however_short() -> None:
    context, _ = fresh()
    context.send(Heartbeat(5), context.peers.of(handle_at(2)), 0.0)
    assert sent(context) == [Hello]


def test_questions_to_strangers_share_the_budget_of_hellos() -> None:
    context, requests = fresh()
    for number in range(2 * int(HEARSAY_HELLOS_BURST)):
        ping(context, requests, context.peers.of(handle_at(1000 + number)))
    assert len(sent(context)) == HEARSAY_HELLOS_BURST
    assert context.stats.counters["hearsay_hellos_refused"] > 0


def test_no_answer_to_a_hello_is_longer_than_the_question() -> None:
    far = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
    context = Context(Handle(bytes([255] * 32), far, 65535, 2**64 - 1), Config(), Random(1))
    hello = Hello(2**64 - 1, HELLO_PADDING)
    asker = Handle(bytes([254] * 32), far, 65534, 1)
    context.on_hello(hello, asker, active=False, ahead=(far, 65533), now=0.0)
    [(answer, _)] = context.outbox.datagrams
    assert isinstance(decode(answer), Welcome)
    assert len(answer) <= len(encode(hello))


def welcomed(context: Context, sender: Handle, now: float) -> int:
    """Return the cookie of the answer to a greeting."""
    context.on_hello(Hello(5, HELLO_PADDING), sender, active=True, ahead=("", 0), now=now)
    welcome = decode(context.outbox.datagrams.pop()[0])
    assert isinstance(welcome, Welcome)
    return welcome.cookie


def test_who_echoes_a_cookie_in_time_has_proved_its_address() -> None:
    context, _ = fresh()
    for number, (late_s, proven) in enumerate([(0.1, True), (59.0, True), (121.0, False)], 20):
        handle = handle_at(number)
        cookie = welcomed(context, handle, 1000.0)
        peer = context.heard(handle, 40, 1000.0 + late_s)
        context.on_echo(Echo(cookie), peer, 1000.0 + late_s)
        assert (peer.unproven is None) == proven
    assert context.stats.counters["echoes_wrong"] == 1


def test_a_cookie_proves_no_other_address_and_no_other_node() -> None:
    context, _ = fresh()
    here = handle_at(20)
    cookie = welcomed(context, here, 0.0)
    for other in (here.at(("192.0.2.77", 4160)), handle_at(21)):
        peer = context.heard(other, 40, 0.1)
        context.on_echo(Echo(cookie), peer, 0.1)
        assert peer.unproven is not None
    assert context.stats.counters["echoes_wrong"] == 2


def test_what_waits_for_a_proof_follows_an_echo_at_once() -> None:
    context, _ = fresh()
    handle = handle_at(20)
    cookie = welcomed(context, handle, 0.0)
    peer = context.heard(handle, 40, 0.1)
    context.send_bytes(bytes(2000), peer, 0.1)
    context.outbox.datagrams.clear()
    context.on_echo(Echo(cookie), peer, 0.2)
    assert [data for data, _ in context.outbox.datagrams] == [bytes(2000)]


def test_an_answer_from_elsewhere_proves_neither_address() -> None:
    context, requests = fresh()
    there = Handle(b"k" * 32, "192.0.2.20", 4160, 1)
    victim = there.at(("192.0.2.77", 4160))
    peer = context.peers.of(there)
    nonce = ping(context, requests, peer)
    assert context.heard(victim, 60, 0.1) is peer
    assert requests.answered(Pong(nonce, 0), peer, 0.1)
    assert peer.unproven is not None
    assert context.stats.counters["proofs_from_elsewhere"] == 1


def test_a_question_that_was_repeated_elsewhere_proves_no_address() -> None:
    """Who reads it there, and answers under the address that was asked first, did not hear it."""
    context, requests = fresh()
    victim = Handle(b"k" * 32, "192.0.2.77", 4160, 1)
    there = victim.at(("192.0.2.20", 4160))
    peer = context.heard(victim, 60, 0.0)
    nonce = ping(context, requests, peer)
    context.heard(there, 60, 0.1)
    context.deadlines.run_due(5.0)
    assert there in [to for _, to in context.outbox.datagrams]
    context.heard(victim, 60, 5.1)
    assert requests.answered(Pong(nonce, 0), peer, 5.1)
    assert peer.unproven is not None
    assert context.stats.counters["proofs_from_elsewhere"] == 1


def test_a_question_that_waited_and_followed_elsewhere_proves_no_address() -> None:
    context, requests = fresh()
    victim = Handle(b"k" * 32, "192.0.2.77", 4160, 1)
    there = victim.at(("192.0.2.20", 4160))
    peer = context.heard(victim, 60, 0.0)
    request = RowRequest(context.nonce(), 0, bytes(2 * STAND_IN_BYTES_MAX))
    nonce = requests.ask(peer, request, lambda answer, now: None, 0.0)
    assert sent(context) == [Hello]
    cookie = welcomed(context, there, 0.1)
    context.on_echo(Echo(cookie), context.heard(there, 60, 0.1), 0.1)
    assert sent(context)[-1] is RowRequest
    context.heard(victim, 60, 0.2)
    assert requests.answered(RowReply(nonce, 0, ()), peer, 0.2)
    assert peer.unproven is not None


def test_a_peer_that_moved_proves_its_new_address_by_the_next_question() -> None:
    context, requests = fresh()
    here = Handle(b"k" * 32, "192.0.2.20", 4160, 1)
    peer = context.heard(here, 60, 0.0)
    assert requests.answered(Pong(ping(context, requests, peer), 0), peer, 0.1)
    assert peer.unproven is None
    nonce = ping(context, requests, peer)
    context.heard(here.at(("192.0.2.20", 9999)), 60, 0.2)
    assert requests.answered(Pong(nonce, 0), peer, 0.2)
    assert peer.unproven is not None
    assert requests.answered(Pong(ping(context, requests, peer), 0), peer, 0.3)
    assert peer.unproven is None


def test_hellos_to_who_spoke_are_no_more_than_it_paid_for_but_for_a_few() -> None:
    context, _ = fresh()
    for number in range(3 * int(HEARSAY_HELLOS_BURST)):
        peer = context.heard(handle_at(1000 + number), 14, 0.0)
        context.ask_proof(peer, 0.0)
    assert len(sent(context)) == 3 * HEARSAY_HELLOS_BURST, "one each is less than three times that"
    context.deadlines.run_due(1.0)
    assert len(sent(context)) <= HEARSAY_HELLOS_BURST
