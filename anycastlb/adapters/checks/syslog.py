"""``syslog``: up if a syslog server takes a message (RFC 5424), over TCP (RFC 6587) or UDP (RFC 5426).

Over TCP the check sends the message, ends its side, and waits for the server to read all of it and end its own: that a
connection can be made and written to is the work of the server's kernel, and says nothing of a server that hangs. With
``confirm`` false, connecting and writing is enough.

Over UDP no answer ever comes, so only failure can be seen: an ICMP unreachable is down, and silence for as long as
``quiet`` is up, also if the host is off. Prefer TCP wherever the server has it.

Choose a ``facility`` and ``level`` that the server throws away or keeps apart. Where neither check nor backend has a
port, it is 514.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from anycastlb.adapters.checks.probe.outcome import Down, Found
from anycastlb.adapters.checks.probe.sockets import connect, error_text
from anycastlb.adapters.checks.udp import Quiet, ask, patience
from anycastlb.core.fields import Document, shown, whole
from anycastlb.core.model import Check, ProbePath

PORT = 514
"""Where neither the check nor the backend has a port."""
LEVELS = {
    name: number
    for number, names in enumerate(("emerg", "alert", "crit", "err error", "warning warn", "notice", "info", "debug"))
    for name in names.split()
}
FACILITIES = {
    name: number
    for number, name in enumerate(("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"))
} | {"authpriv": 10, "ftp": 11, **{f"local{number}": 16 + number for number in range(8)}}


def _number(value: Any, names: Mapping[str, int], limit: int) -> int:
    if isinstance(value, str) and value.strip().lower() in names:
        return names[value.strip().lower()]
    try:
        number = whole(value)
        if isinstance(number, int) and 0 <= number <= limit:
            return number
    except ValueError:
        pass
    raise ValueError(f"one of {', '.join(names)}, or a number up to {limit}, not {shown(value)}")


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"printable text in one line, not {shown(value)}")
    return value


Level = Annotated[int, BeforeValidator(lambda value: _number(value, LEVELS, 7), json_schema_input_type=int | str)]
Facility = Annotated[
    int, BeforeValidator(lambda value: _number(value, FACILITIES, 23), json_schema_input_type=int | str)
]


class Params(Document):
    protocol: Literal["tcp", "udp"] = "tcp"
    """Over UDP only an ICMP unreachable is a failure."""
    level: Level = LEVELS["info"]
    """The severity: ``emerg``, ``alert``, ``crit``, ``err``, ``warning``, ``notice``, ``info``, ``debug``; 0 to 7."""
    facility: Facility = FACILITIES["syslog"]
    """``kern``, ``user``, ``daemon``, ``auth``, ``syslog``, ``local0`` to ``local7``, ..., or 0 to 23."""
    message: Annotated[str, Field(max_length=1024), AfterValidator(_printable)] = "health check"
    """What the message says."""
    framing: Literal["newline", "octets"] = "newline"
    """How the message ends over TCP: with a line feed, or counted in octets before it (RFC 6587)."""
    confirm: bool = True
    """Over TCP, wait until the server has read the message and closed the connection."""
    quiet: Quiet = None
    """Over UDP, how long to wait for an ICMP error; 80 % of the time-out unless given, and never more."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    check = check if check.port else replace(check, port=PORT)
    line = message(params, datetime.now(UTC), socket.gethostname(), os.getpid())
    try:
        if params.protocol == "tcp":
            return await _by_stream(check, probe_path, framed(line, params.framing), params.confirm)
        await ask(check, probe_path, line, patience(params.quiet, check.timeout))
        return Found("sent; over UDP nobody can tell whether it arrived")
    except OSError as exc:
        raise Down(error_text(exc)) from exc


def message(params: Params, now: datetime, host: str, process: int) -> bytes:
    """The message as RFC 5424 wants it (section 6)."""
    name = "".join(c for c in host if "!" <= c <= "~")[:255] or "-"
    when = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = f"<{8 * params.facility + params.level}>1 {when} {name} anycastlb {process} check -"
    return f"{head} {params.message}".rstrip().encode()


def framed(line: bytes, framing: Literal["newline", "octets"]) -> bytes:
    return line + b"\n" if framing == "newline" else b"%d %s" % (len(line), line)


async def _by_stream(check: Check, probe_path: ProbePath | None, data: bytes, confirm: bool) -> Found:
    loop = asyncio.get_running_loop()
    with await connect(check.address, check.port, probe_path) as sock:
        await loop.sock_sendall(sock, data)
        if not confirm:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))  # closed, not reset
            return Found("connected and sent")
        sock.shutdown(socket.SHUT_WR)
        if await loop.sock_recv(sock, 1024):
            raise Down("something came back, and a syslog server never answers")
        if _unread(sock):
            raise Down("the connection was closed before the message was read")
        return Found("sent and read")


def _unread(sock: socket.socket) -> int:
    """Bytes sent that the peer's kernel has not taken (its end of stream counts as one)."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(waiting)
