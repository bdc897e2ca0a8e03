"""Debian's own kernels as test kernels: booted by QEMU, over the machine's own file tree.

    python3 tests/rig/virtual.py debian-13...    have these kernels ready, and what boots them

Each is the kernel of a Debian release as its package ships it, not a cloud flavour, with two processors, no network
card, and the machine's file tree over 9p. QEMU uses the processor's virtualisation where this user may, and emulates it
otherwise, which takes several times as long. Kernels and QEMU are unpacked into the cache, never installed. This module
starts nothing and knows nothing of what runs inside.
"""

from __future__ import annotations

import contextlib
import functools
import lzma
import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import bareroot, debian, programs

SUITES = {"debian-12": "bookworm", "debian-13": "trixie"}
"""The kernels that can be had, by the release they are of."""
EMULATOR = "qemu-system-x86_64"
FIRMWARE = {"qemu-system-data": "usr/share/qemu", "seabios": "usr/share/seabios"}
PROCESSORS = 2
ACCELERATED = ("-accel", "kvm", "-cpu", "host")
EMULATED = ("-accel", "tcg,thread=single", "-cpu", "max")
"""Both processors take turns in one thread. With one each, a kernel was seen to die while it booted on a busy machine:
it met a breakpoint ("Oops: int3"), as it sets them while it patches its own code, and knew nothing of it."""
PROBE = 20.0
"""Seconds within which a kernel must have booted and ended, for acceleration to be worth using."""
PROBE_MEMORY = 256 << 20
PORTS = ("out", "err")
"""The consoles inside, by the names of QEMU's ports: what is printed, and the errors."""
NEEDED = ("virtio_pci", "9pnet_virtio", "9p", "virtio_console")
"""The modules without which the file tree cannot be mounted, and nothing that is printed comes out."""
INIT = """#!/bin/busybox sh
# Mounts the machine's file tree, and goes on in it.
for module in {modules}; do /bin/busybox insmod /modules/$module.ko || echo "cannot load $module"; done
/bin/busybox mount -t 9p -o {options},cache=loose machine /machine
/bin/busybox mount -t 9p -o {options},cache=none place /machine{place}
/bin/busybox mount -t devtmpfs devtmpfs /machine/dev
exec /bin/busybox switch_root /machine /bin/sh {starter}
"""
BOOT = "console=ttyS0 quiet loglevel=6 panic=-1 no_timer_check"
"""The kernel's parameters. It checks its timer by counting ticks, of which it sees none while the machine is busy."""
OPTIONS = "trans=virtio,version=9p2000.L,msize=512000"


@dataclass(frozen=True)
class Kernel:
    """A kernel that is unpacked."""

    release: str
    image: Path
    modules: Path
    """the directory that holds its modules, by release, and says what they depend on"""


def find(name: str) -> Kernel | None:
    """The kernel, if it and all that boots it is here. Fetches nothing."""
    packages = ("busybox-static", *FIRMWARE)
    complete = programs.find(EMULATOR) and all(debian.cached(bareroot.release(), package) for package in packages)
    return unpacked(SUITES[name]) if complete else None


def fetch(name: str) -> Kernel:
    """The kernel ``debian-12`` or ``debian-13``, and all that boots it. Raises ``debian.Unavailable``."""
    suite = SUITES[name]
    programs.obtain([EMULATOR])
    debian.fetch(bareroot.release(), [*FIRMWARE, "busybox-static"])
    if (found := unpacked(suite)) is None:
        with debian.locked(debian.cache() / "debian" / suite) as shelf, debian.listed(suite, shelf) as listing:
            listing.download([package(listing)], {})
        found = unpacked(suite)
    if found is None:
        raise debian.Unavailable(f"the kernel package of {suite} was fetched and holds no kernel: not the layout known")
    return found


def package(listing: debian.Listing) -> str:
    """The name of the package with the kernel that ``linux-image-amd64`` stands for."""
    names = [name for name in listing.closure(["linux-image-amd64"]) if re.match(r"linux-image-\d", name)]
    if not names:
        raise debian.Unavailable(f"{listing.suite} names no kernel for linux-image-amd64")
    return names[0]


def unpacked(suite: str) -> Kernel | None:
    """The kernel of the suite that was unpacked last, or None."""
    shelf = debian.cache() / "debian" / suite
    roots = sorted(path / "root" for path in shelf.glob("linux-image-*") if path.is_symlink())
    for root in reversed(roots):
        image = next(root.glob("boot/vmlinuz-*"), None)
        tree = next((root / place for place in ("usr/lib/modules", "lib/modules") if (root / place).is_dir()), None)
        if image and tree:
            release = image.name.removeprefix("vmlinuz-")
            index(tree, release)
            return Kernel(release, image, tree)
    return None


def index(tree: Path, release: str) -> None:
    """Write what an installation of the package would write: which module depends on which."""
    if (tree / release / "modules.dep.bin").exists():
        return
    shelf = tree.parent / "indexed"
    (shelf / "lib").mkdir(parents=True, exist_ok=True)
    link = shelf / "lib/modules"
    if not link.is_symlink():
        link.symlink_to(tree)
    depmod = programs.find("depmod")
    if depmod is None:
        raise debian.Unavailable("no depmod; install kmod")
    subprocess.run([str(depmod), "-b", str(shelf), release], check=True, capture_output=True)


