"""Open sockets for probes: by plain routing, or through IPVS by a firewall mark, bound to the node's own address.

The one place that knows how a probe's packets get their mark. It sets no time-outs and reads no answers.

IPVS knows a connection by its addresses and ports, not by its mark: a probe from a port from which another backend of
the same VIP was probed a short while ago would be sent to that other one. Source ports are therefore taken in ascending
order instead of at random (docs/decisions/0004).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import random
import socket
import struct
from collections.abc import Iterator
from itertools import chain, cycle, islice

from anycastlb.core.model import Address, ProbePath

RECVERR = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),  # IP_RECVERR and IPV6_RECVERR, which Python does not name
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
"""Every ICMP error becomes an error of the datagram socket, "host unreachable" too."""
IP_BIND_ADDRESS_NO_PORT = 24
"""Linux; the module socket of Python 3.11 does not name it. It is good for IPv6 sockets too."""
LOCAL = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EAGAIN}
)
"""Errors that say only that this node lacks descriptors, memory, ports or processes."""
TRIES = 1000
"""Ports tried before there is none."""


def _ports(low: int = 32768, high: int = 60999) -> Iterator[int]:
    """Every port in ascending order, for ever.

    The first is random, so that a restarted daemon does not begin where the last one did.
    """
    start = random.randint(low, high)
    return cycle(chain(range(start, high + 1), range(low, start)))


_PORTS = _ports()
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: no TIME_WAIT left behind by thousands of probes."""
_connect = ctypes.CDLL(None).connect
_connect.argtypes = ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
_NOBODY = bytes(16)
"""A struct sockaddr of the family AF_UNSPEC, which the module socket cannot write."""


def opened(family: int, kind: int, probe_path: ProbePath | None) -> socket.socket:
    """A non-blocking socket that takes the probe path; close it. Raises OSError (EPERM without CAP_NET_ADMIN)."""
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif kind == socket.SOCK_DGRAM:
            sock.setsockopt(*RECVERR[socket.AddressFamily(family)], 1)
        if probe_path is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, probe_path.mark)
            _bind(sock, kind, probe_path.source)
            if probe_path.hops is not None and probe_path.source.version == 4:
                sock.setsockopt(socket.SOL_IP, socket.IP_TTL, probe_path.hops)
            elif probe_path.hops is not None:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, probe_path.hops)
    except BaseException:
        sock.close()
        raise
    return sock


def disconnected(sock: socket.socket) -> bool:
    """Reset the connection of a TCP socket, and leave it as if it were new, by connect(2); False if that is refused."""
    return not _connect(sock.fileno(), _NOBODY, len(_NOBODY))


def _bind(sock: socket.socket, kind: int, source: Address) -> None:
    if kind == socket.SOCK_STREAM:
        # The port is chosen when the socket is connected, and then in turn by destination.
        sock.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((str(source), 0))
        return
    for port in islice(_PORTS, TRIES):
        try:
            sock.bind((str(source), port))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
        else:
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET


async def connect(
    address: Address, port: int, probe_path: ProbePath | None, kind: int = socket.SOCK_STREAM
) -> socket.socket:
    """A connected socket (TCP, or UDP with ``SOCK_DGRAM``); close it. Raises OSError."""
    sock = opened(family(address), kind, probe_path)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


def error_text(error: OSError) -> str:
    """A socket error in an operator's words: ``connection refused``, ``no route to host``."""
    number = error.errno
    text = os.strerror(number) if isinstance(number, int) and number > 0 else str(error) or type(error).__name__
    return text[:1].lower() + text[1:]


def own_lack(error: BaseException | None) -> OSError | None:
    """The error, or the one behind it, that says nothing of the target: this node lacks something to probe it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in LOCAL:
            return error
        error = error.__cause__
    return None
