"""``tcp``: up if a connection can be made, and if it says what is expected, where something is.

Without ``send`` and ``expect`` nothing is sent or read; the connection is reset at once.
"""

from __future__ import annotations

import asyncio

from anycastlb import patterns
from anycastlb.checks import Down, Found
from anycastlb.dial import told
from anycastlb.documents import Document, shown
from anycastlb.model import Check, Lane
from anycastlb.patterns import Pattern, Payload, Search
from anycastlb.probing.stream import Stream, connected

MOST = 64 * 1024
"""Bytes that are looked at."""


class Params(Document):
    send: Payload = ""
    r"""What to send once connected, such as ``"PING\r\n"``; ``\r``, ``\n``, ``\t``, ``\0``, ``\\`` and ``\xNN`` are
    bytes."""
    expect: Pattern | None = None
    r"""What must come back, within the first 64 KiB: text with the same escapes, found anywhere, or ``re:`` and a
    regular expression, in which ``^`` and ``$`` match at every line. Without it nothing is read."""


async def probe(check: Check, lane: Lane | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    try:
        async with connected(check.address, check.port, lane) as stream:
            if params.send:
                await stream.send(patterns.unescape(params.send))
            if params.expect is None:
                return Found("connected")
            await _await(stream, params.expect)
    except OSError as exc:
        raise Down(told(exc)) from exc
    return Found("connected, answer matches")


async def _await(stream: Stream, pattern: str) -> None:
    """Read until it has come. Raises ``Down``, OSError."""
    search, seen, first = Search(pattern), 0, b""
    while not search.found and seen < MOST and (data := await stream.receive()):
        search.feed(data[: MOST - seen])
        seen += len(data)
        first = first or data[:60]
        await asyncio.sleep(0)  # a long search leaves the others their turn
    if search.found or (seen < MOST and search.end()):
        return
    if not seen:
        raise Down(f"connection closed without an answer, expected {patterns.quoted(pattern)}")
    end = "its first 64 KiB" if seen >= MOST else "it"
    raise Down(f"the answer began {shown(first)}, and {end} {patterns.told(pattern)}")
