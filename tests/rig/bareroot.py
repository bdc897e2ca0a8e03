"""Makes a bare Debian as a tar file: a machine after a minimal installation.

    python3 tests/rig/bareroot.py [bookworm|trixie]...

It prints the path of each tar file, which it makes if need be; without a release, of the one this machine runs.

It has systemd as its init, no Python and nothing of ours. The packages that ours depends on are in its apt cache, for
the test kernel has no network; they are not installed. Made by mmdebstrap from the mirror that the machine's own apt
uses, as any user who may make namespaces. This module starts nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
"""The releases that a node can be of, and the version of Python that each has."""
MACHINE = ("systemd-sysv",)
"""What makes a machine of a minimal root."""
NEEDED = ("python3", "kmod", "libstdc++6", "haproxy")
"""What our package asks apt for, and what docs/INSTALL.md does."""


def release() -> str:
    """The code name of this machine's Debian. Raises ``debian.Unavailable`` on anything else."""
    path = Path("/etc/os-release")
    match = re.search(r"^VERSION_CODENAME=\"?(\w+)", path.read_text() if path.exists() else "", re.MULTILINE)
    if match is None:
        raise debian.Unavailable("this machine's /etc/os-release names no release")
    return match[1]


def releases() -> tuple[str, ...]:
    """Those that bare machines are made of: as ``ANYCASTLB_RELEASES`` says, or else the one of this machine."""
    if chosen := os.environ.get("ANYCASTLB_RELEASES", "").split():
        return tuple(chosen)
    with contextlib.suppress(debian.Unavailable):
        return (release(),)
    return ("unknown",)


def _name(suite: str) -> str:
    """Of the tar file: another one, if other packages are to be in it."""
    packages = hashlib.sha256(repr((MACHINE, NEEDED)).encode()).hexdigest()[:8]
    return f"{suite}-{packages}.tar"


def find(suite: str | None = None) -> Path | None:
    path = debian.cache() / "bareroot" / _name(suite or release())
    return path if path.exists() else None


def strap(target: Path, suite: str, *options: str, privilege: Sequence[str] = ()) -> None:
    """A minimal Debian in a directory, or in a tar file if it is named so. Raises ``debian.Unavailable``."""
    if shutil.which("mmdebstrap") is None:
        raise debian.Unavailable("no mmdebstrap; install it: apt-get install --no-install-recommends mmdebstrap")
    mirrors = debian.mirrors()
    if not mirrors:
        raise debian.Unavailable("this machine's apt has no Debian source; name one in ANYCASTLB_DEBIAN_MIRROR")
    # As root it mounts /proc in the new root, and may leave it there: then only in a place that ends with it.
    alone = ("unshare", "--mount") if privilege or os.geteuid() == 0 else ()
    arguments = ("--quiet", "--variant=minbase", *options, suite, str(target), mirrors[0])
    command = [*privilege, *alone, "mmdebstrap", *arguments]
    done = subprocess.run(command, check=False, text=True, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise debian.Unavailable(f"mmdebstrap ended with status {done.returncode}: {done.stderr[-2000:]}")


def obtain(suite: str | None = None) -> Path:
    """The tar file, made if it is not there. Raises ``debian.Unavailable``."""
    suite = suite or release()
    if tree := find(suite):
        return tree
    with debian.locked(debian.cache() / "bareroot") as shelf:
        if tree := find(suite):
            return tree
        path = shelf / _name(suite)
        draft = path.with_suffix(".new.tar")
        fetch = "apt-get -q -y --download-only -o APT::Install-Recommends=true install"
        download = f'chroot "$1" apt-get clean; chroot "$1" {fetch} {" ".join(NEEDED)}'
        options = ("--skip=cleanup/apt", f"--include={','.join(MACHINE)}", f"--customize-hook={download}")
        strap(draft, suite, *options)
        draft.rename(path)
        for other in set(shelf.glob(f"{suite}*.tar")) - {path}:
            other.unlink()
        return path


if __name__ == "__main__":
    try:
        for wanted in sys.argv[1:] or [release()]:
            print(obtain(wanted))
    except debian.Unavailable as failure:
        sys.exit(f"bareroot: {failure}")
