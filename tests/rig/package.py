"""Builds the project's Debian packages for the tests: one for each release that a node can be of, and each once more as
if it were the next version.

    python3 tests/rig/package.py [bookworm|trixie]...    builds them, and prints the path of each; without a release, of
                                                         the one this machine runs

That of this machine's own release is built here. Another is built in a bare root of its release, by the commands of
docs/INSTALL.md, which needs root or a sudo that asks no password. They are built anew only when something that goes
into them has changed, and lie in the cache.
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

from tests.rig import bareroot, debian, document, rootfs, wheels

PARTS = ("anycastlb", "configs", "exabgp", "docs", "pyproject.toml", "README.md", "CHANGELOG.md")
BUILDING = (*PARTS, "Makefile", "tests/rig/setup.sh", "LICENSE")
"""What a checkout must have for a package to be built in it."""
SCRIPT = """
apt-get -qq update && apt-get -qq -y install git >/dev/null
cp -r /srv/sources /srv/repository && cd /srv/repository && git init -q && git add .
git -c user.name=builder -c user.email=builder@localhost commit -qm sources
cd /root
REPOSITORY=/srv/repository
"""
"""What comes before the commands of the document: it makes a repository of the sources."""


def shelf(suite: str) -> Path:
    return debian.cache() / "package" / suite


def state() -> str:
    """A digest of everything that goes into the package."""
    digest = hashlib.sha256()
    for part in PARTS:
        top = debian.REPOSITORY / part
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(debian.REPOSITORY)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def find(suite: str) -> Path:
    """The package of these sources for a release. Raises ``debian.Unavailable``."""
    return _one(suite, "anycastlb_*.deb")


def newer(suite: str) -> Path:
    """The same, with a higher version. Raises ``debian.Unavailable``."""
    return _one(suite, "newer/anycastlb_*.deb")


def _one(suite: str, pattern: str) -> Path:
    stamp = shelf(suite) / "state"
    files = sorted(shelf(suite).glob(pattern))
    if not files or not stamp.exists() or stamp.read_text() != state():
        raise debian.Unavailable(
            f"no package of these sources is built for {suite}; build it: .venv/bin/python tests/rig/package.py {suite}"
        )
    return files[0]


def build(suite: str) -> Path:
    """The package for a release, built if it is not there. Raises ``debian.Unavailable``."""
    try:
        return find(suite)
    except debian.Unavailable:
        pass
    with debian.locked(shelf(suite)) as place:
        now = state()
        for old in [*place.glob("*.deb"), place / "newer", place / "state"]:
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        if suite == bareroot.release():
            _run([str(debian.REPOSITORY / "configs/debian/build.sh"), sys.executable], {"DEB_FOLDER": str(place)})
        else:
            _build_in_a_root(suite, place)
        (made,) = place.glob("anycastlb_*.deb")
        _renew(made, place / "newer")
        (place / "state").write_text(now)
        return made


def _build_in_a_root(suite: str, place: Path) -> None:
    """By the commands of docs/INSTALL.md for it, in a bare root of the release, where pip finds what it needs in a
    directory."""
    with tempfile.TemporaryDirectory(prefix=".building.", dir=place) as scratch:
        sources = Path(scratch, "sources")
        for part in BUILDING:
            (sources / part).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (debian.REPOSITORY / part).is_dir() else shutil.copy2
            copy(debian.REPOSITORY / part, sources / part)
        root = rootfs.bare(suite).copy(Path(scratch, "root"))
        try:
            house = wheels.obtain(bareroot.PYTHONS[suite], wheels.requirements("bgp", "grpc"))
            root.binds.update({"/srv/sources": (str(sources), "ro"), "/srv/wheels": (str(house), "ro")})
            script = SCRIPT + "".join(box.script for box in document.boxes() if box.where == "builder")
            offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels"}
            done = root.run("bash", "-ec", script, env=offline, timeout=1800)
            if done.returncode != 0:
                raise debian.Unavailable(f"the package for {suite} cannot be built: {done.stdout[-3000:]}")
            for made in root.file("/root/anycastlb/dist").glob("*.deb"):
                shutil.copy(made, place)
        finally:
            root.remove()


def _renew(made: Path, folder: Path) -> None:
    """The same package as the next version, in a folder of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        _run(["dpkg-deb", "-R", str(made), str(tree)])
        control = tree / "DEBIAN/control"
        text = control.read_text()
        version = text.partition("Version: ")[2].partition("\n")[0]
        control.write_text(text.replace(f"Version: {version}\n", f"Version: {version}+next\n"))
        folder.mkdir()
        _run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(folder)])


def _run(command: list[str], more: dict[str, str] | None = None) -> None:
    environment = {**os.environ, **(more or {})}
    done = subprocess.run(command, check=False, text=True, capture_output=True, env=environment)
    if done.returncode != 0:
        raise debian.Unavailable(f"{command[0]} ended with status {done.returncode}: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    try:
        for wanted in sys.argv[1:] or [bareroot.release()]:
            print(build(wanted))
    except debian.Unavailable as failure:
        sys.exit(f"package: {failure}")
