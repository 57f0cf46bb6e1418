"""The example application: publish and subscribe on the Common API, beside the blob store."""

import subprocess
import sys
from pathlib import Path

import pytest

from examples.scribe import Scribe
from pastryd.protocol.application import Forward
from tests.support.network import VirtualNetwork

TOP = Path(__file__).resolve().parents[2]


def scribes_on(network: VirtualNetwork) -> list[Scribe]:
    scribes = []
    for node in network.nodes:
        scribe = Scribe(node.core)
        node.core.register(scribe)
        scribes.append(scribe)
    return scribes


def subscribe_all(
    network: VirtualNetwork, scribes: list[Scribe], subscribers: list[int]
) -> dict[int, list[bytes]]:
    heard: dict[int, list[bytes]] = {i: [] for i in subscribers}
    for i in subscribers:
        network.step(
            network.nodes[i],
            lambda i=i: scribes[i].subscribe(
                "news", lambda topic, message: heard[i].append(message), network.now
            ),
        )
    network.run(1)
    return heard


def publish(network: VirtualNetwork, scribes: list[Scribe], i: int, message: bytes) -> None:
    network.step(network.nodes[i], lambda: scribes[i].publish("news", message, network.now))
    network.run(2)


def test_every_subscriber_hears_what_is_published_once_and_nobody_else():
    network = VirtualNetwork(seed=3)
    network.ring(30)
    scribes = scribes_on(network)
    heard = subscribe_all(network, scribes, list(range(0, 30, 2)))
    publish(network, scribes, 7, b"one")
    publish(network, scribes, 8, b"two")
    assert all(messages == [b"one", b"two"] for messages in heard.values())


def test_the_tree_heals_after_its_nodes_have_died():
    network = VirtualNetwork(seed=4)
    network.ring(30)
    scribes = scribes_on(network)
    heard = subscribe_all(network, scribes, list(range(0, 15)))
    for node in network.nodes[20:]:
        network.crash(node)
    network.run(10)
    for node, scribe in zip(network.nodes[:20], scribes, strict=False):
        network.step(node, lambda scribe=scribe: scribe.refresh(network.now))
    network.run(2)
    publish(network, scribes, 16, b"still here")
    assert all(messages == [b"still here"] for messages in heard.values())


def test_nothing_that_a_peer_sends_raises():
    network = VirtualNetwork()
    network.ring(2)
    scribe = scribes_on(network)[0]
    source = network.nodes[1].core.identity
    for payload in (
        b"",
        b"\xc1",
        b"\x90",
        b"\x93\xa4join\xa1x\x01",
        b"\x92\x01\x02",
        b"\x81\x01\x02",
    ):
        assert scribe.forward(source.id, payload, source, source, 0.0) in (None, Forward.STOP)
        scribe.deliver(source.id, payload, source, (), 0.0)


@pytest.mark.e2e
def test_the_script_runs_on_real_sockets():
    done = subprocess.run(
        [sys.executable, "examples/scribe.py"],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(TOP), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    nodes = {line.split(": rain")[0] for line in done.stdout.splitlines()}  # no log lines there
    assert nodes == {"node 1", "node 2", "node 3"}
    assert "node_active" in done.stderr
