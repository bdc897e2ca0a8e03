"""The packaged test kernel: Debian's user-mode-linux, a whole kernel that runs as one ordinary process.

Fetches it, makes it run on an older C library, and says how to start it. It needs no root and no virtualisation. Taken
from suite sid always: the one in Debian 13 (6.12) dies at its first system call on recent processors. This module
starts nothing and knows nothing of what runs inside.
"""

from __future__ import annotations

import mmap
import os
import shlex
import shutil
import tempfile
from pathlib import Path

from tests.rig import debian, elf

SUITE = "sid"
PACKAGES = ("user-mode-linux", "libc6")


def present() -> bool:
    return all(debian.cached(SUITE, name) for name in PACKAGES)


def fetch() -> Path:
    """The kernel program, ready to run. Raises ``debian.Unavailable``, ``elf.NotPatchable``."""
    roots = debian.fetch(SUITE, PACKAGES)
    original = roots["user-mode-linux"] / "usr/bin/linux.uml"
    loader = only(roots["libc6"], "usr/lib/*/ld-linux-x86-64.so.2")
    patched = original.with_name("linux.testkernel")
    # Compared each time, as the loader's path is absolute and the cache may have been moved, or either package renewed.
    if not patched.exists() or elf.interpreter(patched) != loader:
        with debian.locked(debian.cache() / "debian"):
            elf.redirect(original, patched, loader)
    return patched


def only(root: Path, pattern: str) -> Path:
    matches = sorted(root.glob(pattern))
    if not matches:
        raise debian.Unavailable(f"the package unpacked in {root} has no {pattern}: not the layout known here")
    return matches[0]


def modules() -> Path:
    """The directory that holds the kernel's modules, by release."""
    return only(debian.fetch(SUITE, PACKAGES)["user-mode-linux"], "usr/lib/uml/modules")


def environment(place: Path, memory: int) -> dict[str, str]:
    """Variables for the kernel process only: programs inside must not see the newer C library."""
    library = only(debian.fetch(SUITE, PACKAGES)["libc6"], "usr/lib/*/libc.so.6").parent
    return {"PATH": os.defpath, "HOME": str(place), "LD_LIBRARY_PATH": str(library), "TMPDIR": str(backing(memory))}


def backing(memory: int) -> Path:
    """A directory for the file that is the kernel's memory: with room for ``memory`` bytes, and not mounted noexec.

    Memory file systems come first. Containers often have a /dev/shm that is too small or noexec, or none.
    """
    places = [Path(place) for place in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()) if place]
    places.append(debian.cache())
    for place in places:
        if place.is_dir() and shutil.disk_usage(place).free >= memory and executable(place):
            return place
    raise debian.Unavailable(
        f"no directory for {memory >> 20} MiB of the test kernel's memory: tried {', '.join(map(str, places))}; "
        "each is missing, full, or mounted noexec. Free some space or give less with --memory"
    )


def executable(place: Path) -> bool:
    """Whether a file in ``place`` may be mapped for execution."""
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.truncate(mmap.PAGESIZE)
            mmap.mmap(probe.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return True


def command(kernel: Path, place: Path, memory: int, shell: bool, log: int, init: list[str]) -> list[str]:
    """The kernel's command line.

    ``place`` is the job directory, ``log`` the descriptor of a file for the kernel's own messages, which would
    otherwise stand between the command's output, and ``init`` the first process inside.
    """
    starter = place / "init"
    starter.write_text(f"exec {shlex.join(init)} 2>{shlex.quote(str(place / 'init.err'))}\n")
    consoles = ["con0=fd:0,fd:1", "con1=null"] if shell else ["con0=null,fd:1", "con1=null,fd:2"]
    return [
        str(kernel),
        f"mem={memory >> 20}M",
        "rootfstype=hostfs",
        "rootflags=/",
        "rw",
        "con=null",
        *consoles,
        f"con2=fd:{log}",
        "console=tty2",
        "quiet",
        "loglevel=6",
        "panic=-1",
        "seccomp=auto",
        f"uml_dir={place}/",
        "umid=kernel",
        "init=/bin/sh",  # and not the starter itself, for /tmp may be mounted noexec
        "--",
        str(starter),
    ]
