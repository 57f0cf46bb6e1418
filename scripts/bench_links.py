#!/usr/bin/env python3
"""How well pulls use a long or lossy link, and how they share it: real nodes, a link of our own.

Two network namespaces joined in user space (`link_lab.py`), at 100 Mbit/s by default. For every
round-trip time, loss and queue: one pull; two; one and a TCP flow, either one first; one and a
background pull. Loss strikes after the queue, so that what is lost has used the link. Linux, root.

    PYTHONPATH=. python scripts/bench_links.py [--rtt 20 80] [--loss 0 1] [--runs alone two]

Prints a line of JSON for each; `--page FILE...` makes docs/results/links.md of such lines.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import signal
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
import uvloop
from bench_pull import Identity, Pulls, Settings, hold
from link_lab import (
    ADDRESSES,
    FAR,
    NEAR,
    NODE_PRIORITY,
    Conditions,
    Flow,
    LinkLab,
    Passage,
    end_with_parent,
    missing,
    prefer,
)
from links_page import write

from pastryd.config import OBJECT_BYTES_MAX
from pastryd.ids import Name
from pastryd.protocol.context import DATAGRAM_OVERHEAD_BYTES
from pastryd.service import Service
from pastryd.state.handle import Handle
from pastryd.wire.codec import SEGMENT_HEADER_BYTES

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
UDP, TCP = 17, 6
TCP_PORT = 5001
IN_FLIGHT = 8
ITEMS_HELD = 48
SHALLOW_BYTES = 100_000
HEADERS_BYTES = 28 + DATAGRAM_OVERHEAD_BYTES + SEGMENT_HEADER_BYTES
"""IP, UDP, ours and the seal, a segment's own."""
HEAD_START_S = 3.0
SETTLING_S = 3.0
SHARING_S = 10.0


class Worker:
    """A process on one side of the link; `main` gets its end of a pipe, and ends by itself."""

    def __init__(self, lab: LinkLab, side: int, main: Callable[..., None], *args: object) -> None:
        self.pipe, theirs = multiprocessing.Pipe()

        def run() -> None:
            end_with_parent()
            lab.enter(side)
            prefer(NODE_PRIORITY)
            main(theirs, *args)

        self.process = multiprocessing.Process(target=run, daemon=True)
        self.process.start()
        theirs.close()

    def receive(self, wait_s: float = 60.0) -> Any:
        """Return what it says next."""
        if not self.pipe.poll(wait_s):
            raise TimeoutError("a process of the benchmark says nothing")
        return self.pipe.recv()

    def stop(self) -> Any:
        """Tell it to end; return its last word."""
        self.pipe.send(None)
        last = self.receive()
        self.process.join(10)
        return last

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()


# -- what the workers do --


def hold_far(pipe: Connection, directory: str) -> None:
    """Be the holder."""
    hold(pipe, directory, ITEMS_HELD, f"{ADDRESSES[FAR]}:0")


def pull_near(
    pipe: Connection, directory: str, identity: Identity, names: list[Name], background: bool
) -> None:
    """Join; tell our port; when told how many items (0: endless), pull them; tell how it went."""
    holder = Handle(*identity)

    async def run() -> None:
        bootstrap = (f"{holder.host}:{holder.port}",)
        service = Service(Settings(Path(directory), bootstrap, listen=f"{ADDRESSES[NEAR]}:0"))
        await service.start()
        pipe.send(service.node.identity.endpoint[1])
        count = await asyncio.to_thread(pipe.recv)
        cycle = itertools.cycle(names)
        pulls = Pulls(service, holder, itertools.islice(cycle, count or None), background)
        began, cpu_s = time.perf_counter(), time.process_time()
        pulls.start(IN_FLIGHT)
        if count:
            await pulls.done
            pipe.send((time.perf_counter() - began, time.process_time() - cpu_s))
        await asyncio.to_thread(pipe.recv)
        pipe.send({k: v for k, v in sorted(service.node.stats.counters.items()) if v})
        os._exit(0)

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(run())


def send_tcp(pipe: Connection, congestion: str) -> None:
    """Serve one TCP flow without end; tell which congestion control it has."""
    with socket.create_server((ADDRESSES[FAR], TCP_PORT)) as server:
        if congestion:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        name = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        pipe.send(name.rstrip(b"\0").decode())
        flow, _ = server.accept()
        data = bytes(1 << 16)
        with suppress(ConnectionError):  # the receiver is gone
            while True:
                flow.sendall(data)


