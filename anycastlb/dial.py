"""Sockets for probes: by plain routing, or through IPVS by a firewall mark, bound to the node's own address.

The one place that knows how a probe's packets get their mark. It sets no time-outs and reads no answers.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from anycastlb.model import Address, Lane

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: no TIME_WAIT left behind by thousands of probes."""


def opened(family: int, kind: int, lane: Lane | None) -> socket.socket:
    """A non-blocking socket that takes the lane; close it. Raises OSError (EPERM without CAP_NET_ADMIN)."""
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if lane is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, lane.mark)
            sock.bind((str(lane.source), 0))
    except BaseException:
        sock.close()
        raise
    return sock


def family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET


async def connect(address: Address, port: int, lane: Lane | None, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A connected socket (TCP, or UDP with ``SOCK_DGRAM``); close it. Raises OSError."""
    sock = opened(family(address), kind, lane)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


def told(error: OSError) -> str:
    """A socket error in an operator's words: ``connection refused``, ``no route to host``."""
    number = error.errno
    text = os.strerror(number) if isinstance(number, int) and number > 0 else str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
