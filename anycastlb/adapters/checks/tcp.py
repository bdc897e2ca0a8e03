"""``tcp``: up if a connection can be made, and if it says what is expected, where something is.

Without ``send`` and ``expect`` nothing is sent or read; the connection is reset at once.
"""

from __future__ import annotations

import asyncio

from anycastlb.adapters.checks.probe import patterns
from anycastlb.adapters.checks.probe.outcome import Down, Exchange, Found, Reader
from anycastlb.adapters.checks.probe.patterns import Pattern, Payload, Search
from anycastlb.adapters.checks.probe.sockets import error_text
from anycastlb.adapters.checks.probe.stream import Stream, connected
from anycastlb.core.fields import Document, shown
from anycastlb.core.model import Check, ProbePath

MAX_BYTES = 64 * 1024
"""Bytes that are looked at."""


CONNECTED, MATCHES = Found("connected"), Found("connected, answer matches")


class Params(Document):
    send: Payload = ""
    r"""What to send once connected, such as ``"PING\r\n"``; ``\r``, ``\n``, ``\t``, ``\0``, ``\\`` and ``\xNN`` are
    bytes."""
    expect: Pattern | None = None
    r"""What must come back, within the first 64 KiB: text with the same escapes, found anywhere, or ``re:`` and a
    regular expression, in which ``^`` and ``$`` match at every line. Without it nothing is read."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    exchange = lean(check)
    try:
        async with connected(check.address, check.port, probe_path) as stream:
            if exchange.request:
                await stream.send(exchange.request)
            return await _read(stream, exchange.reader()) if exchange.reader else CONNECTED
    except OSError as exc:
        raise Down(error_text(exc)) from exc


def lean(check: Check) -> Exchange:
    params = check.params
    assert isinstance(params, Params)
    request, expected = patterns.unescape(params.send), params.expect
    return Exchange(request, None if expected is None else lambda: PatternReader(expected))


async def _read(stream: Stream, answer: Reader) -> Found:
    while data := await stream.receive():
        if result := answer.feed(data):
            return result
        await asyncio.sleep(0)  # a long search leaves the others their turn
    return answer.end()


class PatternReader:
    """Searches what comes for a pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._search = pattern, Search(pattern)
        self._seen, self._first = 0, b""

    def feed(self, data: bytes) -> Found | None:
        """Found as soon as it has come. Raises ``Down`` if it is not in the first 64 KiB."""
        self._first = self._first or data[:60]
        data = data[: MAX_BYTES - self._seen]
        self._seen += len(data)
        if self._search.feed(data):
            return MATCHES
        if self._seen >= MAX_BYTES:
            raise self._missed("its first 64 KiB")
        return None

    def end(self) -> Found:
        """The target has closed. Raises ``Down`` if it had not come."""
        if not self._seen:
            expected = patterns.quoted(self._pattern)
            raise Down(f"connection closed without an answer, expected {expected}")
        if self._search.end():
            return MATCHES
        raise self._missed("it")

    def _missed(self, where: str) -> Down:
        return Down(f"the answer began {shown(self._first)}, and {where} {patterns.mismatch(self._pattern)}")
