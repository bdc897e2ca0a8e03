"""Send one HTTP/1.1 request on a stream and read its answer within bounds. ``h11`` speaks the protocol.

It knows no check, no redirect and no proxy. An answer that is not HTTP raises ``NotHttp``, which says what came
instead (docs/decisions/0012).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import h11

from anycastlb.adapters.checks.probe.outcome import Down
from anycastlb.adapters.checks.probe.stream import Stream
from anycastlb.core.fields import shown

MAX_HEAD = 64 * 1024
"""Bytes of header that an answer may have, together with all interim answers."""
FIRST = b"HTTP/1."
"""Every answer begins so. A server of another protocol, which then waits for us, is recognised by its first bytes."""


class NotHttp(Down):
    """The answer is not HTTP; the text says what came, for an operator."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """By lower-case name; of several headers of one name, the last."""


class Conversation:
    """One request and its answer, without any I/O: send ``request``, ``feed`` what comes. Raises ``NotHttp``."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        # h11's own limit is only a second line: it counts each interim answer anew, and bodies' framing too.
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2 * MAX_HEAD)
        self._received = 0
        self._begin = b""
        """The first bytes of the answer, for messages."""
        self._chunked = False
        given = [(name.encode(), value.strip().encode()) for name, value in headers.items()]
        self.request = self._connection.send(h11.Request(method=method, target=target, headers=given)) or b""
        if body:
            self.request += self._connection.send(h11.Data(data=body)) or b""
        self.request += self._connection.send(h11.EndOfMessage()) or b""

    def feed(self, data: bytes) -> Response | None:
        """Take what came. The final answer as soon as its head is whole; interim answers (100, 103) are skipped."""
        self.receive(data)
        if self._begin[: len(FIRST)] != FIRST[: len(self._begin)]:
            raise self._no_http()
        while (event := self._next()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                return self._answer(event)
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return self._answer(event)
        if self._received > MAX_HEAD:
            raise NotHttp(f"no HTTP answer: more than {MAX_HEAD // 1024} KiB of header")
        return None

    def closed(self) -> NotHttp:
        """What it means that the stream ended before ``feed`` returned an answer."""
        what = f"inside the header: {self._seen()}" if self._begin else "without an answer"
        return NotHttp(f"connection closed {what}")

    def receive(self, data: bytes) -> None:
        """Take more of the body."""
        self._connection.receive_data(data)
        self._received += len(data)
        self._begin = self._begin or data[:120]

    def body(self) -> bytes | None:
        """The next piece of the body; empty if more must be received first, None at its end."""
        event = self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return b"" if event is h11.NEED_DATA else None

    def broken_off(self) -> NotHttp | None:
        """What it means that the stream ended inside the body: only chunks tell where a body ends."""
        return NotHttp("no HTTP answer: the body broke off") if self._chunked else None

    def _answer(self, event: h11.Response | h11.InformationalResponse) -> Response:
        if not 100 <= event.status_code <= 599:
            raise self._no_http()
        answer = Response(event.status_code, {name.decode(): value.decode("latin-1") for name, value in event.headers})
        self._chunked = "transfer-encoding" in answer.headers
        return answer

    def _next(self) -> object:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as exc:
            raise self._no_http(f" ({exc!s:.120})") from exc

    def _no_http(self, why: str = "") -> NotHttp:
        return NotHttp(f"no HTTP answer: {self._seen()}{why}")

    def _seen(self) -> str:
        return shown(self._begin.partition(b"\r\n\r\n")[0], 60)


class Exchange:
    """``ask`` once, then read the ``body`` if it is wanted. Both raise ``NotHttp`` and OSError."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Send the request; the final answer to it, without its body."""
        self._conversation = conversation = Conversation(method, target, headers, body)
        await self._stream.send(conversation.request)
        while data := await self._stream.receive():
            if answer := conversation.feed(data):
                return answer
        raise conversation.closed()

    async def body(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come, to its end or to where the server broke off."""
        while (piece := self._conversation.body()) is not None:
            if piece:
                yield piece
            elif data := await self._stream.receive():  # h11 is not told of the end: it has no mercy on a broken body
                self._conversation.receive(data)
            elif error := self._conversation.broken_off():
                raise error
            else:
                return
