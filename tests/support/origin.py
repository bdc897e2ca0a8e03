"""A web server that counts the requests it gets, and a client that says what became of each of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass
class Origin:
    """Answers with its name; keeps every head that it got."""

    name: str
    port: int = 0
    status: str = "200 OK"
    headers: Sequence[str] = ()
    """Of its answers, beside their length."""
    hold: asyncio.Event | None = None
    """Answers only once this is set."""
    heads: list[str] = field(default_factory=list)
    connections: set[asyncio.StreamWriter] = field(default_factory=set)
    listener: asyncio.Server | None = None

    @property
    def requests(self) -> int:
        return len(self.heads)

    def crash(self) -> None:
        """Refuse new connections, and break those that there are."""
        assert self.listener
        self.listener.close()
        for writer in self.connections:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head.decode("latin-1"))
                await _skip_body(reader, self.heads[-1].lower())
                if found := re.search(r"\r\nsec-websocket-key: (\S+)\r\n", self.heads[-1], re.IGNORECASE):
                    await _echo(reader, writer, found[1])
                if self.hold is not None:
                    await self.hold.wait()
                body = self.name.encode()
                lines = [f"HTTP/1.1 {self.status}", f"Content-Length: {len(body)}", *self.headers, "", ""]
                writer.write("\r\n".join(lines).encode() + body)
                await writer.drain()
        self.connections.discard(writer)
        writer.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    """What a websocket would get, without its frames. Raises ``IncompleteReadError`` at its end."""
    accept = base64.b64encode(hashlib.sha1(f"{key}{WEBSOCKET}".encode()).digest()).decode()
    head = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket"]
    writer.write("\r\n".join([*head, f"Sec-WebSocket-Accept: {accept}", "", ""]).encode())
    while text := await reader.read(4096):
        writer.write(text)
    raise asyncio.IncompleteReadError(b"", None)


async def _skip_body(reader: asyncio.StreamReader, head: str) -> None:
    if "\r\ntransfer-encoding: chunked\r\n" in head:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    elif found := re.search(r"\r\ncontent-length: (\d+)\r\n", head):
        await reader.readexactly(int(found[1]))


@contextlib.asynccontextmanager
async def origins(*names: str) -> AsyncIterator[dict[str, Origin]]:
    """Servers on ports of the loopback that nobody uses."""
    made = {name: Origin(name) for name in names}
    for origin in made.values():
        origin.listener = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
        origin.port = origin.listener.sockets[0].getsockname()[1]
    yield made
    for origin in made.values():
        assert origin.listener
        origin.listener.close()
    while open_still := [writer for origin in made.values() for writer in origin.connections]:
        for writer in open_still:
            writer.transport.abort()
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Reply:
    status: int
    head: str
    body: str


class Client:
    """One connection that is kept alive, and opened anew when the server has announced its end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str = "/", host: str = "shop.example", method: str = "GET", *headers: str) -> Reply:
        """Raises what a lost request raises: ConnectionError, IncompleteReadError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head.splitlines()[1:]}
        length = 0 if method == "HEAD" else int(fields.get("content-length", "0"))
        body = (await reader.readexactly(length)).decode("latin-1")
        if fields.get("connection", "").lower() == "close":
            self.close()
        return Reply(int(head.split()[1]), head, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def get(port: int, path: str = "/", host: str = "shop.example", method: str = "GET", *headers: str) -> Reply:
    """Over a connection of its own."""
    client = Client(port)
    try:
        return await client.get(path, host, method, *headers, "Connection: close")
    finally:
        client.close()
