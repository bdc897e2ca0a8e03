"""A bridge in place of ExaBGP's, that has announced every route at once: ``python -m tests.bench.bridge SOCKET``.

What a node costs is then not what it costs without a bridge, where every cycle fails to announce every route.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Callable, Collection

from anycastlb.bridge.protocol import Report, RouteSet, decode_order, encode

PAUSE = 0.05
"""Seconds between two attempts to connect."""
SILENCE = 1.0
"""Seconds without a report, at most: a bridge that says nothing is taken for dead."""


def main() -> None:
    while True:
        with socket.socket(socket.AF_UNIX) as daemon:
            try:
                daemon.connect(sys.argv[1])
                serve(daemon)
            except OSError:
                time.sleep(PAUSE)


def serve(daemon: socket.socket, changed: Callable[[Collection[object]], None] = lambda routes: None) -> None:
    """``changed`` is called with the prefixes that are asked for from now on."""
    report, read = Report(ready=True, version="none"), b""
    daemon.sendall(encode(report))
    while True:
        ready, _, _ = select.select([daemon], [], [], SILENCE)
        if ready:
            got = daemon.recv(1 << 20)
            if not got:
                return
            *lines, read = (read + got).split(b"\n")
            for line in lines:
                if isinstance(order := decode_order(line), RouteSet):
                    report = Report(order.serial, ready=True, version="none", announced=order.routes)
                    changed(order.routes)
        daemon.sendall(encode(report))


if __name__ == "__main__":
    main()
