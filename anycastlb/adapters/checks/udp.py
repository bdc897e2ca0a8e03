"""``udp``: up if a datagram is answered as expected. An ICMP unreachable is always down.

Without ``expect`` a server that says nothing is up, for want of proof of the contrary: any reply is up at once, and so
is silence for as long as ``quiet``, as only an ICMP error could then tell. A host that is off, or a firewall that
drops, looks the same: give ``expect`` wherever the server answers anything.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from anycastlb.adapters.checks.probe.outcome import Down, Found
from anycastlb.adapters.checks.probe.patterns import Pattern, Search, mismatch, unescape
from anycastlb.adapters.checks.probe.sockets import connect, error_text
from anycastlb.core.fields import Document, Duration, shown
from anycastlb.core.model import Check, ProbePath

QUIET = 0.8
"""The part of the time-out after which, at the latest, silence is taken for consent."""
MAX_BYTES = 1400
"""A probe should fit into one packet."""


def payload(text: str) -> bytes:
    """The bytes an operator wrote. Raises ValueError."""
    if not text.startswith("hex:"):
        return unescape(text)
    try:
        return bytes.fromhex(text[4:])
    except ValueError:
        raise ValueError(f'"hex:" and pairs of hexadecimal digits, not {shown(text)}') from None


def _checked(text: Any) -> Any:
    if len(payload(text)) > MAX_BYTES:
        raise ValueError(f"at most {MAX_BYTES} bytes, not {len(payload(text))}")
    return text


Quiet = Annotated[Duration, Field(ge=0.001, le=3600)] | None


class Params(Document):
    send: Annotated[str, Field(max_length=16384), AfterValidator(_checked)] = ""
    """The datagram: text with ``\\xNN``, ``\\r``, ``\\n``, ``\\t``, ``\\0`` and ``\\\\`` as in C, or ``hex:`` and
    digits."""
    expect: Pattern | None = None
    """What the reply must hold: text with the same escapes, or ``re:`` and a regular expression over its bytes."""
    quiet: Quiet = None
    """Without ``expect``: how long to wait for an ICMP error; 80 % of the time-out unless given, and never more. The
    kernel needs 3 s to find out that a host on its own network is gone."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    try:
        quiet = None if params.expect else patience(params.quiet, check.timeout)
        reply = await ask(check, probe_path, payload(params.send), quiet)
    except OSError as exc:
        raise Down(error_text(exc)) from exc
    if reply is None:
        return Found("sent, nothing came back")
    if params.expect:
        search = Search(params.expect)
        if not (search.feed(reply) or search.end()):
            raise Down(f"the reply {shown(reply)} {mismatch(params.expect)}")
    return Found(f"a reply of {len(reply)} bytes")


def patience(quiet: float | None, timeout: float) -> float:
    """How long to wait for what can only be bad news, in seconds."""
    return min(QUIET * timeout, timeout if quiet is None else quiet)


async def ask(check: Check, probe_path: ProbePath | None, datagram: bytes, quiet: float | None) -> bytes | None:
    """The reply to a datagram; None after ``quiet`` seconds without one (never, if None). Raises OSError."""
    loop = asyncio.get_running_loop()
    with await connect(check.address, check.port, probe_path, socket.SOCK_DGRAM) as sock:
        await loop.sock_sendall(sock, datagram)
        try:
            async with asyncio.timeout(quiet):
                return await loop.sock_recv(sock, 65535)
        except TimeoutError:
            return None
