"""Remember which process the bridge is, across the daemon's own restarts.

A bridge that hangs connects to nobody. If the daemon that knew it is gone, the next one could not end it otherwise, and
ExaBGP would go on announcing what nobody vouches for.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from anycastlb.adapters.system.unix_listener import is_bridge


class LastBridge:
    """It stands beside the ``socket`` that the bridge connects to."""

    def __init__(self, socket: Path) -> None:
        self._path = socket.with_name(f"{socket.name}.bridge")

    def keep(self, pid: int) -> None:
        with suppress(OSError):  # without it only the next daemon is less well off
            self._path.write_text(f"{pid} {_started(pid)}")

    def pid(self) -> int:
        """Its number, if it still runs; else 0."""
        try:
            pid, started = map(int, self._path.read_text().split())
            return pid if _started(pid) == started and is_bridge(pid) else 0
        except (OSError, ValueError):
            return 0


def _started(pid: int) -> int:
    """When the process was started, in the kernel's ticks. Raises OSError."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
