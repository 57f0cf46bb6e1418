"""redis and nginx (WebDAV) in the comparison: one server, one copy, clients in this process."""

import asyncio
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.contestant import MissingError, free_port, value_of
from bench.timing import Operation, latencies_ms, spent_s

CLIENTS = 24
START_TIMEOUT_S = 10.0
STREAM_BYTES = 4 << 20

_NGINX = """
{user}
daemon off;
worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/t1;
    fastcgi_temp_path {directory}/t2;
    uwsgi_temp_path {directory}/t3;
    scgi_temp_path {directory}/t4;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/files;
        location / {{ dav_methods PUT; }}
    }}
}}
"""


class _Server:
    """A process that listens on a port."""

    name: str
    keeps: str
    pids: list[int]

    def __init__(self) -> None:
        self.pids = []
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    async def _run(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        pid = self._process.pid
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                break
        children = Path(f"/proc/{pid}/task/{pid}/children")
        self.pids = [pid, *map(int, children.read_text().split())]

    def operation(self, verb: str, number: int) -> Operation:
        """Return what puts or gets one value, and checks it."""

        async def put() -> None:
            await self.put_blob(f"value-{number}", value_of(number))

        async def get() -> None:
            assert await self.get_blob(f"value-{number}") == value_of(number)

        return put if verb == "put" else get

    async def put_blob(self, name: str, blob: bytes) -> None:
        """Store a value."""
        raise NotImplementedError

    async def get_blob(self, name: str) -> bytes:
        """Return a value."""
        raise NotImplementedError

    async def one_by_one(self, verb: str, numbers: range) -> list[float]:
        """Put or get through one connection."""
        return await latencies_ms(self.operation(verb, i) for i in numbers)

    async def in_flight(self, verb: str, numbers: range) -> float:
        """Put or get through 24 connections."""
        return await spent_s([self.operation(verb, i) for i in numbers])

    async def stop(self) -> None:
        """Stop the server, if it was started."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


class Redis(_Server):
    """redis; in memory, or with its log synced for each write."""

    def __init__(self, synced: bool) -> None:
        super().__init__()
        self.synced = synced
        self.name = "redis, synced" if synced else "redis"
        self.keeps = "1, disk, synced" if synced else "1, memory"
        self._client: Any = None

    async def start(self, directory: Path) -> None:
        """Start the server."""
        if shutil.which("redis-server") is None:
            raise MissingError("apt-get install redis-server")
        if find_spec("redis") is None:
            raise MissingError("pip install redis")
        import redis.asyncio as redis  # noqa: PLC0415

        directory.mkdir()
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(directory), "--appendonly", "yes" if self.synced else "no"]
        await self._run([*command, "--appendfsync", "always"])
        pool = redis.BlockingConnectionPool(
            host="127.0.0.1", port=self.port, max_connections=CLIENTS
        )
        self._client = redis.Redis(connection_pool=pool)

    async def put_blob(self, name: str, blob: bytes) -> None:
        """SET."""
        assert await self._client.set(name, blob)

    async def get_blob(self, name: str) -> bytes:
        """GET."""
        value: bytes = await self._client.get(name)
        return value

    async def stop(self) -> None:
        """Close the connections and stop the server."""
        if self._client is not None:
            await self._client.aclose()
        await super().stop()


class Nginx(_Server):
    """nginx with two workers; files as the kernel keeps them, nothing is synced or hashed."""

    name = "nginx WebDAV"
    keeps = "1, file, not synced"

    def __init__(self) -> None:
        super().__init__()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def start(self, directory: Path) -> None:
        """Start the server."""
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            raise MissingError("apt-get install nginx")
        (directory / "files").mkdir(parents=True)
        configuration = directory / "nginx.conf"
        user = "" if os.geteuid() else "user root;"  # else its workers may not enter the directory
        configuration.write_text(_NGINX.format(user=user, directory=directory, port=self.port))
        await self._run([program, "-c", str(configuration), "-e", str(directory / "error.log")])

    async def _request(self, head: str, body: bytes) -> bytes:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, limit=STREAM_BYTES
            )
        writer.write(f"{head} HTTP/1.1\r\nHost: bench\r\n".encode())
        writer.write(f"Content-Length: {len(body)}\r\n\r\n".encode())
        writer.write(body)
        await writer.drain()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        assert answer.split()[1].startswith("20"), answer
        length = 0
        if "content-length:" in answer:
            length = int(answer.partition("content-length:")[2].split()[0])
        content = await reader.readexactly(length)
        self._idle.append((reader, writer))
        return content

    async def put_blob(self, name: str, blob: bytes) -> None:
        """PUT."""
        await self._request(f"PUT /{name}", blob)

    async def get_blob(self, name: str) -> bytes:
        """GET."""
        return await self._request(f"GET /{name}", b"")

    async def stop(self) -> None:
        """Close the connections and stop the server."""
        for _, writer in self._idle:
            writer.close()
        await super().stop()
