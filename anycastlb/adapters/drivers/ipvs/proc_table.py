"""What ``/proc/net/ip_vs`` shows: every service with its destinations, in a text that the kernel writes in one go.

To read it takes a third of the CPU that a netlink dump of each service takes. It shows neither thresholds nor the kind
of a tunnel, and it is no interface to build rows of: all that is made of it is whether a service looks as it did.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from threading import Lock

from anycastlb.core.model import ServiceKey

PATH = "/proc/thread-self/net/ip_vs"
"""Of the network namespace of the thread that opens it, whoever reads it then."""
PIECE = 1024 * 1024
"""Bytes that are asked for at once; the kernel gives a page at a time."""
SERVICE = re.compile(rb"\n(?=[A-Z])")
"""Before each service; its destinations are indented."""
CONNECTIONS = re.compile(rb" +\d+ +\d+ *$", re.MULTILINE)
"""Connections of a destination, active and inactive, at the end of its line."""


class ProcTable:
    """The file. One that cannot be opened or read shows nothing. Every method may be called in any thread."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._lock = Lock()

    def open(self) -> None:
        """Open it, unless it is, in the network namespace of the calling thread."""
        with self._lock, suppress(OSError):
            if self._file is None:
                self._file = os.open(PATH, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def read(self) -> bytes | None:
        """The whole text; None if there is none."""
        with self._lock:
            if self._file is None:
                return None
            try:
                os.lseek(self._file, 0, os.SEEK_SET)
                pieces = []
                while piece := os.read(self._file, PIECE):
                    pieces.append(piece)
            except OSError:
                return None
        return b"".join(pieces)


def blocks(text: bytes) -> Mapping[bytes, bytes]:
    """The part of the text about each service, by its ``label``."""
    shown: dict[bytes, bytes] = defaultdict(bytes)  # one mark may have a service of IPv4 and one of IPv6
    for block in SERVICE.split(text.removesuffix(b"\n")):
        words = block.split(None, 2)
        shown[b" ".join(words[:2])] += block
    return shown


@lru_cache(100_000)
def label(key: ServiceKey) -> bytes:
    """How the text names a service."""
    if key.protocol == "fwmark":
        return b"FWM %08X" % key.port
    if key.address.version == 6:
        return f"{key.protocol.upper()} [{key.address.exploded}]:{key.port:04X}".encode()
    return f"{key.protocol.upper()} {int(key.address):08X}:{key.port:04X}".encode()


def without_connections(block: bytes) -> bytes:
    """The part about a service, as it is shown whatever its destinations do."""
    return CONNECTIONS.sub(b"", block)
