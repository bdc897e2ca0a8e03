"""Tell systemd about readiness, status and signs of life, by its notify protocol."""

from __future__ import annotations

import os
import socket
from math import inf

from anycastlb import __version__

LAST = 60
"""Seconds that a process which hands over may take to end. ``[bgp] hold`` withdraws its routes all the same."""


class Notifier:
    """systemd's notify protocol (sd_notify(3)); silent when nobody asked."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address or os.environ.get("NOTIFY_SOCKET", "")

    @property
    def watchdog(self) -> float:
        """Seconds without ``alive`` after which the service manager kills this process; infinite if it never does."""
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else inf

    def ready(self) -> None:
        self._send(f"READY=1\nSTATUS=anycastlb {__version__}")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=routes withdrawn, draining")

    def handing_over(self) -> None:
        """No sign of life comes any more, and on a slow machine it takes seconds until this process has ended."""
        self._send(f"WATCHDOG_USEC={LAST * 1_000_000:d}\nSTATUS=handing over")

    def alive(self) -> None:
        """Fed by the reconciler's progress, not by a timer: a stuck node must be restarted."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), address)
        except OSError:
            return  # the service manager's trouble must not become ours
