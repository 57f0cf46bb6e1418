"""A client's requests, each from the first question to the answer (DESIGN sec. 6).

Holders that answer it (`client_ring.py`) a client asks itself: one of them for an item, all of them
to store one that is small, or that would go over the same wire as often anyway. Only verified
bytes, and copies that all k confirm, are taken from them; whatever else happens, the access node is
asked, as if they had not been.

A request whose answer is late is repeated, with backoff; only silence makes a node unreachable.
"""

from pastryd.ids import NAME_BYTES, Name
from pastryd.protocol.client_call import DIRECT_SHARE, Call, NoReply, Reply
from pastryd.protocol.client_offers import Offers
from pastryd.protocol.client_ring import ClientRing
from pastryd.protocol.client_window import BULK_BYTES_UNDER_WAY, Turns
from pastryd.protocol.context import Context
from pastryd.protocol.items import verify
from pastryd.protocol.pull_queue import PROBED_BYTES
from pastryd.protocol.pull_state import AbsentEverywhere, Pulled, PullResult, TimedOut
from pastryd.protocol.transfer import Transfer
from pastryd.state.peers import Peer
from pastryd.state.rtt import AnswerTime
from pastryd.wire import messages as m
from pastryd.wire.codec import encode
from pastryd.wire.verbs import AnswerStatus, StoreStatus, Verb

REPEAT_MAX_S = 1.0
SILENCE_S = 3.0
"""An access node that lives answers each repetition at once, with PENDING if need be."""
HOLDER_PATIENCE_S = 0.25
"""How long a holder's disk may take at least, and a get at most, before it is asked again."""
HOLDER_REPEATS_MAX = 3
"""Then the access node is asked to see to it, although they live."""
VERDICT_S = 1.0
"""What is left of a put's time, beyond that which an access node takes for it, when that is asked
at the latest: it says how many copies there are, which who only waits never hears."""
SLOW_WIRE_S = 30.0
"""How long bulk goes through the access node after holders had no time for it: what both send to
them at once would make a slow wire slower still."""


