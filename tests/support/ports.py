"""Ports of the loopback that nobody else takes: neither the kernel for a connection, nor another run of tests.

A port that the kernel gave out and got back would soon be given to somebody else. These lie below its range, and each
process begins at another of them.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket

FIRST, LAST = 10_000, 32_000
STEP = 97
"""Between the places where one process and the next begin."""

_PORTS = itertools.cycle([*range(FIRST + os.getpid() * STEP % (LAST - FIRST), LAST), *range(FIRST, LAST)])


def free_port() -> int:
    """A port on which nobody listens, by TCP or UDP."""
    return next(port for port in _PORTS if _free(port))


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def _free(port: int) -> bool:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                with socket.socket(family, kind) as sock:
                    sock.bind((host, port))
            except OSError as exc:  # or this machine has no IPv6
                if exc.errno == errno.EADDRINUSE:
                    return False
    return True
