"""Clients of a gateway that know which of their requests were lost: HTTP/2 by TLS, and a websocket."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Sequence

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4


class Http2Client:
    """One request at a time over a connection that is kept. One that the server has announced the end of is left.

    A request of which the server says that it did not look at it (a stream beyond the last one of its GOAWAY) is sent
    again over another connection, as the protocol has it, and is in ``repeated``.
    """

    def __init__(self, port: int, name: str) -> None:
        self._port, self._name = port, name
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.repeated = 0

    async def get(self, path: str, host: str) -> tuple[int, str]:
        """Raises what a lost request raises: OSError, EOFError."""
        while True:
            if self._streams is None:
                await self._connect()
            if (reply := await self._ask(path, host)) is not None:
                return reply
            self.repeated += 1
            self.close()

    async def send(self, head: Sequence[tuple[str, str]], body: bytes = b"") -> int:
        """The status of the answer to any request at all. Raises OSError or EOFError if it was not answered."""
        if self._streams is None:
            await self._connect()
        status, _ = await self._exchange(head, body) or (0, "")
        return status

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _connect(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        self._streams = await asyncio.open_connection("127.0.0.1", self._port, ssl=context, server_hostname=self._name)
        assert self._streams[1].get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        self._encoder, self._decoder, self._stream, self._ended = hpack.Encoder(), hpack.Decoder(), 1, False
        self._streams[1].write(PREFACE)
        self._send(SETTINGS, 0, 0, b"")

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._streams is not None
        self._streams[1].write(struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream))
        self._streams[1].write(payload)

    async def _ask(self, path: str, host: str) -> tuple[int, str] | None:
        head = [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", path)]
        return await self._exchange(head, b"")

    async def _exchange(self, head: Sequence[tuple[str, str]], sent: bytes) -> tuple[int, str] | None:
        """None: the server did not look at it."""
        stream, self._stream = self._stream, self._stream + 2
        self._send(HEADERS, (0 if sent else END_STREAM) | END_HEADERS, stream, self._encoder.encode(head))
        if sent:
            self._send(DATA, END_STREAM, stream, sent)
        status, body = 0, b""
        while True:
            kind, flags, of, payload = await self._frame()
            if kind == GOAWAY:
                self._ended = True
                if int.from_bytes(payload[:4], "big") < stream:
                    return None
            elif kind == HEADERS:
                status = int(dict(self._decoder.decode(payload))[":status"])
            elif kind == DATA:
                body += payload
            elif kind == RESET and of == stream:
                raise ConnectionError(f"stream {stream} was reset: {payload.hex()}")
            if of == stream and kind in (HEADERS, DATA) and flags & END_STREAM:
                self._send(WINDOW, 0, 0, struct.pack(">I", max(1, len(body))))
                if self._ended:
                    self.close()
                return status, body.decode("latin-1")

    async def _frame(self) -> tuple[int, int, int, bytes]:
        assert self._streams is not None
        high, low, kind, flags, stream = struct.unpack(">HBBBI", await self._streams[0].readexactly(9))
        payload = await self._streams[0].readexactly(high << 8 | low)
        if kind in (SETTINGS, PING) and not flags & ACK:
            self._send(kind, ACK, 0, payload if kind == PING else b"")
        return kind, flags, stream, payload


class WebSocket:
    """Sends bytes over an upgraded connection, and expects them back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def echo(self, text: bytes, path: str, host: str) -> bytes:
        """Raises OSError or EOFError if the connection has ended."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: Upgrade", "Upgrade: websocket",
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]  # fmt: skip
            self._streams[1].write("\r\n".join([*lines, "", ""]).encode())
            head = await self._streams[0].readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                raise ConnectionError(f"no websocket: {head[:80]!r}")
        self._streams[1].write(text)
        return await self._streams[0].readexactly(len(text))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
