"""Servers for the checks to meet, good and bad, TCP and UDP, on the loopback.

Every server is an async context manager that yields the port it listens on (for the bad ones ``server(host, tls)``).
``TCP`` and ``UDP`` are the bad ones by name: what every check type of that transport has to survive. Nothing here
knows any check type.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.support.ports import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection; returning closes it."""
Replies = Callable[[bytes], Iterable[bytes]]
"""The datagrams to send back for one that came."""
Server = Callable[[str, ssl.SSLContext | None], AbstractAsyncContextManager[int]]


# ---------------------------------------------------------------- servers of a given behaviour


@asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server; with ``tls``, the handler talks inside TLS."""
    under_way: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await handler(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the probe is gone: that is its right; or the test is over
        finally:
            under_way.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, host, 0, ssl=tls, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


@asynccontextmanager
async def datagrams(replies: Replies, host: str = "127.0.0.1", pause: float = 0.0) -> AsyncIterator[int]:
    """A UDP server that sends ``replies(datagram)``, one after the other, ``pause`` seconds before each."""
    loop = asyncio.get_running_loop()

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
            for number, reply in enumerate(replies(data), 1):
                if pause:
                    loop.call_later(pause * number, self.send, reply, addr)
                else:
                    self.send(reply, addr)

        def send(self, reply: bytes, addr: tuple[str | int, ...]) -> None:
            if not self.transport.is_closing():
                self.transport.sendto(reply, addr)

    transport, _ = await loop.create_datagram_endpoint(Protocol, (host, 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def answering(*lines: str, body: bytes = b"") -> Handler:
    """Reads one HTTP request's head and answers with these lines, a gap and ``body``."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return answer


def saying(reply: bytes) -> Handler:
    """Sends ``reply`` at once and waits for the peer to go."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()
        await reader.read()

    return say


# ---------------------------------------------------------------- bad ones, TCP


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes everything and says nothing."""
    await reader.read()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer that begins well and comes a byte at a time, for ever."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"z" * 100_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Noise at once, without being asked, then the end."""
    writer.write(os.urandom(4096))
    await writer.drain()


async def flooding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Noise for ever, as fast as it is taken."""
    noise = os.urandom(65536).replace(b"\n", b".")
    while True:
        writer.write(noise)
        await writer.drain()


async def half_closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ends its side at once, but keeps reading."""
    if writer.can_write_eof():
        writer.write_eof()
        await reader.read()


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Goes away without an answer, as soon as it was asked something."""
    await reader.read(1)


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Resets the connection as soon as it was asked something."""
    await reader.read(1)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def _refused(host: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    yield free_port()


@asynccontextmanager
async def _black_holed(host: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A full backlog drops every further SYN."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        fillers = [socket.socket(family) for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((host, port))
        await asyncio.sleep(0.05)
        try:
            yield port
        finally:
            for filler in fillers:
                filler.close()


def _handled(handler: Handler) -> Server:
    return lambda host, tls=None: serving(handler, host, tls)


TCP: dict[str, Server] = {
    "refused": _refused,
    "black-holed": _black_holed,
    "silent": _handled(silent),
    "slow-dripping": _handled(dripping),
    "garbage": _handled(garbage),
    "flooding": _handled(flooding),
    "half-closing": _handled(half_closing),
    "closing": _handled(closing),
    "resetting": _handled(resetting),
}
"""Bad TCP servers by name."""


# ---------------------------------------------------------------- bad ones, UDP


@asynccontextmanager
async def _unreachable(host: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The kernel answers with an ICMP port unreachable."""
    yield free_port()


def _sent(replies: Replies, pause: float = 0.0) -> Server:
    return lambda host, tls=None: datagrams(replies, host, pause)


UDP: dict[str, Server] = {
    "refused": _unreachable,
    "black-holed": _sent(lambda asked: ()),
    "slow-dripping": _sent(lambda asked: [bytes([byte]) for byte in asked[:200]], 0.02),
    "garbage": _sent(lambda asked: [os.urandom(512)]),
    "flooding": _sent(lambda asked: [os.urandom(1200) for _ in range(200)]),
    "empty": _sent(lambda asked: [b""]),
    "truncating": _sent(lambda asked: [asked[:5]]),
}
"""Bad UDP servers by name. (``black-holed`` takes every datagram and says nothing; ``truncating`` sends back the
first bytes of what it was asked.)"""


BAD = {"tcp": TCP, "udp": UDP}
"""``BAD[transport][name](host, tls)``."""
