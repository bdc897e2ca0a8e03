"""The facts about HAProxy of a node with ``[http]``. Nothing is changed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from anycastlb.doctor.facts import HaproxyFacts, Process, Unseen
from anycastlb.settings import HttpSettings

TIMEOUT = 20.0


def tier(settings: HttpSettings, running: Sequence[Process] = ()) -> HaproxyFacts:
    """``running``: the processes of this machine that belong to the node."""
    config = Path(settings.directory) / "haproxy.cfg"
    masters = tuple(process for process in running if is_haproxy(process) and str(config) in process.argv)
    return HaproxyFacts(
        settings.program,
        _version(settings.program),
        masters,
        Path(settings.directory).is_dir(),
        config.exists(),
        _answer(settings.socket),
    )


def is_haproxy(process: Process) -> bool:
    return bool(process.argv) and Path(process.argv[0]).name.startswith("haproxy")


def _version(program: str) -> str | Unseen:
    """Such as ``2.6.12-1+deb12u4``; empty if there is none."""
    try:
        done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        return ""
    except (OSError, subprocess.TimeoutExpired) as exc:
        return Unseen(f"{program} -v: {exc}")
    version = re.search(r"HAProxy version (\S+)", done.stdout)
    return version[1] if version else Unseen(f"{program} -v says {done.stdout[:80]!r}")


def _answer(path: str) -> str:
    """Why the Runtime API cannot be used; empty if it can."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(2.0)
            link.connect(path)
            link.sendall(b"show version\n")
            return "" if link.recv(100) else "it closed the connection"
    except TimeoutError:
        return "it does not answer"
    except OSError as exc:
        return os.strerror(exc.errno).lower() if exc.errno else str(exc)
