"""``agent``: the backend says in one line how it is: HAProxy's agent-check protocol, over TCP.

The line ends with a line feed or carriage return and holds words between blanks, tabs or commas, in any case:

- ``75%``: up, with this share of its weight
- ``up``, ``ready``: up
- ``drain``: up, but no new flows
- ``maint``, ``down``, ``fail``, ``failed``, ``stopped``: down; what follows a ``#`` is the reason
- ``maxconn:30``: read, and ignored

Set ``port`` to the agent's own port; it is rarely that of the service. An agent answers whatever the service behind it
does: combine it with a check of the service by ``all``.
"""

from __future__ import annotations

import asyncio
import re
import socket

from anycastlb.adapters.checks.probe.outcome import Down, Found
from anycastlb.adapters.checks.probe.patterns import Payload, unescape
from anycastlb.adapters.checks.probe.sockets import connect, error_text
from anycastlb.core.fields import Document, shown
from anycastlb.core.model import Check, ProbePath

MAX_BYTES = 1024
WORDS = ("up", "ready", "drain")
DOWN = ("maint", "down", "fail", "failed", "stopped")


class Params(Document):
    send: Payload = ""
    """Sent first, with ``\\n`` and other escapes as in C; HAProxy's ``agent-send``."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    loop = asyncio.get_running_loop()
    try:
        with await connect(check.address, check.port, probe_path) as sock:
            if params.send:
                await loop.sock_sendall(sock, unescape(params.send))
            line = await _line(sock)
    except OSError as exc:
        raise Down(error_text(exc)) from exc
    return judged(line)


async def _line(sock: socket.socket) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    while True:
        piece = await loop.sock_recv(sock, MAX_BYTES)
        received += piece
        if end := re.search(rb"[\r\n]", received):
            return received[: end.start()]
        if not piece:
            what = f"only {shown(received)} came" if received else "nothing came"
            raise Down(f"{what} before the connection was closed; expected one line of words such as up or 75%")
        if len(received) >= MAX_BYTES:
            raise Down(f"no end of line within {MAX_BYTES} bytes; expected one line of words such as up or 75%")


def judged(line: bytes) -> Found:
    """What an agent's line means. Raises ``Down``."""
    text = line.decode(errors="replace")
    statement, _, reason = (part.strip() for part in text.partition("#"))
    weight, seen, down = None, [], None
    for word in re.split(r"[\s,]+", statement.lower()):
        if match := re.fullmatch(r"(\d{1,5})%", word):
            weight = int(match[1])
        elif word in DOWN:
            down = down or word
        elif word and word not in WORDS and not re.fullmatch(r"maxconn:\d+", word):
            raise Down(f"the agent said {shown(text, 120)}; expected words such as up, down, drain or 75%")
        if word:
            seen.append(word)
    if down:
        raise Down(f"the agent says {down}" + (f": {_plain(reason)}" if reason else ""))
    if not seen:
        raise Down("the agent sent an empty line; expected words such as up, down, drain or 75%")
    return Found("the agent says " + " ".join(seen), weight, "drain" in seen)


def _plain(text: str) -> str:
    """A peer's words, fit for a log."""
    return text[:120] if text.isprintable() else shown(text, 120)
