"""``tcp``: up if a connection can be made, and if it says what is expected, where something is.

Without ``send`` and ``expect`` nothing is sent or read; the connection is reset at once.
"""

from __future__ import annotations

import asyncio

from anycastlb.adapters.checks import Down, Found
from anycastlb.adapters.checks.probe import patterns
from anycastlb.adapters.checks.probe.patterns import Pattern, Payload, Search
from anycastlb.adapters.checks.probe.sockets import error_text
from anycastlb.adapters.checks.probe.stream import Stream, connected
from anycastlb.core.fields import Document, shown
from anycastlb.core.model import Check, ProbePath

MAX_BYTES = 64 * 1024
"""Bytes that are looked at."""


class Params(Document):
    send: Payload = ""
    r"""What to send once connected, such as ``"PING\r\n"``; ``\r``, ``\n``, ``\t``, ``\0``, ``\\`` and ``\xNN`` are
    bytes."""
    expect: Pattern | None = None
    r"""What must come back, within the first 64 KiB: text with the same escapes, found anywhere, or ``re:`` and a
    regular expression, in which ``^`` and ``$`` match at every line. Without it nothing is read."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    try:
        async with connected(check.address, check.port, probe_path) as stream:
            if params.send:
                await stream.send(patterns.unescape(params.send))
            if params.expect is None:
                return Found("connected")
            await _await(stream, params.expect)
    except OSError as exc:
        raise Down(error_text(exc)) from exc
    return Found("connected, answer matches")


async def _await(stream: Stream, pattern: str) -> None:
    """Read until it has come. Raises ``Down``, OSError."""
    search, seen, first = Search(pattern), 0, b""
    while not search.found and seen < MAX_BYTES and (data := await stream.receive()):
        search.feed(data[: MAX_BYTES - seen])
        seen += len(data)
        first = first or data[:60]
        await asyncio.sleep(0)  # a long search leaves the others their turn
    if search.found or (seen < MAX_BYTES and search.end()):
        return
    if not seen:
        raise Down(f"connection closed without an answer, expected {patterns.quoted(pattern)}")
    end = "its first 64 KiB" if seen >= MAX_BYTES else "it"
    raise Down(f"the answer began {shown(first)}, and {end} {patterns.mismatch(pattern)}")
