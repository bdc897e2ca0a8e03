"""``tcp``: up if a connection can be made. Nothing is sent; the connection is reset at once."""

from __future__ import annotations

from anycastlb.checks import Down, Found
from anycastlb.dial import connect, told
from anycastlb.documents import Document
from anycastlb.model import Check, Lane


class Params(Document):
    """No parameters."""


async def probe(check: Check, lane: Lane | None) -> Found:
    try:
        sock = await connect(check.address, check.port, lane)
    except OSError as exc:
        raise Down(told(exc)) from exc
    sock.close()
    return Found("connected")
