"""A client of the API that sends any bytes. It keeps its connection for the next request where both ends agree."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from tests.support.waiting import PATIENCE

KEPT, CLOSED = b"\r\nConnection: keep-alive\r\n", b"\r\nConnection: close\r\n"
AWHILE = 0.3
"""Seconds in which an answer comes to what is no whole request, if any does."""
BODILESS = (b"204", b"304")
"""Statuses whose answer ends with its head."""


def complete(data: bytes) -> bool:
    """Is that a whole request, which needs an answer and no second one? The end of any other may be waited for."""
    head, end, body = data.partition(b"\r\n\r\n")
    lengths = re.findall(rb"\r\nContent-Length: (\d+)", head)
    ends = KEPT in head + b"\r\n" or CLOSED in head + b"\r\n"
    return bool(end) and ends and lengths == [b"%d" % len(body)] and b"Transfer-Encoding" not in head


class Peer:
    """One client, with at most one connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes) -> bytes:
        """The answer to a whole request; of anything else, what comes back in a while. Empty: hung up on."""
        if not complete(data):
            return await self._all(data)
        if self._kept is not None and (answer := await self._next(data)):
            return answer
        self.hang_up()  # the other end has closed it since the last answer
        self._kept = await self._opened()
        return await self._next(data)

    def hang_up(self) -> None:
        if self._kept is not None:
            self._kept[1].transport.abort()
            self._kept = None

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _all(self, data: bytes) -> bytes:
        """All that comes back until the other end is done, over a connection of its own."""
        reader, writer = await self._opened()
        answer = bytearray()
        try:
            writer.write(data)
            with suppress(TimeoutError):
                async with asyncio.timeout(AWHILE):
                    while piece := await reader.read(1 << 20):
                        answer += piece
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
        return bytes(answer)

    async def _next(self, data: bytes) -> bytes:
        """The next answer over the connection that is kept; empty if it is closed before one begins."""
        assert self._kept is not None
        reader, writer = self._kept
        async with asyncio.timeout(10 * PATIENCE):
            try:
                writer.write(data)
                head = await reader.readuntil(b"\r\n\r\n")
            except (ConnectionError, asyncio.IncompleteReadError):
                self.hang_up()
                return b""
            body = b"" if data.startswith(b"HEAD ") or head.split(b" ", 2)[1] in BODILESS else await _body(reader, head)
        if CLOSED.lower() in head.lower() or KEPT not in data:
            self.hang_up()
        return head + body


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body that follows a head."""
    if length := re.search(rb"\r\ncontent-length: (\d+)", head.lower()):
        return await reader.readexactly(int(length[1]))
    if b"chunked" not in head.lower():
        return await reader.read()
    body = bytearray()
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return bytes(body)
