"""HTTP/1.1 on a stream, as a client that asks once: the request as bytes, and the answer read within bounds.

It knows no check, no redirect and no proxy. What is not HTTP raises ``NotHttp`` with what came instead.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from anycastlb.adapters.checks.probe.stream import Stream
from anycastlb.core.fields import shown

MAX_HEAD = 64 * 1024
"""Bytes of header an answer may have, with all interim answers."""
MAX_LINE = 256
"""Bytes of a line that tells a chunk's size."""
STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: .*)?")
GAP = re.compile(rb"\r?\n\r?\n")
FIRST = b"HTTP/1."


class NotHttp(Exception):
    """The answer is no HTTP; the text says what came, in an operator's words."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """By lower-case name; of several of one name, the last."""


def request(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes to send. Header names may be given in any case, each once."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8") + body


class Reader:
    """Reads one answer: ``head`` first, then ``body``. Raises ``NotHttp``, OSError."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._held = bytearray()
        self._ended = False

    async def head(self) -> Answer:
        """The answer to come, interim ones (100 Continue, 103 Early Hints) skipped."""
        total = 0
        while True:
            head = await self._head(MAX_HEAD - total)
            total += len(head)
            lines = head.splitlines()
            status = STATUS.fullmatch(lines[0].rstrip())
            if not status:
                raise NotHttp(f"no HTTP answer: {_seen(head)}")
            if int(status[1]) >= 200 or int(status[1]) == 101:
                return Answer(int(status[1]), _headers(lines[1:]))

    async def _head(self, most: int) -> bytes:
        looked = 0
        while not (gap := GAP.search(self._held, max(0, looked - 3))):
            looked = len(self._held)
            if self._held[: len(FIRST)] != FIRST[:looked]:
                raise NotHttp(f"no HTTP answer: {_seen(self._held)}")
            if looked > most:
                raise NotHttp(f"no HTTP answer: more than {MAX_HEAD // 1024} KiB of header")
            if not await self._more():
                raise NotHttp(
                    f"connection closed inside the header: {_seen(self._held)}"
                    if self._held
                    else "connection closed without an answer"
                )
        head = bytes(self._held[: gap.start()])
        del self._held[: gap.end()]
        if not head.startswith(FIRST):
            raise NotHttp(f"no HTTP answer: {_seen(head)}")
        return head

    async def body(self, answer: Answer, method: str) -> AsyncIterator[bytes]:
        """The body's bytes as they come, to its end or to where the server broke off."""
        if method == "HEAD" or answer.status in (204, 304):
            return
        length = answer.headers.get("content-length")
        if "chunked" in answer.headers.get("transfer-encoding", "").lower():
            async for piece in self._chunks():
                yield piece
        elif length is None:
            async for piece in self._exactly(None):
                yield piece
        elif not re.fullmatch(r"\d{1,18}", length):
            raise NotHttp(f"no HTTP answer: Content-Length {shown(length)}")
        else:
            async for piece in self._exactly(int(length)):
                yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            line = await self._line()
            size = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?", line)
            if not size:
                raise NotHttp(f"no HTTP answer: {_seen(line)} for the size of a chunk")
            if int(size[1], 16) == 0:
                return
            async for piece in self._exactly(int(size[1], 16)):
                yield piece
            if not self._ended and await self._line():
                raise NotHttp("no HTTP answer: a chunk longer than it said")

    async def _line(self) -> bytes:
        while (end := self._held.find(b"\n")) < 0:
            if len(self._held) > MAX_LINE or not await self._more():
                raise NotHttp("no HTTP answer: the body broke off")
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line.rstrip(b"\r")

    async def _exactly(self, size: int | None) -> AsyncIterator[bytes]:
        """So many bytes, or fewer if the stream ends; None = all to the end."""
        while size is None or size > 0:
            if not self._held and not await self._more():
                return
            piece = bytes(self._held if size is None else self._held[:size])
            del self._held[: len(piece)]
            size = None if size is None else size - len(piece)
            yield piece

    async def _more(self) -> bool:
        data = b"" if self._ended else await self._stream.receive()
        self._held += data
        self._ended = not data
        return bool(data)


def _headers(lines: list[bytes]) -> dict[str, str]:
    found = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and name and name == name.strip():
            found[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
    return found


def _seen(data: bytes | bytearray) -> str:
    return shown(bytes(data[:120]), 60)
