"""Send one HTTP/1.1 request on a stream and read its answer within bounds. ``h11`` speaks the protocol.

It knows no check, no redirect and no proxy. An answer that is not HTTP raises ``NotHttp``, which says what came
instead (docs/decisions/0011).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import h11

from anycastlb.adapters.checks import Down
from anycastlb.adapters.checks.probe.stream import Stream
from anycastlb.core.fields import shown

MAX_HEAD = 64 * 1024
"""Bytes of header that an answer may have, together with all interim answers."""
FIRST = b"HTTP/1."
"""Every answer begins so. A server of another protocol, which then waits for us, is recognised by its first bytes."""


class NotHttp(Down):
    """The answer is not HTTP; the text says what came, for an operator."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """By lower-case name; of several headers of one name, the last."""


class Exchange:
    """``ask`` once, then read the ``body`` if it is wanted. Both raise ``NotHttp`` and OSError."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        # h11's own limit is only a second line: it counts each interim answer anew, and bodies' framing too.
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2 * MAX_HEAD)
        self._received = 0
        self._begin = b""
        """The first bytes of the answer, for messages."""
        self._chunked = False

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Send the request; the final answer to it, without its body. Interim answers (100, 103) are skipped."""
        given = [(name.encode(), value.strip().encode()) for name, value in headers.items()]
        request = self._connection.send(h11.Request(method=method, target=target, headers=given)) or b""
        if body:
            request += self._connection.send(h11.Data(data=body)) or b""
        await self._stream.send(request + (self._connection.send(h11.EndOfMessage()) or b""))
        while not isinstance(event := await self._head(), h11.Response) and event.status_code != 101:
            continue
        if not 100 <= event.status_code <= 599:
            raise self._no_http()
        answer = Answer(event.status_code, {name.decode(): value.decode("latin-1") for name, value in event.headers})
        self._chunked = "transfer-encoding" in answer.headers
        return answer

    async def body(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come, to its end or to where the server broke off."""
        while True:
            event = self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif event is not h11.NEED_DATA:
                return
            elif not await self._receive():
                if self._chunked:
                    raise NotHttp("no HTTP answer: the body broke off")
                return

    async def _head(self) -> h11.Response | h11.InformationalResponse:
        while True:
            event = self._next()
            if isinstance(event, (h11.Response, h11.InformationalResponse)):
                return event
            if self._received > MAX_HEAD:
                raise NotHttp(f"no HTTP answer: more than {MAX_HEAD // 1024} KiB of header")
            if not await self._receive():
                what = f"inside the header: {self._seen()}" if self._begin else "without an answer"
                raise NotHttp(f"connection closed {what}")
            if self._begin[: len(FIRST)] != FIRST[: len(self._begin)]:
                raise self._no_http()

    def _next(self) -> object:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as exc:
            raise self._no_http(f" ({exc!s:.120})") from exc

    async def _receive(self) -> bool:
        data = await self._stream.receive()
        if data:  # the end of the stream is judged here, since h11 has no mercy on a body that breaks off
            self._connection.receive_data(data)
            self._received += len(data)
            self._begin = self._begin or data[:120]
        return bool(data)

    def _no_http(self, why: str = "") -> NotHttp:
        return NotHttp(f"no HTTP answer: {self._seen()}{why}")

    def _seen(self) -> str:
        return shown(self._begin.partition(b"\r\n\r\n")[0], 60)
