"""Builds the project's Debian package for the tests, and the same once more as if it were the next version.

    python3 tests/rig/package.py         builds both, and prints the first one's path

Built anew only when something that goes into it has changed. They lie in the cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian

PARTS = ("anycastlb", "configs", "exabgp", "docs", "pyproject.toml", "README.md", "CHANGELOG.md")


def shelf() -> Path:
    return debian.cache() / "package"


def state() -> str:
    """A digest of everything that goes into the package."""
    digest = hashlib.sha256()
    for part in PARTS:
        top = debian.REPOSITORY / part
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(debian.REPOSITORY)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def find() -> Path:
    """The package of these sources. Raises ``debian.Unavailable``."""
    return _one("anycastlb_*.deb")


def newer() -> Path:
    """The same, with a higher version. Raises ``debian.Unavailable``."""
    return _one("newer/anycastlb_*.deb")


def _one(pattern: str) -> Path:
    stamp = shelf() / "state"
    found = sorted(shelf().glob(pattern))
    if not found or not stamp.exists() or stamp.read_text() != state():
        raise debian.Unavailable(
            "no package of these sources is built; build it: .venv/bin/python tests/rig/package.py"
        )
    return found[0]


def build() -> Path:
    """Raises ``debian.Unavailable``."""
    try:
        return find()
    except debian.Unavailable:
        pass
    with debian.locked(shelf()) as place:
        now = state()
        for old in [*place.glob("*.deb"), place / "newer", place / "state"]:
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        _run([str(debian.REPOSITORY / "configs/debian/build.sh"), sys.executable], {"DEB_FOLDER": str(place)})
        (made,) = place.glob("anycastlb_*.deb")
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder, "tree")
            _run(["dpkg-deb", "-R", str(made), str(tree)])
            control = tree / "DEBIAN/control"
            text = control.read_text()
            version = text.partition("Version: ")[2].partition("\n")[0]
            control.write_text(text.replace(f"Version: {version}\n", f"Version: {version}+next\n"))
            (place / "newer").mkdir()
            _run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(place / "newer")])
        (place / "state").write_text(now)
        return made


def _run(command: list[str], more: dict[str, str] | None = None) -> None:
    environment = {**os.environ, **(more or {})}
    done = subprocess.run(command, check=False, text=True, capture_output=True, env=environment)
    if done.returncode != 0:
        raise debian.Unavailable(f"{command[0]} ended with status {done.returncode}: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    try:
        print(build())
    except debian.Unavailable as failure:
        sys.exit(f"package: {failure}")
