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
MAX_CONFIG = 4 * 1024 * 1024
"""Bytes of exabgp.conf that are looked at."""
TIMEOUT = 20.0
UNIX_ROW = re.compile(
    r"[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} (?P<flags>[0-9A-F]{8}) [0-9]{4} (?P<state>[0-9]{2}) +[0-9]+ (?P<path>/.*)",
    re.ASCII,
)
"""The name of a socket may have line breaks in it, and so make any row; not every row is one of the kernel's."""
BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""The environment of the trial: the one who may look at it is not the one who called the doctor."""


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
    if program is None or not _is_installed(program):
        return "", ""
    for argument in ("version", "--version"):  # 5 and 4
        try:
            done = subprocess.run(
                [program, argument],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if version := re.search(r"ExaBGP\s*:\s*(\S+)", done.stdout + done.stderr):
            return version[1], program
    return "", ""


def _is_installed(program: str) -> bool:
    """Is it in a directory of root's or of this user's that not everybody may write to? A PATH may name others."""
    try:
        found = [Path(program).stat(), Path(program).parent.stat()]
    except OSError:
        return False
    mine = all(status.st_uid in (0, os.geteuid()) and not status.st_mode & stat.S_IWOTH for status in found)
    return mine and Path(program).is_absolute()


def _text(path: str) -> str | Unseen:
    """The path is the word of whoever started a process: behind it may be a file of the kernel's that has no end, or
    whose reader waits for ever."""
    data = b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        return Unseen(f"{path}: {exc.strerror}")
    try:
        while len(data) <= MAX_CONFIG and (piece := os.read(descriptor, MAX_CONFIG)):
            data += piece
    except OSError as exc:
        return Unseen(f"{path}: {exc.strerror}")
    finally:
        os.close(descriptor)
    if len(data) > MAX_CONFIG:
        return Unseen(f"{path}: more than {MAX_CONFIG} bytes, which no configuration has")
    return data.decode(errors="replace")


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
        if (match := UNIX_ROW.fullmatch(row)) and match["path"] == path:
            listening |= bool(int(match["flags"], 16) & 0x10000)  # __SO_ACCEPTCON
            connections += match["state"] == "03"  # SS_CONNECTED
    return listening, connections


def _trial(config: str, speakers: Sequence[Process]) -> Trial | Unseen:
    """Run the bridge's own check as the user of ExaBGP. The program is the one that belongs to this one: the command
    line of a process is the word of whoever started it, and root must not run it.

    That user may stop the trial and make it do anything (ptrace), and "exabgp" is what anybody may call a process. So
    it has nothing of root's: no terminal into which it could type, no environment with a token in it, no open file.
    """
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
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=BARE,
            umask=0o077,
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
