"""Listen on a unix socket: one daemon claims its path, takes it over from a dead one, and removes it at the end."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
from pathlib import Path

from anycastlb.core.model import DriverError

MODE = 0o660


class UnixListener:
    """A listening, non-blocking socket at ``path``, for the daemon's user and ``group``. Raises ``DriverError``.

    ``user`` and ``setting`` say in errors whom it is for and where it is set.
    """

    def __init__(
        self,
        path: Path,
        group: str | None = None,
        *,
        user: str = "ExaBGP's bridge",
        setting: str = "[bgp] socket",
        backlog: int = 8,
    ) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _clear(path, setting)
            self._bind(group, backlog)
        except (OSError, LookupError) as exc:
            self.socket.close()
            raise DriverError(f"cannot listen on {path} for {user}: {exc}; see {setting} in node.toml") from exc
        except DriverError:
            self.socket.close()
            raise
        self._inode = path.stat().st_ino

    def close(self) -> None:
        """Close it, and remove its file unless another daemon has put its own there."""
        self.socket.close()
        try:
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        except OSError:
            return

    def _bind(self, group: str | None, backlog: int) -> None:
        mask = os.umask(0o777 & ~MODE)
        try:
            self.socket.bind(str(self.path))
        finally:
            os.umask(mask)
        if group is not None:
            shutil.chown(self.path, group=group)
        self.socket.listen(backlog)
        self.socket.setblocking(False)


def peer(connection: socket.socket) -> int:
    """The process at the other end. Raises ``OSError``."""
    pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid


def is_bridge(pid: int) -> bool:
    """Is this process the bridge, by its command line?"""
    if pid <= 1 or pid == os.getpid():
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return False
    names = ("anycastlb-bridge", "anycastlb.bridge")
    return any(Path(word).name in names or word.endswith("anycastlb/bridge/__main__.py") for word in words)


def _clear(path: Path, setting: str) -> None:
    """Remove the socket of a dead daemon. Raises ``DriverError`` if its owner lives, or it is something else."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise DriverError(f"{path} is there and is no socket: remove it, or set another {setting} in node.toml")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(1)
        try:
            knock.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # too busy to answer is alive
    raise DriverError(f"another daemon listens on {path}: stop it first, or set another {setting} in node.toml")
