"""``tcp``: up if a connection can be made. Nothing is sent; the connection is reset at once."""

from __future__ import annotations

import asyncio
import socket
import struct

from anycastlb.checks import Down, told
from anycastlb.documents import Document
from anycastlb.model import Check

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: no TIME_WAIT left behind by thousands of probes."""


class Params(Document):
    """No parameters."""


async def probe(check: Check) -> str:
    family = socket.AF_INET6 if check.address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (str(check.address), check.port))
        except OSError as exc:
            raise Down(told(exc)) from exc
    return "connected"
