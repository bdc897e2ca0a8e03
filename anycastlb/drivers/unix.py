"""A unix socket that belongs to one process: claimed, replaced when its owner is dead, removed at the end."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

from anycastlb.model import DriverError

MODE = 0o660


def claim(path: Path, group: str | None = None) -> socket.socket:
    """A listening, non-blocking socket at ``path``, for its owner and ``group``. Raises ``DriverError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(listener, path, group)
        except BaseException:
            listener.close()
            raise
    except (OSError, LookupError) as exc:
        raise DriverError(f"cannot listen on {path} for ExaBGP's bridge: {exc}; see [bgp] socket in node.toml") from exc
    return listener


def release(listener: socket.socket, path: Path) -> None:
    """Close it, and remove its file unless another process has put its own there."""
    try:
        same = os.fstat(listener.fileno())  # the socket's own inode says nothing about the file, so ask by name
        if same and listener.getsockname() == str(path):
            path.unlink(missing_ok=True)
    except OSError:
        pass
    listener.close()


def _clear(path: Path) -> None:
    """Remove the socket of a dead process. Raises ``DriverError`` if its owner lives, or it is something else."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise DriverError(f"{path} is there and is no socket: remove it, or set another [bgp] socket in node.toml")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(1)
        try:
            knock.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # too busy to answer is alive
    raise DriverError(f"another daemon listens on {path}: stop it first, or set another [bgp] socket in node.toml")


def _bind(listener: socket.socket, path: Path, group: str | None) -> None:
    mask = os.umask(0o777 & ~MODE)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    if group is not None:
        shutil.chown(path, group=group)
    listener.listen(8)
    listener.setblocking(False)
