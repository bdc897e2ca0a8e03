"""``icmp``: up if the backend answers a ping. It proves that the host is there, not that the service is.

It needs no privilege but the kernel's leave to send pings: the daemon's group must lie within the sysctl
``net.ipv4.ping_group_range`` (for IPv6 too), also if it runs as root. It goes straight to the backend, never through
IPVS.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from typing import Annotated

from pydantic import Field

from anycastlb.adapters.checks.probe.outcome import Down, Found
from anycastlb.adapters.checks.probe.sockets import RECVERR, error_text, family
from anycastlb.core.fields import Document, Whole
from anycastlb.core.model import Check, ProbePath

DIRECT_ONLY = True
HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number; the kernel fills in the checksum and the identifier."""
PROTOCOL = {
    socket.AF_INET: (socket.IPPROTO_ICMP, 8, 0),
    socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128, 129),
}
"""The protocol, and the types of an echo request and its reply."""
LEAVE = (
    "this node may not send pings; allow it with the sysctl "
    'net.ipv4.ping_group_range = "0 2147483647", or at least the group of the daemon ({group})'
)


class Params(Document):
    size: Annotated[Whole, Field(ge=16, le=65000)] = 56
    """Bytes of payload. A large one proves that large packets get through, in fragments if they must."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    token = os.urandom(16) + bytes(params.size - 16)
    loop, kind = asyncio.get_running_loop(), family(check.address)
    _, request, reply = PROTOCOL[kind]
    try:
        with _opened(kind) as sock:
            started = loop.time()
            sock.connect((str(check.address), 0))  # at once, for a datagram socket
            await loop.sock_sendall(sock, HEADER.pack(request, 0, 0, 0, 1) + token)
            while True:
                packet = await loop.sock_recv(sock, 65535)
                if packet[:2] == bytes((reply, 0)) and packet[HEADER.size :] == token:
                    return Found(f"a reply after {1000 * (loop.time() - started):.1f} ms")
    except OSError as exc:
        raise Down(error_text(exc)) from exc


def _opened(kind: socket.AddressFamily) -> socket.socket:
    """Raises ``Down`` if the node may not, OSError."""
    try:
        sock = socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, PROTOCOL[kind][0])
    except OSError as exc:
        if exc.errno in (errno.EACCES, errno.EPERM):
            raise Down(LEAVE.format(group=os.getegid())) from exc
        raise
    sock.setsockopt(*RECVERR[kind], 1)
    return sock
