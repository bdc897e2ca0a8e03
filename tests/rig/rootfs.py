"""Makes a bare Debian root to try an installation in: a minimal Debian of this machine's own suite, from the
mirror that this machine's own apt uses, kept in the cache and copied for every use.

    python3 tests/rig/rootfs.py DIRECTORY [COMMAND...]    make one there, and run a command in it

A command in it runs as root with the root as its file tree, in mount, process and host-name namespaces of its own; with
the machine's network (a package has to come from somewhere), or with a network namespace of its own. Needs root, or a
sudo that asks no password. Nothing outside of the directory and the cache is written. Standard library only.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import bareroot, debian

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
ENTER = """set -e
root=$1; shift
mount --bind "$root" "$root" # only in a mount of its own may it make mount namespaces
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys" 2>/dev/null || true
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts" 2>/dev/null || true
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
hostname bare
while [ "$1" != -- ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
    shift 3
done
shift
exec chroot "$root" "$@"
"""
COPY = """set -e
mkdir -m 755 "$2"
cd "$1"
for part in $(ls -A); do
    [ "$part" != usr ] || ! cp -al usr "$2" 2>/dev/null || continue
    cp -ax --reflink=auto "$part" "$2"
done
"""


@functools.cache
def privilege() -> tuple[str, ...]:
    """What comes before a command that must run as root. Raises ``debian.Unavailable``."""
    if os.geteuid() == 0:
        return ()
    if shutil.which("sudo") and not subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode:
        return ("sudo", "-n")
    raise debian.Unavailable("only root can make a bare Debian root; run as root, or with a sudo that asks no password")


@dataclass(frozen=True)
class Rootfs:
    """A Debian root in a directory; what is bound into it is there for as long as a command runs."""

    path: Path
    suite: str
    binds: dict[str, tuple[str, str]] = field(default_factory=dict)
    """where in it -> (which file or directory of the machine, ``ro`` or ``rw``)"""

    def argv(self, *command: str, network: bool = True, env: Mapping[str, str] | None = None) -> list[str]:
        """The command that runs ``command`` inside: with the machine's network, or with none of it."""
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
        binds = [word for inside, (outside, mode) in self.binds.items() for word in (outside, inside, mode)]
        variables = [f"{name}={value}" for name, value in {**ENVIRONMENT, **(env or {})}.items()]
        enter = ["bash", "-c", ENTER, "enter", str(self.path), *binds, "--"]
        return [*privilege(), "unshare", *spaces, *enter, "/usr/bin/env", "-i", *variables, *command]

    def run(
        self, *command: str, network: bool = True, env: Mapping[str, str] | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; standard error goes where its output goes."""
        return subprocess.run(
            self.argv(*command, network=network, env=env),
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )

    def file(self, path: str) -> Path:
        """A file of it, as the machine sees it: ``file("/etc/hosts")``. Symbolic links are not followed for you."""
        return self.path / path.lstrip("/")

    def copy(self, directory: Path) -> Rootfs:
        """A copy of the whole in a directory that is not there yet. What lies under /usr is linked where that is
        possible, as packages replace their files there and write into none: this saves most of the work."""
        directory.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*privilege(), "bash", "-c", COPY, "copy", str(self.path), str(directory)], check=True)
        return Rootfs(directory, self.suite, dict(self.binds))

    def remove(self) -> None:
        subprocess.run([*privilege(), "rm", "-rf", "--one-file-system", str(self.path)], check=True)


def bare(suite: str | None = None) -> Rootfs:
    """The cached ``minbase`` of a suite (this machine's): to be copied, not to be changed."""
    return cached("minbase", suite, bootstrap)


def cached(name: str, suite: str | None, make: Callable[[Path, str], None]) -> Rootfs:
    """The root ``name`` in the cache, made by ``make(directory, suite)`` if it is not there; never a part of one."""
    suite = suite or bareroot.release()
    path = debian.cache() / "bare" / f"{suite}-{name}"
    if not path.exists():
        with debian.locked(debian.cache() / "bare" / f"{suite}-{name}.making"):
            if not path.exists():
                scratch = Path(tempfile.mkdtemp(prefix=".making.", dir=path.parent))
                try:
                    make(scratch / "root", suite)
                    (scratch / "root").rename(path)
                finally:
                    subprocess.run([*privilege(), "rm", "-rf", "--one-file-system", str(scratch)], check=True)
    return Rootfs(path, suite, archives(suite))


def archives(suite: str) -> dict[str, tuple[str, str]]:
    """What apt has downloaded, shared by all roots of a suite."""
    binds = {}
    for part in ("cache/apt/archives", "lib/apt/lists"):
        store = debian.cache() / "bare" / f"{suite}-{part.replace('/', '-')}"
        store.mkdir(parents=True, exist_ok=True)
        binds[f"/var/{part}"] = (str(store), "rw")
    return binds


def bootstrap(directory: Path, suite: str) -> None:
    """A minimal Debian, then what makes apt in it behave as the machine's own, and nothing in it start a service."""
    bareroot.strap(directory, suite, privilege=privilege())
    settings = apt_settings()
    write(directory / "etc/apt/apt.conf.d/90machine", settings + 'APT::Keep-Downloaded-Packages "true";\n')
    write(directory / "etc/dpkg/dpkg.cfg.d/90fast", "force-unsafe-io\n")
    write(directory / "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)


def apt_settings() -> str:
    """How the machine's apt fetches: its proxies, its patience, its view of the clock."""
    dump = subprocess.run(["apt-config", "dump", "Acquire"], check=True, text=True, capture_output=True).stdout
    lines = [line for line in dump.splitlines() if "::IndexTargets" not in line and "Languages" not in line]
    return "\n".join([*lines, 'Acquire::Languages "none";']) + "\n"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file that belongs to root."""
    subprocess.run([*privilege(), "tee", str(path)], check=True, text=True, input=text, stdout=subprocess.DEVNULL)
    subprocess.run([*privilege(), "chmod", f"{mode:o}", str(path)], check=True)


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        sys.exit(__doc__)
    directory = Path(arguments[0]).absolute()
    root = bare() if directory.exists() else bare().copy(directory)
    root = Rootfs(directory, root.suite, root.binds)
    print(f"{root.suite} in {directory}", file=sys.stderr)
    return subprocess.run(root.argv(*arguments[1:])).returncode if arguments[1:] else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except debian.Unavailable as failure:
        sys.exit(f"rootfs: {failure}")
