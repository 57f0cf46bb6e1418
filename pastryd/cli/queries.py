"""The commands of `pastry` that only ask: stat, ping, trace, status, ring.

A node's answers are JSON documents; --json prints them as they are, else they are laid out as text.
"""

import dataclasses
import json

import click

from pastryd.cli import exits
from pastryd.cli.common import Common, command, connected
from pastryd.cli.render import document_lines, table_lines
from pastryd.errors import CorruptError


def _print(document: dict[str, object], common: Common) -> None:
    try:
        text = json.dumps(document) if common.as_json else "\n".join(document_lines(document))
    except RecursionError:
        raise CorruptError(
            "the node's answer is nested too deeply; is it the same version?"
        ) from None
    print(text.encode(errors="replace").decode())  # half characters are somebody's joke


@click.argument("key")
@command
async def stat(common: Common, key: str) -> None:
    """Tell size, chunks, and where each replica of the blob KEY lies."""
    async with connected(common) as client:
        _print(await client.stat(key), common)


@command
async def ping(common: Common) -> int:
    """Ask the node whether it is there and ready.

    Exit status 4 when it does not answer, 7 when it answers but has not joined its ring yet.
    """
    async with connected(common) as client:
        access = await client.ping()
    if common.as_json:
        print(json.dumps(dataclasses.asdict(access)))
    else:
        state = "" if access.active else ", not ready: it has not joined its ring yet"
        print(f"{access.id} at {access.address} answered in {access.rtt_s * 1e3:.2f} ms{state}")
    return exits.OK if access.active else exits.REFUSED


@click.argument("key")
@command
async def trace(common: Common, key: str) -> None:
    """Show the route to the root of KEY, with round-trip times."""
    async with connected(common) as client:
        _print(await client.trace(key), common)


@click.argument("node_id", required=False, metavar="[ID]")
@command
async def status(common: Common, node_id: str | None) -> None:
    """Show a node's state: leaf set, objects, backlog, counters.

    Without ID the access node's own, else that of the node with this id.
    """
    async with connected(common) as client:
        document = await client.status(node_id)
    if not common.as_json:
        document.pop("config", None)  # the same for hours on end; --json has it
    _print(document, common)


@command
async def ring(common: Common) -> int:
    """Walk the ring: a line for each node, and is it consistent?

    Consistent: every node is ready and knows its true neighbours. Exit status 1 when it is not.
    """
    async with connected(common) as client:
        walked = await client.ring()
    if common.as_json:
        nodes = [{**node.status, "id": node.id, "address": node.address} for node in walked.nodes]
        print(json.dumps({"consistent": walked.consistent, "nodes": nodes}))
    else:
        rows = [{"id": node.id, "address": node.address} for node in walked.nodes]
        print("\n".join(table_lines(rows)))
        is_it = "consistent" if walked.consistent else "NOT consistent"
        print(f"{len(rows)} node{'s' if len(rows) != 1 else ''}, {is_it}")
    return exits.OK if walked.consistent else exits.UNEXPECTED