class ClientRequests:
    """The calls of one client session, from the first question to the answer."""

    __slots__ = (
        "_answer_times",
        "_asked",
        "_bulk_at",
        "_bulk_turns",
        "_calls",
        "_context",
        "_offers",
        "_ring",
        "_transfer",
        "_turns",
        "access",
    )

    def __init__(
        self, context: Context, transfer: Transfer, ring: ClientRing, offers: Offers
    ) -> None:
        self._context = context
        self._transfer = transfer
        self._ring = ring
        self._offers = offers
        self._turns = Turns(self._send_request)
        self._bulk_turns = Turns(self._send_request, BULK_BYTES_UNDER_WAY)
        self._bulk_at = float("-inf")
        """From when on holders are offered bulk."""
        self._calls: dict[int, Call] = {}
        self._asked: dict[int, Call] = {}
        """By the nonces that were sent."""
        self._answer_times: dict[tuple[Verb, bool, bool], AnswerTime] = {}
        """By what was asked, whether of holders, and whether it is bulk."""
        self.access: Peer | None = None
        """Who has the last word; set before anything is asked."""

    def begin(self, call: Call, now: float) -> None:
        """Ask when it is its turn; a call ends as a `Completion`, or by its `then`."""
        self._calls[call.request_id] = call
        if call.direct and call.is_bulk:
            # The access node bounds what it is given itself, and may be far from who is to hold it.
            call.direct = bool(self._holders_to_ask(call, now))
        if call.direct:
            self._turns_of(call).want(call, now)
        else:
            self._send_request(call, now)

    def _turns_of(self, call: Call) -> Turns:
        return self._bulk_turns if call.is_bulk else self._turns

    def cancel(self, request_id: int, now: float) -> None:
        """Nobody waits for a request any more."""
        call = self._calls.get(request_id)
        if call is not None:
            if call.pulling is not None:
                self._transfer.cancel(call.pulling[0], now, call.pulling[1])
            self._drop(call, now)

    def postpone(self, lag_s: float) -> None:
        """We stood still: nobody's silence during it counts, and none of anybody's time."""
        for call in self._calls.values():
            call.asked_at += lag_s
            call.sent_at += lag_s
            if call.asked or call.pulling is not None:  # the time of the others has not begun
                call.deadline += lag_s

    def _send_request(self, call: Call, now: float) -> None:
        """Ask for the first time (again): with nonces that no earlier answer can match."""
        assert self.access is not None
        peers = self._holders_to_ask(call, now) if call.direct else []
        call.direct = bool(peers)
        peers = peers or [self.access]
        call.asked = {self._context.nonce(): peer for peer in peers}
        self._asked.update(dict.fromkeys(call.asked, call))
        call.copies = call.repeats = 0
        call.asked_at = now
        call.wait_s = self._answer_wait_s(call, REPEAT_MAX_S)
        self._transmit(call, now)

    def _answer_time(self, call: Call) -> AnswerTime:
        """Return what answers of this kind take; at first only the round trip is known."""
        kind = (call.verb, call.direct, call.is_bulk)
        if kind not in self._answer_times:
            first_s = max(peer.rto_s for peer in call.asked.values())
            self._answer_times[kind] = AnswerTime(first_s)
        return self._answer_times[kind]

    def _answer_wait_s(self, call: Call, most_s: float) -> float:
        """Return how long to wait for those who were asked, as far as we know by now."""
        least_s = self._context.config.rto_initial_s
        if call.direct and call.verb is Verb.PUT:
            least_s = max(HOLDER_PATIENCE_S, 2 * least_s)
        elif call.direct:
            # The access node knows others. By being later each time a holder must not make us wait.
            most_s = HOLDER_PATIENCE_S
        return self._answer_time(call).wait_s(least_s, most_s)

    def _holders_to_ask(self, call: Call, now: float) -> list[Peer]:
        """Return one of those that should have an item, or all that are to store it."""
        name = Name(call.name)
        if call.is_bulk and now < self._bulk_at:
            return []
        if call.verb is Verb.PUT:
            return self._ring.replicas(name, now)
        holder = self._ring.holder(name, now)
        return [] if holder is None else [holder]

    def _transmit(self, call: Call, now: float) -> None:
        stores = call.direct and call.verb is Verb.PUT
        for nonce, peer in call.asked.items():
            message: m.Message
            if stores:
                message = m.Store(nonce, Name(call.name), call.number, call.data)
            else:
                message = m.Request(nonce, call.verb, call.name, call.number, call.data)
            self._context.send_bytes(encode(message), peer, now)
        call.sent_at = now
        self._arm(call)

    def _arm(self, call: Call) -> None:
        when = min(call.sent_at + call.wait_s, self._give_up_at(call))
        call.timer = self._context.deadlines.arm(when, self._repeat, call)

    def _give_up_at(self, call: Call) -> float:
        """Return until when those who were asked may take."""
        if not call.direct or call.verb is not Verb.PUT:
            return call.deadline
        until = call.deadline - self._context.config.put_timeout_s - VERDICT_S
        return min(max(until, call.since + REPEAT_MAX_S), call.deadline)

    def _repeat(self, call: Call, now: float) -> None:
        # Others' answers may have shown that they take longer; who spoke since then is just busy.
        is_heard = all(peer.last_heard >= call.sent_at for peer in call.asked.values())
        usual_s = self._answer_wait_s(call, SILENCE_S if is_heard else REPEAT_MAX_S)
        call.wait_s = max(call.wait_s, usual_s)
        give_up_at = self._give_up_at(call)
        if now < min(call.sent_at + call.wait_s, give_up_at):
            self._arm(call)
            return
        if call.direct and now < call.deadline:
            # Who answered something else meanwhile is busy: others would only make it busier.
            mute = [p for p in call.asked.values() if p.last_heard <= now - call.wait_s]
            mute = mute or self._stuck(call, now)
            if mute or call.repeats == HOLDER_REPEATS_MAX or now >= give_up_at:
                for peer in mute:
                    self._ring.note_silence(peer, now)
                if call.is_bulk and not mute:
                    self._bulk_at = now + SLOW_WIRE_S
                self._turn_to_access(call, now)
                return
        # Who answered owes nothing, however long we waited: silence begins with this repetition.
        heard_at = now if is_heard else max(peer.last_heard for peer in call.asked.values())
        call.asked_at = max(call.asked_at, heard_at)
        silent = now - call.asked_at >= SILENCE_S
        if now >= call.deadline or silent:
            self._finish(call, NoReply(now - call.since, silent), now)
            return
        self._context.stats.count("retransmissions")
        self._answer_time(call).note_expired(call.sent_at, now)
        call.repeats += 1
        call.wait_s = min(2 * call.wait_s, REPEAT_MAX_S)
        self._transmit(call, now)

    def _stuck(self, call: Call, now: float) -> list[Peer]:
        """Return the one holder that has not got what all others have, though it speaks.

        It pulls and pulls, and has answered nothing since they have: what is on its way to it, or
        back, is lost. One that is only slow would have answered others of our requests.
        """
        if call.is_bulk or not call.copies or len(call.asked) > 1:
            return []
        if not call.offered and not call.repeats:
            return []
        since = max(call.copied_at, call.sent_at)
        if now - since < call.wait_s / 2:
            return []  # under load others take as long
        return [p for p in call.asked.values() if not self._ring.has_answered(p, since)]

    def _turn_to_access(self, call: Call, now: float) -> None:
        """Those who should hold it did not help: the access node has the last word."""
        self._context.stats.count("holders_passed_over")
        self._stop_asking(call)
        call.direct = False
        self._send_request(call, now)

    def _call_asked(self, nonce: int, peer: Peer, now: float) -> Call | None:
        """Return the call to which an answer belongs, if it comes from who was asked."""
        call = self._asked.get(nonce)
        if call is None or call.asked[nonce].id != peer.id:
            self._context.stats.count("answers_unknown")
            return None
        return call

    def on_stored(self, message: m.Stored, peer: Peer, now: float) -> None:
        """A holder answers a `Store`: when all have, so has the network."""
        call = self._call_asked(message.nonce, peer, now)
        if call is None:
            return
        if not call.direct or call.verb is not Verb.PUT:
            self._context.stats.count("answers_unknown")
            return
        if not call.is_bulk:
            self._turns.on_answer(call, peer.srtt_s or 0.0, now)
        if message.status != StoreStatus.OK:
            self._turn_to_access(call, now)
            return
        self._ring.note_answer(peer, now)
        del self._asked[message.nonce], call.asked[message.nonce]
        call.copies += 1
        call.copied_at = now
        if not call.asked:
            self._note_time(call, now)
            reply = Reply(AnswerStatus.OK, call.copies, b"", b"", now - call.since)
            self._finish(call, reply, now)

    def _note_time(self, call: Call, now: float) -> None:
        """All who were asked have answered. Which copy of a repeated question, nobody knows."""
        if not call.repeats:
            self._answer_time(call).sample(now - call.sent_at)

    def on_answer(self, message: m.Answer, peer: Peer, now: float) -> None:
        """Take in what the access node, or a holder, says to a `Request`."""
        call = self._call_asked(message.nonce, peer, now)
        if call is None or message.status == AnswerStatus.PENDING:
            return
        try:
            status = AnswerStatus(message.status)
        except ValueError:
            self._context.stats.count("answers_of_unknown_status")
            status = AnswerStatus.BAD_REQUEST
        inline = len(message.data) == message.size
        if call.verb is Verb.GET and status is AnswerStatus.OK and inline:
            whole = verify(Name(call.name), message.data)
            status = status if whole else AnswerStatus.CORRUPT
        if call.direct:
            self._turns.on_answer(call, peer.srtt_s or 0.0, now)
            self._ring.note_answer(peer, now)
            if call.verb is not Verb.GET or status is not AnswerStatus.OK:
                self._turn_to_access(call, now)
                return
        if status is not AnswerStatus.BUSY:
            self._note_time(call, now)
        self._stop_asking(call)
        if not inline:
            self._turns.end(call, now)  # how much is pulled at one time is the transfer's to decide
            self._pull(call, status, message, peer, now)
            return
        reply = Reply(status, message.number, message.name, message.data, now - call.since)
        self._finish(call, reply, now)

    def _pull(
        self, call: Call, status: AnswerStatus, message: m.Answer, peer: Peer, now: float
    ) -> None:
        """Fetch what the answer only names."""
        name = Name(message.name)
        if len(name) != NAME_BYTES or (call.verb is Verb.GET and name != call.name):
            self._context.stats.count("answers_malformed")
            if call.direct:
                self._turn_to_access(call, now)
                return
            self._finish(call, Reply(AnswerStatus.CORRUPT, 0, b"", b"", now - call.since), now)
            return

        def on_done(result: PullResult, now: float) -> None:
            call.pulling = None
            if isinstance(result, Pulled):
                reply = Reply(status, message.number, name, result.value, now - call.since)
                self._finish(call, reply, now)
            elif call.direct and now < call.deadline:
                self._turn_to_access(call, now)
            elif isinstance(result, AbsentEverywhere) and not result.corrupt and call.pulls_left:
                call.pulls_left -= 1
                self._send_request(call, now)
            elif result.corrupt:
                self._finish(call, Reply(AnswerStatus.CORRUPT, 0, name, b"", now - call.since), now)
            else:
                slow = isinstance(result, TimedOut) and now - peer.last_heard < SILENCE_S
                self._finish(call, NoReply(now - call.since, not slow), now)

        if message.size >= PROBED_BYTES:
            self._ring.note_pull()
        call.pulling = (name, on_done)
        holders = [peer, *self._ring.others(name, peer)] if call.direct else [peer]
        left_s = max(0.0, call.deadline - now) * (DIRECT_SHARE if call.direct else 1)
        self._transfer.pull(
            name, message.size, holders, on_done, now, deadline_s=left_s, checked=call.checked
        )

    def _stop_asking(self, call: Call) -> None:
        for nonce in call.asked:
            del self._asked[nonce]
        call.asked = {}
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None

    def _finish(self, call: Call, result: Reply | NoReply, now: float) -> None:
        self._drop(call, now)
        if call.then is not None:
            call.then(result, now)
        else:
            self._context.complete(call.request_id, result)

    def _drop(self, call: Call, now: float) -> None:
        self._stop_asking(call)
        del self._calls[call.request_id]
        if call.offered:
            self._offers.withdraw(Name(call.name))
        self._turns_of(call).end(call, now)

    def check_invariants(self) -> None:
        """Assert what must hold between two steps."""
        assert len(self._offers) == sum(1 for call in self._calls.values() if call.offered)
        self._turns.check_invariants()
        self._bulk_turns.check_invariants()
        for nonce, call in self._asked.items():
            assert nonce in call.asked and self._calls[call.request_id] is call
            assert call.timer is not None and call.pulling is None
