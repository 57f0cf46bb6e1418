#!/usr/bin/env python3
"""Cost of a transfer in microseconds per segment, and MB/s of two cores joined in memory.

No sockets, no sealing: what remains is the protocol, its codec and the hash. `--paths` instead
prints, in virtual time, which share of a bottleneck one pull reaches under loss.

    PYTHONPATH=. python scripts/bench_transfer.py [--items 64] [--paths]
"""

import argparse
import json
from hashlib import sha256
from random import Random
from time import perf_counter

from pastryd.config import OBJECT_BYTES_MAX, Config
from pastryd.ids import Name
from pastryd.protocol.context import Context
from pastryd.protocol.pull_state import Pulled, PullResult
from pastryd.protocol.segment_server import Then
from pastryd.protocol.transfer import Transfer
from pastryd.state.handle import Handle
from pastryd.state.peers import Peer
from pastryd.wire.codec import decode
from pastryd.wire.messages import Pull, Segment

ITEMS: dict[Name, bytes] = {}


def build(number: int) -> tuple[Context, Transfer]:
    """Return one side."""
    context = Context(
        Handle(bytes([number]) * 32, "127.0.0.1", number, 1), Config(), Random(number)
    )

    def read(name: Name, offset: int, length: int, then: Then, now: float) -> None:
        value = ITEMS[name]
        then(memoryview(value)[offset : offset + length], len(value), now)

    return context, Transfer(context, read, lambda name, value: sha256(value).digest() == name)


def peer_of(context: Context, other: Context) -> Peer:
    """Return a peer that is as proven as a neighbour of long standing."""
    peer = context.peers.of(other.identity)
    peer.unproven = None
    peer.sample_rtt(0.0005)
    return peer


def bench(items: int) -> dict[str, float]:
    """Pull items one after the other; account for each part of the work."""
    holder, serving = build(1)
    asker, pulling = build(2)
    to_asker, to_holder = peer_of(holder, asker), peer_of(asker, holder)
    rng = Random(3)
    for _ in range(items):
        value = rng.randbytes(OBJECT_BYTES_MAX)
        ITEMS[Name(sha256(value).digest())] = value
    serve_s = decode_s = receive_s = hash_s = 0.0
    segments = pulls = 0
    now = 1.0
    done: list[PullResult] = []
    started = perf_counter()
    for name in ITEMS:
        pulling.pull(name, OBJECT_BYTES_MAX, [to_holder], lambda r, _: done.append(r), now)
        while asker.outbox.datagrams:
            questions = [decode(data) for data, _ in asker.outbox.datagrams]
            asker.outbox.datagrams.clear()
            pulls += len(questions)
            at = perf_counter()
            for question in questions:
                assert isinstance(question, Pull)
                serving.on_pull(question, to_asker, now)
            serve_s += perf_counter() - at
            at = perf_counter()
            answers = [decode(data) for data, _ in holder.outbox.datagrams]
            decode_s += perf_counter() - at
            holder.outbox.datagrams.clear()
            segments += len(answers)
            now += 0.0005
            at = perf_counter()
            for answer in answers:
                assert isinstance(answer, Segment)
                pulling.on_segment(answer, to_holder, now)
            receive_s += perf_counter() - at
            holder.deadlines.run_due(now)
            asker.deadlines.run_due(now)
    elapsed = perf_counter() - started
    assert len(done) == items and all(isinstance(r, Pulled) for r in done)
    at = perf_counter()
    for value in ITEMS.values():
        sha256(value).digest()
    hash_s = perf_counter() - at
    return {
        "segments": segments,
        "segments_per_pull": round(segments / pulls, 1),
        "serve_us_per_segment": round(serve_s / segments * 1e6, 2),
        "decode_us_per_segment": round(decode_s / segments * 1e6, 2),
        "receive_us_per_segment": round((receive_s - hash_s) / segments * 1e6, 2),
        "hash_us_per_segment": round(hash_s / segments * 1e6, 2),
        "serve_MB_per_s": round(items * OBJECT_BYTES_MAX / serve_s / 1e6),
        "receive_and_hash_MB_per_s": round(items * OBJECT_BYTES_MAX / (receive_s + decode_s) / 1e6),
        "both_in_one_thread_MB_per_s": round(items * OBJECT_BYTES_MAX / elapsed / 1e6),
    }


def bench_paths() -> list[dict[str, float]]:
    """One client pulling 1 MiB items, 8 at a time, over a 25 MB/s bottleneck, in virtual time."""
    from dataclasses import replace  # noqa: PLC0415

    from tests.support.transfer_link import Faults, Link  # noqa: PLC0415

    rows = []
    value = Random(1).randbytes(OBJECT_BYTES_MAX + 64)
    config = replace(Config.wan(), receive_window_bytes=8 << 20)
    for rtt_s, loss in [(0.001, 0), (0.02, 0), (0.02, 0.01), (0.02, 0.05), (0.08, 0.05)]:
        for queue in (1e9, 200_000.0):
            faults = Faults(rtt_s / 2, 0.0, loss, 0.0, 25e6, queue)
            link = Link(2, faults, 1, config)
            link.checked = False
            ended = []
            for i in range(32):
                if i >= 8:
                    link.run(ended[i - 8])
                ended.append(link.pull(link.hold(value[i : i + OBJECT_BYTES_MAX], 1), [1]))
            for results in ended:
                link.run(results)
            assert all(isinstance(r[0], Pulled) for r in ended), [type(r[0]) for r in ended]
            sent = sum(isinstance(m, Segment) for m in link.stations[1].sent)
            rows.append(
                {
                    "rtt_ms": rtt_s * 1e3,
                    "loss": loss,
                    "queue_bytes": queue,
                    "MB_per_s": round(32 * OBJECT_BYTES_MAX / (link.now - 100) / 1e6, 1),
                    "lost_in_window": link.count("segments_lost"),
                    "sent_per_needed": round(sent / (32 * 938), 3),
                }
            )
    return rows


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=64, help="how many items of 1 MiB")
    parser.add_argument("--paths", action="store_true", help="virtual-time throughput under loss")
    options = parser.parse_args()
    if options.paths:
        for row in bench_paths():
            print(json.dumps(row))
    else:
        print(json.dumps(bench(options.items), indent=2))


if __name__ == "__main__":
    main()
