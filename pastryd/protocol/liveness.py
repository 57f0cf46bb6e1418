"""Failure detection: probes, suspicion, death (SWIM 2002, Lifeguard 2018).

Whoever is silent (`heartbeats.py` and `requests.py` notice) is doubted: pinged directly, then
through other members, then SUSPECT (still a member, not routed through), then DEAD. Anything that a
node says itself ends its death and suspicion. Who is accused wrongly, and told so by whoever heard
it live, refutes with a higher incarnation, which ends all doubt about it. A node that hears from
nobody doubts itself first: its `Awareness` stretches its own timeouts.
"""

from collections.abc import Callable
from functools import partial

from pastryd.ids import NodeId
from pastryd.protocol.context import Context
from pastryd.protocol.requests import Requests
from pastryd.protocol.suspicion import Awareness, Suspicion
from pastryd.protocol.witnesses import Witnesses
from pastryd.state.deadlines import Timer
from pastryd.state.handle import Handle, show_endpoint
from pastryd.state.peers import Liveness, Peer
from pastryd.state.token_bucket import TokenBucket
from pastryd.wire.messages import (
    Alive,
    IndirectPing,
    IndirectPong,
    Ping,
    Pong,
    Suspect,
    microseconds,
)

DOUBTS_MAX = 1024
ACCUSERS_MAX = 8
REFUTATIONS_PER_S = 1.0
REFUTATIONS_BURST = 8.0
"""A new incarnation costs new keys with everybody; an accuser hears from us in any case."""
HELPING_MAX = 64
"""Pings for others at once. Who asks for more gets no answer, which is no negative one."""


class _Doubt:
    """One peer that is being verified."""

    __slots__ = (
        "accusers",
        "asked",
        "incarnation",
        "is_hearsay",
        "is_silent",
        "peer",
        "suspicion",
        "timer",
        "waiting",
    )

    def __init__(self, peer: Peer, accusers: list[NodeId]) -> None:
        self.peer = peer
        self.incarnation = peer.handle.incarnation
        """In which it is accused: a later one has refuted that."""
        self.accusers = accusers
        self.suspicion: Suspicion | None = None
        self.timer: Timer | None = None
        self.is_hearsay = bool(accusers)
        """Others doubted it first, and have asked around."""
        self.asked = 0
        """How many others were asked to ping it."""
        self.is_silent = False
        """It has left all our own pings unanswered."""
        self.waiting = 0
        """How many questions about it are under way once others were asked."""


