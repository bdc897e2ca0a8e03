"""Finds the programs of Prometheus to test against: those on PATH, else Debian's package of it, fetched once.

    python3 tests/rig/prometheus.py         prints the paths of promtool and prometheus, fetching them if need be

The package is unpacked, not installed, so no service comes with it. It is pinned by checksum. This module starts no
server.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian

SUITE = "bookworm"
PIN = "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55"
"""SHA-256 of prometheus_2.42.0+ds-5+deb12u1_amd64.deb, by far the most common architecture."""
PROGRAMS = ("promtool", "prometheus")


def find(program: str) -> Path | None:
    """``promtool`` or ``prometheus`` on PATH or in the cache, or None. Fetches nothing."""
    if path := shutil.which(program):
        return Path(path)
    root = debian.cached(SUITE, "prometheus", PIN)
    return root / "usr/bin" / program if root else None


def obtain() -> dict[str, Path]:
    """Both programs, fetched if they are not there. Raises ``debian.Unavailable``."""
    programs = {name: path for name in PROGRAMS if (path := find(name))}
    if len(programs) == len(PROGRAMS):
        return programs
    try:
        root = debian.fetch(SUITE, ["prometheus"], {"prometheus": PIN})["prometheus"]
    except debian.Unavailable as exc:
        raise debian.Unavailable(f"no Prometheus: {exc}. Or put any promtool and prometheus on PATH") from exc
    return {name: root / "usr/bin" / name for name in PROGRAMS}


if __name__ == "__main__":
    try:
        print(*obtain().values(), sep="\n")
    except debian.Unavailable as failure:
        sys.exit(f"prometheus: {failure}")
