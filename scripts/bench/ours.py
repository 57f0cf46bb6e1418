"""pastryd in the comparison: a devcluster, and four public clients at four access nodes."""

from contextlib import AsyncExitStack
from pathlib import Path

from bench.cluster import Node, cluster, pids_of
from bench.contestant import value_of
from bench.timing import Operation, latencies_ms, spent_s
from pastryd.client import Client

CLIENTS = 4


class Pastryd:
    """A ring of daemons with all copies on disk, synced, before a put returns."""

    name = "pastryd"

    def __init__(self, count: int = 16) -> None:
        self.count = count
        self.keeps = f"{min(3, count)}, disk, synced"
        self.pids: list[int] = []
        self.nodes: list[Node] = []
        self.clients: list[Client] = []
        self._keys: dict[int | str, str] = {}
        self._stack = AsyncExitStack()

    async def start(self, directory: Path) -> None:
        """Start the ring and four clients."""
        self.nodes = self._stack.enter_context(cluster(self.count, directory))
        self.pids = pids_of(self.nodes)
        step = max(1, self.count // CLIENTS)
        for node in self.nodes[::step][:CLIENTS]:
            self.clients.append(await self._stack.enter_async_context(Client(node.address)))
        for client in self.clients:
            await client.ping()

    def operation(self, verb: str, number: int, client: Client) -> Operation:
        """Return what puts or gets one value, and checks it."""

        async def put() -> None:
            self._keys[number] = (await client.put(value_of(number))).key

        async def get() -> None:
            assert await client.get(self._keys[number]) == value_of(number)

        return put if verb == "put" else get

    async def one_by_one(self, verb: str, numbers: range) -> list[float]:
        """Put through the first client, get through another."""
        client = self.clients[0 if verb == "put" else -1]
        return await latencies_ms(self.operation(verb, i, client) for i in numbers)

    async def in_flight(self, verb: str, numbers: range) -> float:
        """Spread over all clients; a get goes through another one than the put did."""
        shift = 0 if verb == "put" else 1
        clients = self.clients
        return await spent_s(
            [self.operation(verb, i, clients[(i + shift) % len(clients)]) for i in numbers]
        )

    async def put_blob(self, name: str, blob: bytes) -> None:
        """Put through the first access node."""
        self._keys[name] = (await self.clients[0].put(blob)).key

    async def get_blob(self, name: str) -> bytes:
        """Get through the last access node, verified."""
        return await self.clients[-1].get(self._keys[name])

    async def stop(self) -> None:
        """Stop the ring."""
        await self._stack.aclose()