def closure(kernel: Kernel, names: tuple[str, ...]) -> list[Path]:
    """The files of these modules and of what they depend on, in the order in which they can be loaded."""
    tree = kernel.modules / kernel.release
    needs: dict[str, tuple[Path, list[str]]] = {}
    for line in (tree / "modules.dep").read_text().splitlines():
        file, _, others = line.partition(":")
        needs[stem(file)] = (tree / file, [stem(other) for other in others.split()])
    found: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in needs and name not in found:
            for other in needs[name][1]:
                add(other)
            found[name] = needs[name][0]

    for name in names:
        add(name)
    return list(found.values())


def stem(file: str) -> str:
    return file.rsplit("/", 1)[-1].split(".", 1)[0].replace("-", "_")


def initrd(kernel: Kernel, script: str) -> bytes:
    """The file tree that a kernel begins with: busybox, a few modules, and its first process (cpio, "newc" format)."""
    root = debian.fetch(bareroot.release(), ["busybox-static"])["busybox-static"]
    busybox = next(path for place in programs.PLACES if (path := root / place / "busybox").is_file())
    entries = [
        *((name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "modules", "machine")),
        ("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        ("init", stat.S_IFREG | 0o755, script.encode()),
        *((f"modules/{stem(file.name)}.ko", stat.S_IFREG | 0o644, plain(file)) for file in closure(kernel, NEEDED)),
        ("TRAILER!!!", 0, b""),
    ]
    return b"".join(piece for number, entry in enumerate(entries, 1) for piece in member(number, *entry))


def plain(file: Path) -> bytes:
    data = file.read_bytes()
    return lzma.decompress(data) if file.suffix == ".xz" else data


def member(number: int, name: str, mode: int, data: bytes) -> Iterator[bytes]:
    """A file of the archive: its header, its name and its bytes, each filled up to a multiple of four."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    yield head + bytes(-len(head) % 4)
    yield data + bytes(-len(data) % 4)


@functools.cache
def accelerated() -> bool:
    """Whether the processor's virtualisation boots this machine's kernels: tried once, as some hosts only claim to."""
    verdict = debian.cache() / "virtual" / f"accelerated-{boot()}"
    if not verdict.exists():
        verdict.parent.mkdir(parents=True, exist_ok=True)
        verdict.write_text("yes" if os.access("/dev/kvm", os.R_OK | os.W_OK) and boots() else "no")
    return verdict.read_text() == "yes"


def boot() -> str:
    """What names the time since this machine was booted."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def boots() -> bool:
    """Whether a kernel comes to its first process, and ends, under the processor's virtualisation."""
    kernel = fetch(next(iter(SUITES)))
    with tempfile.TemporaryDirectory(prefix="testkernel.") as scratch:
        archive = Path(scratch) / "initrd"
        archive.write_bytes(initrd(kernel, "#!/bin/busybox sh\n/bin/busybox poweroff -f\n"))
        options = machine(kernel, archive, PROBE_MEMORY, ACCELERATED)
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                options, check=False, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE
            )
            return done.returncode == 0
    return False


def command(kernel: Kernel, place: Path, memory: int, init: list[str]) -> list[str]:
    """QEMU's command line. ``place`` is the job directory, and ``init`` the first process inside."""
    starter = place / "init"
    starter.write_text(f"exec {shlex.join(init)} 2>{shlex.quote(str(place / 'init.err'))}\n")
    script = INIT.format(
        modules=" ".join(stem(file.name) for file in closure(kernel, NEEDED)),
        options=OPTIONS,
        place=place,
        starter=starter,
    )
    archive = place / "initrd"
    archive.write_bytes(initrd(kernel, script))
    return [
        *machine(kernel, archive, memory, ACCELERATED if accelerated() else EMULATED),
        *("-serial", f"file:{place}/kernel.log"),
        *share("machine", Path("/")),
        *share("place", place),
        *("-device", "virtio-serial-pci"),
        *(word for name, path in zip(PORTS, ("/dev/stdout", "/dev/stderr"), strict=True) for word in port(name, path)),
    ]


def machine(kernel: Kernel, archive: Path, memory: int, processor: tuple[str, ...]) -> list[str]:
    """QEMU, a processor and memory, a kernel and its first file tree; nothing to speak to."""
    emulator = programs.find(EMULATOR)
    if emulator is None:
        raise debian.Unavailable(f"no {EMULATOR} on PATH or in {programs.directory()}")
    firmware = debian.fetch(bareroot.release(), list(FIRMWARE))
    return [
        str(emulator),
        *(word for name, path in FIRMWARE.items() for word in ("-L", str(firmware[name] / path))),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-machine", "q35"),
        *processor,
        *("-smp", str(PROCESSORS)),
        *("-m", f"{memory >> 20}M"),
        *("-kernel", str(kernel.image)),
        *("-initrd", str(archive)),
        *("-append", BOOT),
    ]


def share(tag: str, path: Path) -> list[str]:
    return [
        "-fsdev",
        f"local,id={tag},path={path},security_model={'passthrough' if os.geteuid() == 0 else 'none'},multidevs=remap",
        "-device",
        f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
    ]


def port(name: str, path: str) -> list[str]:
    return [
        "-chardev",
        f"file,id={name},path={path},append=on",
        "-device",
        f"virtserialport,chardev={name},name={name}",
    ]


def environment() -> dict[str, str]:
    """Variables for QEMU: where the modules of it are that the package keeps apart."""
    common = debian.cached(bareroot.release(), "qemu-system-common")
    modules = next(common.glob("usr/lib/*/qemu"), None) if common else None
    return {**os.environ, **({"QEMU_MODULE_DIR": str(modules)} if modules else {})}


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            print(f"{name}: {fetch(name).release}")
    except debian.Unavailable as failure:
        sys.exit(f"virtual: {failure}")
