"""The program a backend runs: ``python -m tests.lab.server NAME ADDRESS...``; standard library only.

On every address of its namespace: HTTP on 80 and 8080 (``/`` answers its name, ``/health`` 200 or 503), and on 7 an
echo that first says its name. On the addresses given: its name for any datagram on 53. Its control port 9000 answers
``/counts`` and obeys ``/fail``, ``/break`` and ``/heal``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import cast

WEB, ALTERNATE, ECHO, DNS, CONTROL = 80, 8080, 7, 53, 9000
EVERYWHERE = ("0.0.0.0", "::")


class Server:
    def __init__(self, name: str) -> None:
        self.name = name
        self.healthy = True
        self.broken = False
        """It answers requests with an error, and the check as if nothing were wrong."""
        self.counts: Counter[str] = Counter()

    async def serve(self, addresses: list[str]) -> None:
        loop = asyncio.get_running_loop()
        for host in EVERYWHERE:
            for port in (WEB, ALTERNATE, CONTROL):
                await loop.create_server(lambda port=port: Http(self, port), host, port, backlog=1000)  # type: ignore[misc]
            await loop.create_server(lambda: Echo(self), host, ECHO, backlog=1000)
        for address in addresses:  # a socket bound to no address would answer from another than it was asked on
            await loop.create_datagram_endpoint(lambda: Datagrams(self), (address, DNS))
        await asyncio.Event().wait()

    def web(self, path: str) -> tuple[str, str]:
        if path == "/health":
            self.counts["checks"] += 1
            return ("200 OK", "ok") if self.healthy else ("503 Service Unavailable", "failing")
        self.counts["requests"] += 1
        return ("500 Internal Server Error", "broken") if self.broken else ("200 OK", self.name)

    def control(self, path: str) -> tuple[str, str]:
        if path in ("/fail", "/break", "/heal"):
            self.healthy, self.broken = path != "/fail", path == "/break"
        return "200 OK", json.dumps(self.counts)


class Http(asyncio.Protocol):
    """One request a connection: enough for a health check and for counting."""

    def __init__(self, server: Server, port: int) -> None:
        self._answer = server.control if port == CONTROL else server.web
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if b"\r\n\r\n" not in self._seen and len(self._seen) < 65536:
            return
        words = self._seen.split(b"\r\n", 1)[0].split()
        status, body = self._answer(words[1].decode("latin-1") if len(words) > 1 else "/")
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._transport.write((head + body).encode())
        self._transport.close()


class Echo(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.counts["connections"] += 1
        transport.write(self._server.name.encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # Python 3.11's is none by inheritance

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.counts["datagrams"] += 1
        self._transport.sendto(self._server.name.encode(), addr)


if __name__ == "__main__":
    asyncio.run(Server(sys.argv[1]).serve(sys.argv[2:]))
