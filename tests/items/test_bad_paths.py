"""A path that loses what goes from a client to one holder, or back: it costs a put a moment."""

from collections.abc import Callable

import pytest

from pastryd.protocol.client_call import Question, Reply
from pastryd.protocol.items import name_of
from pastryd.state.handle import Endpoint, Handle
from pastryd.wire.codec import decode
from pastryd.wire.messages import Message, Segment, Stored
from pastryd.wire.verbs import AnswerStatus, Verb
from tests.items.test_clients import Ring


class BadPath:
    """What is lost between a client and one holder, from the next item for it on."""

    def __init__(self, ring: Ring, lost: Callable[[Message, bool], bool]) -> None:
        """`lost` tells of a message, and whether it goes to the holder."""
        network, client = ring.network, ring.client
        self.holder = next(node for node in network.nodes if node is not client.access)
        transmit = network.transmit

        def lossy(data: bytes, sender: Handle, destination: Handle | Endpoint) -> None:
            receiver = destination.endpoint if isinstance(destination, Handle) else destination
            ends = (sender.endpoint, receiver)
            way = (client.endpoint, self.holder.endpoint)
            if ends not in (way, way[::-1]) or not lost(decode(data), ends == way):
                transmit(data, sender, destination)

        network.transmit = lossy  # type: ignore[method-assign]


@pytest.mark.parametrize("size", [5_000, 30_000])
@pytest.mark.parametrize("kind", [Segment, Stored])
def test_a_holder_that_pulls_and_never_has_it_costs_a_put_a_moment_once(
    size: int, kind: type[Message]
) -> None:
    ring = Ring(8, beside=True)
    path = BadPath(ring, lambda message, to_holder: isinstance(message, kind))
    took_s: list[float] = []
    while len(took_s) < 4:
        value = ring.rng.randbytes(size)
        if path.holder in ring.holders(value):
            reply = ring.client.put(value)
            assert (reply.status, reply.number) == (AnswerStatus.OK, 3)
            took_s.append(reply.after_s)
    assert took_s[0] < 0.5 and max(took_s[1:]) < 0.05
    assert ring.passed_over == 1


@pytest.mark.parametrize("size", [5_000, 30_000])
@pytest.mark.parametrize("to_holder", [True, False])
def test_a_path_that_breaks_while_much_is_put_costs_each_a_moment(
    size: int, to_holder: bool
) -> None:
    ring = Ring(8, beside=True)
    session, network = ring.client.session, ring.network
    breaks_at = network.now + 0.0025
    path = BadPath(ring, lambda message, to: network.now > breaks_at and to is to_holder)
    asked: list[int] = []
    while len(asked) < 8:
        value = ring.rng.randbytes(size)
        if path.holder in ring.holders(value):
            question = Question(Verb.PUT, name_of(value), size, value, 20.0)
            asked.append(session.ask(question, network.now))
    for request in asked:
        reply = ring.client.wait(request)
        assert isinstance(reply, Reply) and reply.status is AnswerStatus.OK
        assert reply.after_s < 1
