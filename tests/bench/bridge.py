"""A bridge in place of ExaBGP's, that has announced all at once: ``python -m tests.bench.bridge SOCKET REPORT``.

What a node costs is then not what it costs without a bridge, where every cycle fails to announce every route. On
SIGUSR2 it writes to REPORT how long the daemon was silent at the longest since the last time, in milliseconds.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Callable, Collection

from anycastlb.bridge.protocol import Report, RouteSet, decode_order, encode
from tests.bench.reported import Longest

PAUSE = 0.05
"""Seconds between two attempts to connect."""
SILENCE = 1.0
"""Seconds without a report, at most: a bridge that says nothing is taken for dead."""


def main() -> None:
    silence = Longest(sys.argv[2])
    while True:
        with socket.socket(socket.AF_UNIX) as daemon:
            try:
                daemon.connect(sys.argv[1])
                serve(daemon, silent=silence.note)
            except OSError:
                time.sleep(PAUSE)


def serve(
    daemon: socket.socket,
    changed: Callable[[Collection[object]], None] = lambda routes: None,
    silent: Callable[[float], None] = lambda seconds: None,
) -> None:
    """``changed`` is called with the prefixes that are asked for from now on, ``silent`` with the seconds that the
    daemon has said nothing."""
    report, read, heard = Report(ready=True, version="none"), b"", time.monotonic()
    daemon.sendall(encode(report))
    while True:
        ready, _, _ = select.select([daemon], [], [], SILENCE)
        now = time.monotonic()
        silent(now - heard)
        if ready:
            heard, got = now, daemon.recv(1 << 20)
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
