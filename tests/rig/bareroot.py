"""Makes a bare Debian of the release this machine runs, as a tar file: a machine after a minimal installation.

    python3 tests/rig/bareroot.py         prints the path of the tar file, making it if need be

It has systemd as its init, no Python and nothing of ours. The packages that ours depends on are in its apt cache, for
the test kernel has no network; they are not installed. Made by mmdebstrap from the mirror that the machine's own apt
uses, as any user who may make namespaces. This module starts nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian

MACHINE = ("systemd-sysv",)
"""What makes a machine of a minimal root."""
NEEDED = ("python3", "kmod", "libstdc++6")
"""What our package asks apt for."""


def release() -> str:
    """The code name of this machine's Debian. Raises ``debian.Unavailable`` on anything else."""
    path = Path("/etc/os-release")
    found = re.search(r"^VERSION_CODENAME=\"?(\w+)", path.read_text() if path.exists() else "", re.MULTILINE)
    if found is None:
        raise debian.Unavailable("this machine's /etc/os-release names no release")
    return found[1]


def find() -> Path | None:
    path = debian.cache() / "bareroot" / f"{release()}.tar"
    return path if path.exists() else None


def strap(target: Path, suite: str, *options: str, privilege: Sequence[str] = ()) -> None:
    """A minimal Debian in a directory, or in a tar file if it is named so. Raises ``debian.Unavailable``."""
    if shutil.which("mmdebstrap") is None:
        raise debian.Unavailable("no mmdebstrap; install it: apt-get install --no-install-recommends mmdebstrap")
    mirrors = debian.mirrors()
    if not mirrors:
        raise debian.Unavailable("this machine's apt has no Debian source; name one in ANYCASTLB_DEBIAN_MIRROR")
    command = [*privilege, "mmdebstrap", "--quiet", "--variant=minbase", *options, suite, str(target), mirrors[0]]
    done = subprocess.run(command, check=False, text=True, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise debian.Unavailable(f"mmdebstrap ended with status {done.returncode}: {done.stderr[-2000:]}")


def obtain() -> Path:
    """The tar file, made if it is not there. Raises ``debian.Unavailable``."""
    if found := find():
        return found
    with debian.locked(debian.cache() / "bareroot") as shelf:
        if found := find():
            return found
        path = shelf / f"{release()}.tar"
        draft = path.with_suffix(".new.tar")
        fetch = "apt-get -q -y --download-only -o APT::Install-Recommends=true install"
        download = f'chroot "$1" apt-get clean; chroot "$1" {fetch} {" ".join(NEEDED)}'
        options = ("--skip=cleanup/apt", f"--include={','.join(MACHINE)}", f"--customize-hook={download}")
        strap(draft, release(), *options)
        draft.rename(path)
        return path


if __name__ == "__main__":
    try:
        print(obtain())
    except debian.Unavailable as failure:
        sys.exit(f"bareroot: {failure}")