class LivenessMonitor:
    """Decides who is alive. `on_suspect` is told when a peer is not to be routed through any more,
    `on_dead` that it is to be removed everywhere.
    """

    __slots__ = (
        "_context",
        "_doubts",
        "_helping",
        "_on_dead",
        "_on_suspect",
        "_on_twin",
        "_refutations",
        "_requests",
        "_silent",
        "_witnesses",
        "awareness",
    )

    def __init__(
        self,
        context: Context,
        requests: Requests,
        on_suspect: Callable[[Peer, float], None],
        on_dead: Callable[[Peer, float], None],
        on_twin: Callable[[Suspect, Peer, float], None],
    ) -> None:
        """`on_twin` is told who knows of a later life of us."""
        self._context = context
        self._requests = requests
        self._on_suspect = on_suspect
        self._on_dead = on_dead
        self._on_twin = on_twin
        self._doubts: dict[NodeId, _Doubt] = {}
        self._witnesses = Witnesses(context)
        self._helping = 0
        self._silent: dict[NodeId, float] = {}
        """Who left a ping unanswered that we sent for somebody else, and when."""
        self._refutations = TokenBucket(REFUTATIONS_PER_S, REFUTATIONS_BURST)
        self.awareness = Awareness()

    def postpone(self, by_s: float) -> None:
        """We stood still: nobody's silence during that time counts, and we trust ourselves less."""
        self.awareness.doubt()
        for doubt in self._doubts.values():
            if doubt.suspicion is not None:
                doubt.suspicion.postpone(by_s)

    # -- doubt --

    def doubt(self, peer: Peer, accuser: NodeId | None, now: float) -> None:
        """Verify a peer. `accuser`: another node that says so after probes of its own.

        Anybody may say so; the word of those counts whom we know and who were right the last time,
        and others make us look alone.
        """
        if accuser is not None and not self._witnesses.believes(accuser, peer.id, now):
            self._context.stats.count("accusers_not_believed")
            accuser = None
        known = self._doubts.get(peer.id)
        if known is not None:
            if accuser is not None:
                self._accuse(known, accuser, now)
            return
        if peer.liveness is Liveness.DEAD or len(self._doubts) >= DOUBTS_MAX:
            return
        doubt = self._doubts[peer.id] = _Doubt(peer, [] if accuser is None else [accuser])
        is_hearsay = accuser is not None
        if is_hearsay and self._was_silent(peer, now):
            self._suspect(doubt, now)  # our ping was for the accuser, but it was ours
            return
        timeout_s = self.awareness.scale(self._context.config.probe_timeout_s)
        attempts = self._attempts(doubt)
        self._requests.ask(
            peer,
            self._ping(peer),
            lambda answer, now: self._on_direct(doubt, answer, now),
            now,
            attempts=attempts,
            # The accuser has waited for it already.
            timeout_s=timeout_s / 2 if is_hearsay and attempts > 1 else timeout_s,
        )

    def _attempts(self, doubt: _Doubt) -> int:
        """Return how often we ping before we judge, or ask others."""
        if self._witnesses.include_watcher(doubt.accusers, doubt.peer.id):
            return 1  # who watches it has asked it twice, and others
        is_member = doubt.peer.id in self._context.leaf_set
        if not doubt.accusers and is_member and self._helpers(doubt.peer):
            return 1  # the other pings go out while others ask
        return self._context.config.probe_attempts

    def _was_silent(self, peer: Peer, now: float) -> bool:
        """Tell whether a peer has left a ping unanswered that we sent lately for another node."""
        pinged_at = self._silent.pop(peer.id, float("-inf"))
        lately = now - self._context.config.heartbeat_s
        return pinged_at >= max(lately, peer.last_heard)

    def _ping(self, peer: Peer) -> Ping:
        return Ping(self._context.nonce(), microseconds(peer.srtt_s))

    def unanswered(self, peer: Peer, now: float) -> None:
        """Pings of ours stayed unanswered: verify a member, and give up anybody else."""
        if peer.id in self._context.leaf_set:
            self.doubt(peer, None, now)
        elif peer.id not in self._doubts and peer.liveness is not Liveness.DEAD:
            self._set(peer, Liveness.DEAD)
            self._on_suspect(peer, now)
            self._on_dead(peer, now)

    def _on_direct(self, doubt: _Doubt, answer: Pong | None, now: float) -> None:
        if self._doubts.get(doubt.peer.id) is not doubt:
            return
        if answer is not None:
            self.awareness.trust()
            self.clear(doubt.peer, now)
            self._witnesses.note_false(doubt.accusers, now)
            if doubt.accusers and doubt.peer.handle.incarnation == doubt.incarnation:
                # Let it refute before others who were told as much lose their pings.
                accusation = Suspect(doubt.peer.id, doubt.incarnation, ())
                self._context.send(accusation, doubt.peer, now)
            return
        if doubt.peer.id not in self._context.leaf_set:
            self._on_suspect(doubt.peer, now)
            self._declare_dead(doubt, now)  # nobody's keys depend on it
            return
        helpers = self._helpers(doubt.peer)
        if doubt.is_hearsay or not helpers:
            self._suspect(doubt, now)
            return
        self._ask_around(doubt, helpers, now)

    def _ask_around(self, doubt: _Doubt, helpers: list[Peer], now: float) -> None:
        """Ask others, and the doubted one again meanwhile."""
        config = self._context.config
        doubt.asked = len(helpers)
        doubt.waiting = len(helpers) + 1
        indirect_s = self.awareness.scale(config.indirect_timeout_s)
        self._requests.ask(
            doubt.peer,
            self._ping(doubt.peer),
            partial(self._on_again, doubt),
            now,
            attempts=max(1, config.probe_attempts - 1),
            timeout_s=indirect_s,
        )
        for helper in helpers:
            self._requests.ask(
                helper,
                IndirectPing(self._context.nonce(), doubt.peer.handle),
                partial(self._on_indirect, doubt, helper),
                now,
                attempts=1,
                timeout_s=2 * indirect_s,
            )

    def _on_again(self, doubt: _Doubt, answer: Pong | None, now: float) -> None:
        if self._doubts.get(doubt.peer.id) is not doubt:
            return
        if answer is not None:
            self.awareness.trust()
            self.clear(doubt.peer, now)
            return
        doubt.is_silent = True
        self._judge(doubt, now)

    def _judge(self, doubt: _Doubt, now: float) -> None:
        """One question about it ended: suspect it if we and another got no answer, or all ended."""
        doubt.waiting -= 1
        convicted = doubt.is_silent and doubt.accusers
        if doubt.suspicion is None and (convicted or not doubt.waiting):
            self._suspect(doubt, now)

    def _helpers(self, target: Peer) -> list[Peer]:
        context = self._context
        members = [
            context.peers.of(h)
            for h in context.leaf_set.members()
            if h.id != target.id and context.usable(h.id) and h.id not in self._doubts
        ]
        count = min(context.config.indirect_helpers, len(members))
        return context.rng.sample(members, count)

    def _on_indirect(
        self, doubt: _Doubt, helper: Peer, answer: IndirectPong | None, now: float
    ) -> None:
        if self._doubts.get(doubt.peer.id) is not doubt:
            return
        if answer is None:
            # Not even the helper answered: perhaps it is us who cannot hear.
            self.awareness.doubt()
        else:
            self.awareness.trust()
        if answer is not None and answer.alive:
            self._context.stats.count("saved_by_indirect_ping")
            self.clear(doubt.peer, now)
            return
        if answer is not None:
            self._accuse(doubt, helper.id, now)
        self._judge(doubt, now)

    # -- suspicion --

    def _suspect(self, doubt: _Doubt, now: float) -> None:
        context = self._context
        config = context.config
        doubt.suspicion = Suspicion(
            now,
            context.identity.id,
            self.awareness.scale(config.suspicion_min_s),
            self.awareness.scale(config.suspicion_max_s),
            max(doubt.asked, len(doubt.accusers)),
        )
        for accuser in doubt.accusers:
            doubt.suspicion.accuse(accuser)
        self._set(doubt.peer, Liveness.SUSPECT)
        if doubt.asked:
            # Who accused it to us has told it, or those tell it whom it answers.
            accusation = Suspect(doubt.peer.id, doubt.peer.handle.incarnation, ())
            context.send(accusation, doubt.peer, now)
        doubt.timer = context.deadlines.arm(doubt.suspicion.deadline, self._expire, doubt)
        self._on_suspect(doubt.peer, now)

    def _expire(self, doubt: _Doubt, now: float) -> None:
        if self._doubts.get(doubt.peer.id) is doubt:
            self._declare_dead(doubt, now)

    def _declare_dead(self, doubt: _Doubt, now: float) -> None:
        del self._doubts[doubt.peer.id]
        self._set(doubt.peer, Liveness.DEAD)
        self._on_dead(doubt.peer, now)

    def clear(self, peer: Peer, now: float) -> None:
        """A peer spoke for itself: whatever we believed, it lives."""
        doubt = self._doubts.pop(peer.id, None)
        if doubt is not None and doubt.timer is not None:
            doubt.timer.cancel()
        self._set(peer, Liveness.ALIVE)

    def _set(self, peer: Peer, liveness: Liveness) -> None:
        """The one place that changes what we believe of a peer's life."""
        if peer.liveness is not liveness:
            was, peer.liveness = peer.liveness, liveness
            self._context.log(
                "peer_liveness",
                peer=f"{peer.id:032x}",
                address=show_endpoint(peer.endpoint),
                was=was.value,
                now=liveness.value,
            )

    # -- messages --

    def on_indirect_ping(self, message: IndirectPing, peer: Peer, now: float) -> None:
        """Ping the target for somebody else; say so when it does not answer."""
        if self._helping >= HELPING_MAX:
            self._context.stats.count("indirect_pings_refused")
            return
        target = self._context.peers.of(message.target)
        if target.id == self._context.identity.id:
            return
        self._helping += 1

        def on_answer(answer: Pong | None, now: float) -> None:
            self._helping -= 1
            if answer is None:
                if len(self._silent) >= HELPING_MAX:
                    del self._silent[next(iter(self._silent))]
                self._silent[target.id] = now
            self._context.send(IndirectPong(message.nonce, answer is not None), peer, now)

        self._requests.ask(
            target,
            self._ping(target),
            on_answer,
            now,
            attempts=1,
            timeout_s=self._context.config.indirect_timeout_s,
        )

    def on_suspect(self, message: Suspect, peer: Peer, now: float) -> None:
        """Somebody is accused. Us: refute. Another: look ourselves; the accuser counts."""
        context = self._context
        if message.id == context.identity.id:
            told = [peer]
            if message.incarnation > context.identity.incarnation:
                self._on_twin(message, peer, now)
                return
            is_current = message.incarnation == context.identity.incarnation
            if is_current and self._refutations.take(now):
                self.awareness.doubt()
                context.identity = context.identity.reborn(message.incarnation + 1)
                context.log("refuted_suspicion", accuser=f"{peer.id:032x}")
                members = map(context.peers.of, context.leaf_set.members())
                told += [member for member in members if member is not peer]
            alive = Alive(context.identity.incarnation)
            for each in told:
                context.send(alive, each, now)
            return
        member: Handle | None = context.leaf_set.get(message.id)
        if member is None or member.incarnation > message.incarnation:
            return
        self.doubt(context.peers.of(member), peer.id, now)

    def _accuse(self, doubt: _Doubt, accuser: NodeId, now: float) -> None:
        """One more accuser: the deadline comes nearer."""
        if doubt.suspicion is None:
            if len(doubt.accusers) < ACCUSERS_MAX and accuser not in doubt.accusers:
                doubt.accusers.append(accuser)
        elif doubt.suspicion.accuse(accuser):
            if doubt.timer is not None:
                doubt.timer.cancel()
            deadline = max(now, doubt.suspicion.deadline)
            doubt.timer = self._context.deadlines.arm(deadline, self._expire, doubt)
