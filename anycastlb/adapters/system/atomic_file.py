"""Write files so that what is on the disk is known, whenever the machine stops."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def write_atomic(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a temporary file beside ``path``, sync it, and rename it over ``path``. Only its owner can read it.

    The folder is made if it is missing. Raises OSError, which leaves the old file as it was.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file, which is made if it is missing, and sync it. Only its owner can read it.

    Raises OSError; a part of it may be written then, and also when the machine stops meanwhile.
    """
    new = not path.exists()
    with open(path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if new:
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """A rename lasts only once the directory is on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
