"""The documents that an access node answers with: status, trace, where copies lie. JSON, bounded.

Pure functions of what is believed; who asks, and how far a document travels, is `access.py`'s.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pastryd.protocol.context import Context
from pastryd.protocol.storage import Storage
from pastryd.state.handle import Handle, show_endpoint
from pastryd.wire.messages import Hop

COUNTERS_MAX = 200

Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class NodeState:
    """What the node knows of its machines, for its status document."""

    active: bool
    leaving: bool
    uptime_s: float
    missing: int
    """Items that ought to be here and are not yet."""
    unconfirmed: int
    """Items that are not ours, whose k closest have not all confirmed theirs."""
    settled: bool
    searches: int
    puts: int
    pulls: int
    requests: int


def encode_document(document: object) -> bytes:
    """Return a document's bytes."""
    return json.dumps(document, separators=(",", ":")).encode()


def show_id(node_id: int) -> str:
    """Return an id for people."""
    return f"{node_id:032x}"


def show_node(handle: Handle) -> Document:
    """Return who and where."""
    return {"id": show_id(handle.id), "address": show_endpoint(handle.endpoint)}


def _show_member(context: Context, handle: Handle) -> Document:
    peer = context.peers.of(handle)
    srtt_s = peer.srtt_s
    return {
        **show_node(handle),
        "liveness": peer.liveness.value,
        "rtt_ms": None if srtt_s is None else round(srtt_s * 1e3, 3),
    }


def status_document(context: Context, storage: Storage, state: NodeState) -> Document:
    """Return a node's state. Bounded: a leaf set, the settings, and a capped list of counters."""
    leaf_set = context.leaf_set
    counters = context.stats.snapshot()
    return {
        **show_node(context.identity),
        "incarnation": context.identity.incarnation,
        "active": state.active,
        "leaving": state.leaving,
        "uptime_s": round(state.uptime_s, 3),
        "peers": len(context.peers),
        "leaf_set": {
            "left": [_show_member(context, handle) for handle in leaf_set.left],
            "right": [_show_member(context, handle) for handle in leaf_set.right],
        },
        "objects": len(storage.inventory),
        "bytes": storage.inventory.bytes_held,
        "cache_bytes": storage.cache_bytes,
        "replication": {
            "backlog": state.missing + state.unconfirmed,
            "missing": state.missing,
            "unconfirmed": state.unconfirmed,
            "settled": state.settled,
        },
        "in_progress": {
            "requests": state.requests,
            "searches": state.searches,
            "puts": state.puts,
            "pulls": state.pulls,
        },
        "counters": dict(list(counters.items())[:COUNTERS_MAX]),
        "config": asdict(context.config),
    }


def trace_document(key: str, trail: Sequence[Hop], root: Handle) -> Document:
    """Return the nodes of a route; `rtt_ms` is how far each is from the one before it.

    None: the one before it had not measured that yet, or there is none before it.
    """
    handles = [*(hop.handle for hop in trail), root]
    rtts_us = [0, *(hop.rtt_us for hop in trail)]
    hops = [
        {**show_node(handle), "rtt_ms": round(rtt_us / 1e3, 3) if rtt_us else None}
        for handle, rtt_us in zip(handles, rtts_us, strict=True)
    ]
    return {"key": key, "hops": hops}
