"""Where HAProxy of this node has its files and sockets, and what it may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anycastlb.core.http.names import escaped
from anycastlb.core.model import MapName

MAPS: tuple[MapName, ...] = ("next", "eq", "re0", "re1", "re2", "re3", "re4", "re5", "re6", "re7", "leaf", "do")
"""Every map but ``site``."""


@dataclass(frozen=True, slots=True)
class Installation:
    """``directory`` is written by the daemon and read by HAProxy, also when systemd starts it without the daemon."""

    directory: Path
    certificates: Path
    """``[http] certificate_dir``: one file ``NAME.pem`` for each certificate, with its chain and its key."""
    socket: Path
    """The Runtime API of the worker."""
    master: Path
    """The socket of the master, which reloads."""
    program: Path = Path("/usr/sbin/haproxy")
    user: str = ""
    """Empty, as ``group`` and ``chroot``: HAProxy goes on as it was started."""
    group: str = ""
    chroot: str = ""
    threads: int = 0
    """0: one for each processor."""
    hard_stop_after: float = 3600.0
    """Seconds after which a reload ends the connections of the worker before it."""

    @property
    def config(self) -> Path:
        return self.directory / "haproxy.cfg"

    def map(self, name: MapName | str) -> Path:
        return self.directory / f"{name}.map"

    def certificate(self, name: str) -> Path:
        return self.certificates / f"{name}.pem"

    def certificate_list(self, gateway: str) -> Path:
        """The certificates of a gateway; the first one is sent where none fits."""
        return self.directory / f"{escaped(gateway)}.crt-list"
