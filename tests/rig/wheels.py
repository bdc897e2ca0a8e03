"""Python packages as wheels in the cache, for the Python of another Debian, from where this machine's pip gets them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.rig import debian


def requirements(*extras: str) -> list[str]:
    """What this project needs to be built and to run with these extras, as ``pyproject.toml`` has it."""
    document = tomllib.loads((debian.REPOSITORY / "pyproject.toml").read_text())
    project = document["project"]
    needed = [*document["build-system"]["requires"], *project["dependencies"]]
    return needed + [one for extra in extras for one in project["optional-dependencies"][extra]]


def obtain(version: str, wanted: Sequence[str]) -> Path:
    """The directory that holds these and what they depend on, for Python ``version`` ("3.13"), on this machine's
    architecture. Raises ``debian.Unavailable``."""
    with debian.locked(debian.cache() / f"wheels-{version}") as house:
        stamp = house / "requirements"
        have = set(stamp.read_text().splitlines()) if stamp.exists() else set()
        if missing := sorted(set(wanted) - have):
            download = [sys.executable, "-m", "pip", "--quiet", "download", "--dest", str(house)]
            only = ["--only-binary=:all:", "--python-version", version]
            done = subprocess.run(
                [*download, *only, *missing], check=False, capture_output=True, text=True, timeout=900
            )
            if done.returncode != 0:
                raise debian.Unavailable(f"pip cannot download wheels for Python {version}: {done.stderr[-2000:]}")
            stamp.write_text("\n".join(sorted(have | set(missing))))
        return house
