"""The HAProxy of Debian 12 and of Debian 13, unpacked into the cache with all libraries of its own release.

    python3 tests/rig/haproxy.py            has both of them ready
    python3 tests/rig/haproxy.py own        has one of them ready: that of this machine's release, if it is one of them

Each runs on this machine whatever its release is, for it is pointed at the loader that comes with it. Nothing is
installed, and this module starts nothing. Standard library only.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian, elf, usermode

SUITES = {"haproxy-12": "bookworm", "haproxy-13": "trixie"}
"""2.6 and 3.0."""
SCRIPT = """#!/bin/sh
# Written by tests/rig/haproxy.py
export LD_LIBRARY_PATH={libraries}
exec {program} "$@"
"""


def shelf() -> Path:
    """Links in the cache may lead elsewhere, and the loader's path stands in the program as it is."""
    return debian.cache().resolve() / "haproxy"


def find(name: str) -> Path | None:
    """The script that starts the program, or None. Fetches nothing."""
    script, program = shelf() / name, shelf() / f"{name}.program"
    usable = script.exists() and program.exists() and elf.interpreter(program).exists()
    return script if usable else None


def obtain(name: str) -> Path:
    """The script that starts the program, which is fetched if it is not there. Raises ``debian.Unavailable``."""
    with debian.locked(shelf()):
        return find(name) or make(name, SUITES[name])


def make(name: str, suite: str) -> Path:
    with (
        debian.locked(debian.cache() / "debian" / suite) as packages,
        debian.listed(suite, packages.resolve()) as listing,
    ):
        needed = [package for package in listing.closure(["haproxy"]) if package.startswith(("lib", "haproxy"))]
        if absent := [package for package in needed if debian.cached(suite, package) is None]:
            listing.download(absent, {})
    roots = debian.fetch(suite, needed)
    loader = usermode.only(roots["libc6"], "**/ld-linux-*.so.*")
    program, script = shelf() / f"{name}.program", shelf() / name
    elf.redirect(roots["haproxy"] / "usr/sbin/haproxy", program, loader.resolve())
    folders = sorted({str(library.resolve().parent) for root in roots.values() for library in root.rglob("lib*.so*")})
    draft = script.with_name(f".{name}.draft")
    draft.write_text(SCRIPT.format(libraries=":".join(folders), program=program))
    draft.chmod(0o755)
    draft.rename(script)
    return script


def own() -> str:
    """The name of the one for which least has to be fetched."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    return next((name for name, suite in SUITES.items() if suite == codename), "haproxy-13")


if __name__ == "__main__":
    try:
        for each in [own()] if sys.argv[1:] == ["own"] else SUITES:
            print(obtain(each))
    except debian.Unavailable as failure:
        sys.exit(f"haproxy: {failure}")
