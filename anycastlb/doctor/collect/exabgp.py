"""The facts about ExaBGP, the bridge that it runs, and the socket between the bridge and the daemon.

No connection is made: the kernel's own list shows who is connected.
"""

from __future__ import annotations

import grp
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from anycastlb.adapters.system.unix_listener import is_bridge
from anycastlb.doctor.facts import ExabgpFacts, Process, Socket, Trial, Unseen
from anycastlb.settings import Settings

CONFIG = "/etc/exabgp/exabgp.conf"
TIMEOUT = 20.0


def speaker(settings: Settings | None, config: str, running: Sequence[Process]) -> ExabgpFacts:
    speakers = tuple(process for process in running if is_exabgp(process))
    bridges = tuple(process for process in running if is_bridge(process.pid))
    installed, location = _installed()
    path = next((word for process in speakers for word in _configs(process)), "")
    if not path and Path(CONFIG).exists():
        path = CONFIG
    return ExabgpFacts(
        installed,
        location,
        speakers,
        bridges,
        path,
        _text(path) if path else "",
        _socket(settings.bgp.socket) if settings else Socket(""),
        _trial(config, speakers),
    )


def is_exabgp(process: Process) -> bool:
    words = process.argv[:4]
    return any(Path(word).name == "exabgp" or word.endswith("exabgp/__main__.py") for word in words) and not any(
        word in ("version", "validate", "healthcheck", "cli") for word in process.argv[1:5]
    )


def _configs(process: Process) -> list[str]:
    """The files among its arguments; relative ones belong to its own directory, which is not ours."""
    return [
        word for word in process.argv[1:] if word.startswith("/") and word.endswith(".conf") and Path(word).is_file()
    ]


def _installed() -> tuple[str, str]:
    try:
        return metadata.version("exabgp"), "beside anycastlb"
    except metadata.PackageNotFoundError:
        program = shutil.which("exabgp")
    if program is None:
        return "", ""
    for argument in ("version", "--version"):  # 5 and 4
        try:
            done = subprocess.run([program, argument], capture_output=True, text=True, timeout=TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if version := re.search(r"ExaBGP\s*:\s*(\S+)", done.stdout + done.stderr):
            return version[1], program
    return "", ""


def _text(path: str) -> str | Unseen:
    try:
        return Path(path).read_text(errors="replace")
    except OSError as exc:
        return Unseen(f"{path}: {exc.strerror}")


def _socket(path: str) -> Socket:
    try:
        status = Path(path).lstat()
    except PermissionError:
        return Socket(path, "unreachable")
    except OSError:
        return Socket(path)
    if not stat.S_ISSOCK(status.st_mode):
        return Socket(path, "other")
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    listening, connections = _unix(path)
    return Socket(
        path, "socket", stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, group, listening, connections
    )


def _unix(path: str) -> tuple[bool, int]:
    """Does a process listen on this socket, and how many are connected to it? The kernel's own list says so."""
    listening, connections = False, 0
    try:
        rows = Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]
    except OSError:
        rows = []
    for row in rows:
        fields = row.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == path:
            listening |= bool(int(fields[3], 16) & 0x10000)  # __SO_ACCEPTCON
            connections += fields[5] == "03"  # SS_CONNECTED
    return listening, connections


def _trial(config: str, speakers: Sequence[Process]) -> Trial | Unseen:
    """Run the bridge's own check as the user of ExaBGP. The program is the one that belongs to this one: the command
    line of a process is the word of whoever started it, and root must not run it."""
    if not speakers:
        return Unseen("no ExaBGP runs, so its user is not known")
    who = speakers[0]
    if os.geteuid() not in (0, who.uid):
        return Unseen(f"only root can try as user {who.uid}")
    command = [*_program(), "--config", config, "--check", "--exabgp-config="]
    root = os.geteuid() == 0
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            cwd="/",
            user=who.uid if root else None,
            group=who.gid if root else None,
            extra_groups=who.groups if root else None,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        return Trial(" ".join(command), 1, str(exc))
    output = " ".join((done.stdout + done.stderr).split())
    return Trial(f"as user {who.uid}: {' '.join(command)}", done.returncode, output[:300])


def _program() -> list[str]:
    beside = Path(sys.executable).with_name("anycastlb-bridge")
    return [str(beside)] if beside.exists() else [sys.executable, "-P", "-m", "anycastlb.bridge"]