def receive_tcp(pipe: Connection) -> None:
    """Open the TCP flow and read it; its data go to the port that is told first."""
    with socket.create_connection((ADDRESSES[FAR], TCP_PORT)) as flow:
        pipe.send(flow.getsockname()[1])
        buffer = bytearray(1 << 16)
        while flow.recv_into(buffer):
            pass


def ping(pipe: Connection) -> None:
    """Measure the round-trip time with ICMP until told to stop; tell all of them, in seconds."""
    times: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.connect((ADDRESSES[FAR], 0))
        raw.settimeout(0.5)
        pipe.send(None)
        while not pipe.poll(0.04):
            sent = time.monotonic()
            body = struct.pack("!HHd", os.getpid() & 0xFFFF, 1, sent)
            total = sum(struct.unpack("!6H", body)) + 0x0800
            total = (total & 0xFFFF) + (total >> 16)
            total = (total & 0xFFFF) + (total >> 16)
            raw.send(struct.pack("!BBH", 8, 0, ~total & 0xFFFF) + body)
            try:
                while raw.recv(2048)[28:36] != body[4:]:
                    pass
            except TimeoutError:
                continue  # lost
            times.append(time.monotonic() - sent)
    pipe.send(times)


# -- the runs --


class Bench:
    """One lab, one holder, and what is tried with them."""

    def __init__(self, lab: LinkLab, stack: ExitStack, options: argparse.Namespace) -> None:
        self._lab = lab
        self._stack = stack
        self._options = options
        self._holder = stack.enter_context(Worker(lab, FAR, hold_far, self._directory(stack)))
        self._identity, self._names = self._holder.receive()
        self.congestion = options.tcp

    def _directory(self, stack: ExitStack) -> str:
        return stack.enter_context(TemporaryDirectory(prefix="pastryd-links-"))

    def _puller(self, stack: ExitStack, background: bool = False) -> tuple[Worker, Flow]:
        """Return a puller that has joined, and the flow that its data will be."""
        arguments = (self._directory(stack), self._identity, self._names, background)
        worker = stack.enter_context(Worker(self._lab, NEAR, pull_near, *arguments))
        return worker, (FAR, UDP, worker.receive())

    def _tcp(self, stack: ExitStack) -> Flow:
        """Start a TCP flow; return it."""
        sender = stack.enter_context(Worker(self._lab, FAR, send_tcp, self._options.tcp))
        self.congestion = sender.receive()
        receiver = stack.enter_context(Worker(self._lab, NEAR, receive_tcp))
        return FAR, TCP, receiver.receive()

    def alone(self, conditions: Conditions) -> dict[str, object]:
        """One pull of a set size, from its first packet to its last."""
        count = self._options.mib
        with ExitStack() as stack:
            puller, flow = self._puller(stack)
            pinger = stack.enter_context(Worker(self._lab, NEAR, ping))
            pinger.receive()
            self._lab.change(conditions)
            puller.pipe.send(count)
            spent_s, cpu_s = puller.receive(600)
            times = sorted(pinger.stop())
            passage = self._lab.passages()[flow]
            counters = puller.stop()
        segment_bytes = passage.longest - HEADERS_BYTES
        capacity = conditions.bytes_per_s * segment_bytes / passage.longest
        needed = count * -(-OBJECT_BYTES_MAX // segment_bytes) * HEADERS_BYTES
        needed += count * OBJECT_BYTES_MAX
        twice = passage.offered / needed - 1
        return {
            "mib": count,
            "payload_share_of_link": round(segment_bytes / passage.longest, 3),
            "goodput_share": round(count * OBJECT_BYTES_MAX / spent_s / capacity, 3),
            "sent_twice_percent": round(100 * twice, 2),
            "of_it_for_loss_percent": round(100 * passage.lost / needed, 2),
            "dropped_by_queue_percent": round(100 * passage.dropped / passage.offered, 2),
            "rtt_added_ms_p50": _ms(times[len(times) // 2] - conditions.rtt_s),
            "rtt_added_ms_p95": _ms(times[len(times) * 19 // 20] - conditions.rtt_s),
            "puller_cpu_share": round(cpu_s / spent_s, 3),
            "counters": {k: v for k, v in counters.items() if "segment" in k or "pull" in k},
        }

    def _share(self, first: Flow, second: Flow, conditions: Conditions) -> dict[str, object]:
        """Let both run; return what each got of the link once they had time to settle."""
        time.sleep(SETTLING_S)
        before, began = self._lab.passages(), time.monotonic()
        time.sleep(SHARING_S)
        after, spent_s = self._lab.passages(), time.monotonic() - began
        shares = []
        for flow in (first, second):
            got = after[flow].delivered - before.get(flow, Passage()).delivered
            shares.append(got / spent_s / conditions.bytes_per_s)
        return {
            "first_share": round(shares[0], 3),
            "second_share": round(shares[1], 3),
            "ratio": round(max(shares) / max(min(shares), 1e-3), 2),
            "dropped_by_queue_percent": round(
                100 * statistics.mean(after[f].dropped / after[f].offered for f in (first, second)),
                2,
            ),
        }

    def two(self, conditions: Conditions) -> dict[str, object]:
        """Two pulls by two nodes from one holder, the second one later."""
        with ExitStack() as stack:
            (one, first), (other, second) = self._puller(stack), self._puller(stack)
            self._lab.change(conditions)
            one.pipe.send(0)
            time.sleep(HEAD_START_S)
            other.pipe.send(0)
            return self._share(first, second, conditions)

    def tcp_first(self, conditions: Conditions) -> dict[str, object]:
        """A TCP flow, and later a pull."""
        with ExitStack() as stack:
            puller, second = self._puller(stack)
            self._lab.change(conditions)
            first = self._tcp(stack)
            time.sleep(HEAD_START_S)
            puller.pipe.send(0)
            return self._share(first, second, conditions)

    def pull_first(self, conditions: Conditions) -> dict[str, object]:
        """A pull, and later a TCP flow."""
        with ExitStack() as stack:
            puller, first = self._puller(stack)
            self._lab.change(conditions)
            puller.pipe.send(0)
            time.sleep(HEAD_START_S)
            return self._share(first, self._tcp(stack), conditions)

    def background(self, conditions: Conditions) -> dict[str, object]:
        """A background pull, and later one for a client, by different nodes."""
        with ExitStack() as stack:
            background, first = self._puller(stack, True)
            puller, second = self._puller(stack)
            self._lab.change(conditions)
            background.pipe.send(0)
            time.sleep(HEAD_START_S)
            puller.pipe.send(0)
            return self._share(first, second, conditions)


QUEUES = ("bdp", "shallow")
RUNS = ("alone", "two", "tcp_first", "pull_first", "background")


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 1)


def main() -> None:
    """Parse arguments, run the matrix, print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, nargs="+", default=[20, 80], help="milliseconds")
    parser.add_argument("--loss", type=float, nargs="+", default=[0, 0.1, 1, 5], help="per cent")
    parser.add_argument(
        "--queue", nargs="+", choices=("bdp", "shallow"), default=["bdp", "shallow"]
    )
    parser.add_argument("--mbit", type=float, default=100, help="the link's rate")
    parser.add_argument("--mib", type=int, default=96, help="size of the pull alone")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS)
    parser.add_argument("--tcp", default="", help="congestion control; default: the kernel's")
    parser.add_argument(
        "--page", type=Path, nargs="+", metavar="FILE", help="renew docs/results/links.* from them"
    )
    options = parser.parse_args()
    if options.page:
        lines = [line for path in options.page for line in path.read_text("utf-8").splitlines()]
        when = datetime.now(UTC).strftime("%Y-%m-%d")
        write([json.loads(line) for line in lines], RESULTS, when)
        return
    if why := missing():
        sys.exit(why)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    rate = options.mbit * 1e6 / 8
    calm = Conditions(0.001, 0.0, 1 << 20, rate)
    with ExitStack() as stack:
        lab = stack.enter_context(LinkLab(calm))
        bench = Bench(lab, stack, options)
        for rtt, queue, loss in itertools.product(options.rtt, options.queue, options.loss):
            queue_bytes = int(rate * rtt / 1e3) if queue == "bdp" else SHALLOW_BYTES
            conditions = Conditions(rtt / 1e3, loss / 100, queue_bytes, rate)
            for run in options.runs:
                row = {"rtt_ms": rtt, "loss": loss, "queue": queue, "run": run}
                # Who joins measures how long its path is, and has its first pull begin with that.
                lab.change(replace(conditions, loss=0.0))
                row |= getattr(bench, run)(conditions)
                if run in {"tcp_first", "pull_first"}:
                    row["tcp"] = bench.congestion
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
