"""A byte stream to a target: a TCP connection, with TLS once asked for. It sets no time-outs; cancelling is safe.

TLS runs on memory buffers, so that closing is closing the socket: nothing lingers for a peer that does not answer.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from anycastlb.adapters.checks.probe.sockets import connect
from anycastlb.core.model import Address, ProbePath

PIECE = 16384
"""Bytes taken at once."""

T = TypeVar("T")


class Stream:
    """``send`` and ``receive`` raise OSError (which ``ssl.SSLError`` is)."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._came, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    async def encrypt(self, context: ssl.SSLContext, name: str) -> None:
        """The TLS handshake, for the server of this name. Raises ``ssl.SSLError``, ValueError for no such name."""
        self._tls = context.wrap_bio(self._came, self._going, server_hostname=name)
        await self._pump(self._tls.do_handshake)

    def certificate(self) -> bytes | None:
        """The server's own certificate (DER); None without TLS."""
        return self._tls.getpeercert(binary_form=True) if self._tls else None

    async def send(self, data: bytes) -> None:
        tls = self._tls
        if tls is None:
            await self._loop.sock_sendall(self._sock, data)
            return
        rest = memoryview(data)
        while rest:
            piece = rest[:PIECE]
            rest = rest[await self._pump(lambda piece=piece: tls.write(piece)) :]  # type: ignore[misc]

    async def receive(self) -> bytes:
        """What comes next; ``b""`` at the end (also one without TLS's goodbye, as many servers end)."""
        tls = self._tls
        if tls is None:
            return await self._loop.sock_recv(self._sock, PIECE)
        try:
            return await self._pump(lambda: tls.read(PIECE))
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    async def _pump(self, act: Callable[[], T]) -> T:
        """Do it as soon as TLS has the bytes it wants, and carry what it has to say."""
        while True:
            try:
                done = act()
            except ssl.SSLWantReadError:
                await self._flush()
            except ssl.SSLError:
                with suppress(OSError):
                    await self._flush()  # the alert that tells the server why
                raise
            else:
                await self._flush()
                return done
            data = await self._loop.sock_recv(self._sock, PIECE)
            if data:
                self._came.write(data)
            else:
                self._came.write_eof()

    async def _flush(self) -> None:
        if self._going.pending:
            await self._loop.sock_sendall(self._sock, self._going.read())


@asynccontextmanager
async def connected(address: Address, port: int, probe_path: ProbePath | None) -> AsyncIterator[Stream]:
    """A stream that is closed at the end, by a reset. Raises OSError."""
    sock = await connect(address, port, probe_path)
    try:
        yield Stream(sock)
    finally:
        sock.close()
