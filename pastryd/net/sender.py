"""What leaves a node: seals messages, sends those for one receiver as trains, keeps what must wait.

Owns the queue of what the kernel had no room for, and its bound. Knows neither the core nor the
event loop: it says when it wants to hear that the socket is writable again.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence

from pastryd.net.seal import OVERHEAD_BYTES, SessionTable
from pastryd.net.udp import TRAIN_BYTES_MAX, TRAIN_DATAGRAMS_MAX, UdpSocket
from pastryd.priority import let_others_run
from pastryd.protocol.outbox import Destination
from pastryd.state.handle import Endpoint, Handle
from pastryd.stats import Stats

CONTROL_PAYLOAD_MAX = 512
"""What is larger is probably a segment: nothing smaller rides in its train, where it would wait."""

BULK_BYTES = 16 << 10
"""What is sent in one go and longer than that is bulk."""

PAUSE_LONG_S = 0.001
PIECES_ALONE = 64
"""After a pause that took so long, somebody computes, and each would cost a slice: a step may send
sixteen pieces, and two thirds of a put went to that (docs/decisions/0025-bulk-steps-aside.md)."""

PIECES_AT_ONCE = 16
"""Of what waited for the kernel, before our own loop's other work gets its turn; as many as a step
sends."""

SEND_QUEUE_BYTES_MAX = 2 << 20
"""What may wait for the kernel; more is dropped, as the network would."""


class Sender:
    """The way from messages to one socket."""

    def __init__(
        self,
        udp: UdpSocket,
        sessions: SessionTable,
        stats: Stats,
        watch: Callable[[bool], None],
    ) -> None:
        """`watch` has `handle_writable` called when the socket is writable, or no more."""
        self._udp = udp
        self._sessions = sessions
        self._stats = stats
        self._watch = watch
        self._unsent: deque[tuple[bytes, int, Endpoint]] = deque()
        """Trains, the size of their datagrams, and where they go."""
        self._unsent_bytes = 0
        self._pieces_alone = 0
        """So many pieces go without a pause between them."""

    def send(self, datagrams: Sequence[tuple[bytes, Destination]], now: float) -> bool:
        """Seal and send messages in their order; return whether bulk was among them.

        Others run between two pieces; who ends the step lets them run after the last.
        """
        was_bulk = False
        sessions, send, unsent = self._sessions, self._udp.send, self._unsent
        count, i = len(datagrams), 0
        while i < count:
            payload, destination = datagrams[i]
            i += 1
            if type(destination) is Handle:
                if i < count and datagrams[i][1] is destination:
                    train = _train_from(datagrams, i - 1)
                    if len(train) > 1:
                        i += len(train) - 1
                        if self._send_train(train, destination, now):
                            was_bulk = True
                            if i < count:
                                self._pause()
                        continue
                sealed = sessions.seal(payload, destination, now)
                if sealed is None:
                    continue
                endpoint = destination.endpoint
            else:
                assert type(destination) is tuple
                sealed = sessions.seal_hello(payload)
                endpoint = destination
            if unsent or not send(sealed, endpoint):
                self._keep_unsent(sealed, len(sealed), endpoint)
            if len(sealed) > BULK_BYTES:
                was_bulk = True
                if i < count:
                    self._pause()
        return was_bulk

    def close(self) -> None:
        """Forget what waits."""
        if self._unsent:
            self._unsent.clear()
            self._watch(False)

    def handle_writable(self) -> bool:
        """Send what waits, as far as the kernel has room; return whether bulk was among it.

        At most `PIECES_AT_ONCE` of bulk: while more waits and the socket is writable we are called
        again.
        """
        unsent, pieces = self._unsent, 0
        while unsent and pieces < PIECES_AT_ONCE:
            train, step, endpoint = unsent.popleft()
            sent = self._udp.send_train(train, step, endpoint)
            self._unsent_bytes -= sent
            if sent < len(train):
                unsent.appendleft((train[sent:], step, endpoint))
                return pieces > 0
            if len(train) > BULK_BYTES:
                pieces += 1
                if unsent and pieces < PIECES_AT_ONCE:
                    self._pause()
        if not unsent:
            self._watch(False)
        return pieces > 0

    def _send_train(self, payloads: list[bytes], receiver: Handle, now: float) -> bool:
        """Send messages as one train; return whether it was bulk."""
        train = self._sessions.seal_train(payloads, receiver, now)
        if train is None:
            return False
        step = len(payloads[0]) + OVERHEAD_BYTES
        sent = 0 if self._unsent else self._udp.send_train(train, step, receiver.endpoint)
        if sent < len(train):
            self._keep_unsent(train[sent:], step, receiver.endpoint)
        return len(train) > BULK_BYTES

    def _pause(self) -> None:
        """Let others run between two pieces, unless who did lately kept the core for long."""
        if self._pieces_alone:
            self._pieces_alone -= 1
            return
        began = time.monotonic()
        let_others_run()
        if time.monotonic() - began > PAUSE_LONG_S:
            self._pieces_alone = PIECES_ALONE

    def _keep_unsent(self, train: bytes, step: int, endpoint: Endpoint) -> None:
        if self._unsent_bytes + len(train) > SEND_QUEUE_BYTES_MAX:
            self._stats.count("datagrams_send_queue_full", -(-len(train) // step))
            return
        if not self._unsent:
            self._watch(True)
        self._unsent.append((train, step, endpoint))
        self._unsent_bytes += len(train)


def _train_from(datagrams: Sequence[tuple[bytes, Destination]], i: int) -> list[bytes]:
    """Return as many messages from the i-th on as can travel as one train."""
    first, destination = datagrams[i]
    size = len(first)
    most = min(TRAIN_DATAGRAMS_MAX, TRAIN_BYTES_MAX // (size + OVERHEAD_BYTES))
    least = CONTROL_PAYLOAD_MAX if size > CONTROL_PAYLOAD_MAX else 0
    train: list[bytes] = []
    for payload, other in datagrams[i : i + most]:
        if other is not destination or not least <= len(payload) <= size:
            break
        train.append(payload)
        if len(payload) < size:
            break
    return train
