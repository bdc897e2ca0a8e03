"""Finds a Consul server program to test against: the one on PATH, else Debian's last package of it, fetched once.

    python3 tests/rig/consul.py         prints the path of the program, fetching it if need be

Debian has no Consul after release 11; its 1.8.7 runs on later releases as it is, and newer ones behave alike in all
that the project uses. The package is pinned by checksum. This module starts no server.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian

SUITE = "bullseye"
PIN = "e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9"
"""SHA-256 of consul_1.8.7+dfsg1-2+b3_amd64.deb, by far the most common architecture."""


def find() -> Path | None:
    """The Consul program on PATH or in the cache, or None. Fetches nothing."""
    if program := shutil.which("consul"):
        return Path(program)
    root = debian.cached(SUITE, "consul", PIN)
    return root / "usr/bin/consul" if root else None


def obtain() -> Path:
    """The Consul program, fetched if it is not there. Raises ``debian.Unavailable``."""
    if program := find():
        return program
    try:
        return debian.fetch(SUITE, ["consul"], {"consul": PIN})["consul"] / "usr/bin/consul"
    except debian.Unavailable as exc:
        raise debian.Unavailable(f"no Consul: {exc}. Or put any consul (1.8 or later) on PATH") from exc


if __name__ == "__main__":
    try:
        print(obtain())
    except debian.Unavailable as failure:
        sys.exit(f"consul: {failure}")
