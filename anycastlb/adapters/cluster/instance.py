"""Identify this installation, so that a node's next process is not taken for another node of the same name.

A random word kept in ``state_dir``, mixed with the boot's own: a copied ``state_dir`` on another machine is another
installation. It touches that one file.
"""

from __future__ import annotations

import hashlib
import uuid
from contextlib import suppress
from pathlib import Path

NAME = "instance"
BOOT = Path("/proc/sys/kernel/random/boot_id")


def instance(state_dir: str | Path, boot: Path = BOOT) -> str:
    """The same for every process that runs with this directory on this machine until it boots.

    Where nothing can be kept it is empty: the next process then waits until the session of this one has ended.
    """
    path = Path(state_dir) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), path.open("x", encoding="ascii") as file:
            file.write(uuid.uuid4().hex + "\n")
        word = path.read_text(encoding="ascii").strip()
        booted = boot.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(f"{word} {booted}".encode()).hexdigest()[:16] if word else ""
