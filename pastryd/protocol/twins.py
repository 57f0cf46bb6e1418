"""Two nodes under one identity, mostly on copies of one data directory: the older one must stop.

Peers hear only the later life of a node, so that the earlier one is alone and would serve on as a
ring of its own. But nobody's word for that counts: who lies or replays could stop any node. Proof
is an answer to a nonce of ours, sealed under our own key, by an active node in a later incarnation:
nobody but who holds our private key can make it (docs/decisions/0035-who-stops-of-two.md).
"""

from pastryd.ids import NodeId
from pastryd.protocol.context import NOBODY, Context
from pastryd.protocol.outbox import Superseded
from pastryd.state.handle import Endpoint, Handle
from pastryd.state.peers import Peer
from pastryd.state.token_bucket import TokenBucket, TokenBuckets
from pastryd.wire.messages import Alive, Hello, Suspect, Welcome

ASKS_PER_S = 0.5
ASKS_BURST = 2.0
"""On the word of each who tells us of a twin: liars keep nobody else from being believed."""
RAISES_PER_S = 0.1
RAISES_BURST = 2.0
"""As for a refutation: a new incarnation costs new keys with everybody."""
RAISE_BELIEVED_MAX = 1 << 62
"""No life of ours was ever so late; a lie beyond it would leave no room for later ones."""
TELLERS_MAX = 64
ASKED_MAX = 64


class Twins:
    """Asks those who are said to be a later life of us, and answers an earlier one."""

    __slots__ = ("_asked", "_asks", "_context", "_noted", "_raises")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asks: TokenBuckets = TokenBuckets(ASKS_PER_S, ASKS_BURST, TELLERS_MAX)
        self._asked: dict[int, None] = {}
        """The nonces of our last questions."""
        self._noted = False
        self._raises = TokenBucket(RAISES_PER_S, RAISES_BURST)

    def on_suspect(self, message: Suspect, peer: Peer, now: float) -> None:
        """A peer says that it has heard a later life of us: ask that one, unless it is over."""
        own = self._context.identity
        places = [handle.endpoint for handle in message.members if handle.id == own.id]
        elsewhere = [endpoint for endpoint in places if endpoint != own.endpoint]
        if places and not elsewhere:
            self._outlive(message.incarnation, peer, now)
            return
        self._note(peer.handle)
        for endpoint in elsewhere:
            self._ask(endpoint, peer.id, now)

    def on_hello(self, message: Hello, sender: Handle, active: bool, now: float) -> None:
        """Somebody, perhaps another life of us, says Hello in our name. The later one answers."""
        self._note(sender)
        if sender.incarnation < self._context.identity.incarnation:
            self._context.on_hello(message, sender, active, NOBODY, now)
        else:
            self._ask(sender.endpoint, sender.id, now)

    def on_own_hello(self, nonce: int) -> bool:
        """Tell whether a Hello that came here is one of ours: somebody has named ourselves."""
        return nonce in self._asked

    def on_welcome(self, message: Welcome, sender: Handle) -> None:
        """A later life of us has answered: it has our place if it is active."""
        asked = message.nonce in self._asked
        self._asked.pop(message.nonce, None)
        later = sender.incarnation > self._context.identity.incarnation
        if asked and later and message.active:
            self._context.outbox.events.append(Superseded(sender))
        else:
            self._context.stats.count("answers_unexpected")

    def _outlive(self, incarnation: int, peer: Peer, now: float) -> None:
        """Go on in a life that peers hear: the one that they remember was here, where we are now.

        So it is when the clock was ahead in that life and its data directory is not ours, but an
        older copy.
        """
        if incarnation >= RAISE_BELIEVED_MAX or not self._raises.take(now):
            return
        context = self._context
        context.identity = context.identity.reborn(incarnation + 1)
        context.log("later_life_outlived", told_by=f"{peer.id:032x}", remembered=incarnation)
        alive = Alive(context.identity.incarnation)
        for each in [peer, *map(context.peers.of, context.leaf_set.members())]:
            context.send(alive, each, now)

    def _ask(self, endpoint: Endpoint, told_by: NodeId, now: float) -> None:
        if not endpoint[0] or not self._asks.take(told_by, now):
            return
        nonce = self._context.hello_hearsay(endpoint, now)
        if nonce:
            self._asked[nonce] = None
            if len(self._asked) > ASKED_MAX:
                del self._asked[next(iter(self._asked))]

    def _note(self, told_by: Handle) -> None:
        """Say so, once, for it may be a lie."""
        if not self._noted:
            self._noted = True
            self._context.log(
                "identity_used_twice",
                told_by=str(told_by),
                advice="do two nodes run on copies of one data directory? the ring hears only the "
                "newer one, and the older one stops when it has proof; give one of them an empty "
                "--data-dir",
            )
