"""One node of a Kademlia network in a process of its own; commands come on stdin as JSON lines.

    python dht_worker.py kademlia|opendht PORT [BOOTSTRAP_PORT]

{"verb": "put"|"get", "first": 0, "step": 1, "count": 100, "width": 1} answers {"ms": [...],
"failed": 0, "spent_s": 0.1}. Imports nothing of ours: OpenDHT's bindings are another Python's.
"""

import asyncio
import json
import sys
import time
from random import Random

REST = Random(1).randbytes(1024 - 8)
TIMEOUT_S = 30.0


class Kademlia:
    """bmuller's kademlia; 4 copies."""

    async def start(self, port: int, bootstrap: int | None) -> None:
        from kademlia.network import Server  # noqa: PLC0415

        self.server = Server(ksize=4)
        await self.server.listen(port, "127.0.0.1")
        if bootstrap is not None:
            await self.server.bootstrap([("127.0.0.1", bootstrap)])

    async def put(self, name: str, value: bytes) -> bool:
        return bool(await self.server.set(name, value))

    async def get(self, name: str) -> bytes | None:
        return await self.server.get(name)


class OpenDht:
    """OpenDHT without its rate limit; 8 copies."""

    async def start(self, port: int, bootstrap: int | None) -> None:
        import opendht  # noqa: PLC0415

        self.opendht = opendht
        self.loop = asyncio.get_running_loop()
        config = opendht.DhtConfig()
        config.setRateLimit(-1, -1)
        self.runner = opendht.DhtRunner()
        self.runner.run(port=port, config=config)
        if bootstrap is not None:
            self.runner.bootstrap("127.0.0.1", str(bootstrap))

    def _settle(self, future: asyncio.Future, result: object) -> None:
        def settle() -> None:
            if not future.done():
                future.set_result(result)

        self.loop.call_soon_threadsafe(settle)

    async def put(self, name: str, value: bytes) -> bool:
        future = self.loop.create_future()
        self.runner.put(
            self.opendht.InfoHash.get(name),
            self.opendht.Value(value),
            lambda ok, nodes: self._settle(future, ok),
        )
        return bool(await future)

    async def get(self, name: str) -> bytes | None:
        future = self.loop.create_future()

        def found(value: object, expired: bool = False) -> bool:
            self._settle(future, value.data)  # type: ignore[attr-defined]
            return False

        self.runner.get(
            self.opendht.InfoHash.get(name),
            get_cb=found,
            done_cb=lambda ok, nodes: self._settle(future, None),
        )
        return await future


async def run(node: Kademlia | OpenDht, command: dict) -> dict:
    """Carry out one command."""
    first, step, count = command["first"], command["step"], command["count"]
    numbers = iter(range(first, first + step * count, step))
    taken: list[float] = []
    failed = 0

    async def work() -> None:
        nonlocal failed
        for number in numbers:
            value = number.to_bytes(8, "big") + REST  # as `contestant.value_of`
            started = time.perf_counter()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    if command["verb"] == "put":
                        good = await node.put(f"value {number}", value)
                    else:
                        good = await node.get(f"value {number}") == value
            except TimeoutError:
                good = False
            taken.append((time.perf_counter() - started) * 1e3)
            failed += not good

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(command["width"])))
    return {"ms": taken, "failed": failed, "spent_s": time.perf_counter() - started}


async def main() -> None:
    """Start the node, say so, and serve stdin."""
    node = {"kademlia": Kademlia, "opendht": OpenDht}[sys.argv[1]]()
    ports = [int(argument) for argument in sys.argv[2:]]
    await node.start(ports[0], ports[1] if len(ports) > 1 else None)
    print("ready", flush=True)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await run(node, json.loads(line))), flush=True)


if __name__ == "__main__":
    try:
        from uvloop import run as run_loop
    except ImportError:
        run_loop = asyncio.run
    run_loop(main())
