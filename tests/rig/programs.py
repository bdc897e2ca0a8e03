"""Programs of Debian packages that would bring a service: unpacked into the cache instead of installed.

    python3 tests/rig/programs.py NAME...      has each of them ready that this machine has not installed

A package is unpacked together with the libraries of its that this machine has not installed, and
``CACHE/programs/SUITE/NAME`` starts the program with them. The packages are of this machine's own release, for they use
its C library. This module starts nothing. Standard library only.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import bareroot, debian

PACKAGES = {
    "bird": "bird2",
    "ipvsadm": "ipvsadm",
    "keepalived": "keepalived",
    "knotd": "knot",
    "mkfs.ext4": "e2fsprogs",
    "named": "bind9",
    "nginx": "nginx",
    "nsd": "nsd",
    "qemu-system-x86_64": "qemu-system-x86",
    "rsyslogd": "rsyslog",
    "vtysh": "frr",
}
"""The package that brings a program."""
PLACES = ("usr/sbin", "usr/bin", "usr/lib/frr", "sbin", "bin")
"""Where packages have their programs; a plain user's PATH leaves the first out."""
SCRIPT = """#!/bin/sh
# Written by tests/rig/programs.py
store=${{0%/*}}/../../debian/{suite}
export LD_LIBRARY_PATH={libraries} RSYSLOG_MODDIR="$store"/{modules}
exec "$store"/{program} "$@"
"""


def directory() -> Path:
    """The scripts that start the unpacked programs, which are of one release."""
    return debian.cache() / "programs" / platform.freedesktop_os_release().get("VERSION_CODENAME", "other")


def search_path() -> str:
    """``PATH``, the directories that a plain user's lacks, and last the unpacked programs."""
    given = os.environ.get("PATH", os.defpath).split(":")
    return ":".join(dict.fromkeys([*given, "/usr/local/sbin", *(f"/{place}" for place in PLACES), str(directory())]))


def find(name: str) -> Path | None:
    """The program, installed or unpacked, or None. Fetches nothing."""
    path = shutil.which(name, path=search_path())
    return Path(path) if path else None


def obtain(names: Sequence[str]) -> None:
    """Fetch those that are neither installed nor unpacked. Raises ``debian.Unavailable``."""
    if all(find(name) for name in names):
        return
    suite = bareroot.release()
    with debian.locked(debian.cache() / "debian" / suite) as shelf:
        if absent := [name for name in names if find(name) is None]:
            with debian.listed(suite, shelf) as listing:
                unpack(listing, sorted({PACKAGES[name] for name in absent}))


def unpack(listing: debian.Listing, packages: Sequence[str]) -> None:
    """Unpack the packages and the libraries of theirs that this machine lacks; then offer their programs."""
    closure, present = listing.closure(packages), installed()
    sources = {closure[name] for name in packages}
    # What comes from one source has to fit exactly, whatever version of it the machine may have.
    own = {name for name, version in closure.items() if version in sources}
    libraries = {name for name in closure.keys() - present if name.startswith("lib") and not name.endswith("-perl")}
    needed = sorted(own | libraries)
    if absent := [name for name in needed if debian.cached(listing.suite, name) is None]:
        listing.download(absent, {})
    for name in own:
        for place in PLACES:
            for program in (listing.shelf / name / "root" / place).glob("*"):
                if os.access(program, os.X_OK) and not program.is_dir():
                    offer(program, listing, needed)


def installed() -> set[str]:
    query = ["dpkg-query", "--showformat", "${db:Status-Status} ${Package}\n", "--show"]
    lines = subprocess.run(query, check=True, text=True, capture_output=True).stdout.splitlines()
    return {line.removeprefix("installed ") for line in lines if line.startswith("installed ")}


def offer(program: Path, listing: debian.Listing, packages: Iterable[str]) -> None:
    """Write the script that starts the program with the libraries of the packages."""
    roots = [listing.shelf / name / "root" for name in packages]
    folders = sorted({library.parent for root in roots for library in root.rglob("lib*.so*")})
    modules = next((path for root in roots for path in root.glob("usr/lib/*/rsyslog")), listing.shelf)
    script = SCRIPT.format(
        suite=listing.suite,
        libraries=":".join(f'"$store"/{folder.relative_to(listing.shelf)}' for folder in folders),
        modules=modules.relative_to(listing.shelf),
        program=program.relative_to(listing.shelf),
    )
    directory().mkdir(parents=True, exist_ok=True)
    draft = directory() / f".{program.name}.draft"
    draft.write_text(script)
    draft.chmod(0o755)
    draft.rename(directory() / program.name)


if __name__ == "__main__":
    try:
        obtain(sys.argv[1:])
    except debian.Unavailable as failure:
        sys.exit(f"programs: {failure}")
