"""The first process in a test kernel: makes the place usable, runs the command, and reports how it ended.

Run as pid 1 by ``testkernel.py``, by the system's Python without any site directory, either in a kernel of its own
(which has nothing mounted but the host's file tree) or in fresh namespaces of the host's kernel. Its only argument is
the job directory. Standard library only; it knows nothing of the project.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import tty
from pathlib import Path
from typing import Any

OPEN_FILES = 65536
"""RLIMIT_NOFILE inside; the packaged kernel's own default of 1024 is too low for a thousand connections."""
GLANCE = 0.2
"""Seconds between looks for a signal that the runner wants delivered; file notification does not cross the kernels."""
POWER_OFF = 0x4321FEDC
DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
"""What udev would make in a /dev that has only what the kernel puts there."""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, target: str, data: str = "") -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    if libc.mount(kind.encode(), target.encode(), kind.encode(), 0, data.encode()) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot mount {kind}: {os.strerror(error)}", target)


def furnish(job: dict[str, Any]) -> None:
    """Mounts, directories, limits, host name and loopback: what an ordinary machine has after boot."""
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    mount("tmpfs", "/run", "mode=755")
    for directory in ("/run/netns", "/run/lock", "/run/tmp"):
        Path(directory).mkdir()
    Path("/run/tmp").chmod(0o1777)
    if job["consoles"]:
        mount("devpts", "/dev/pts", "mode=620,ptmxmode=666")
        mount("tmpfs", "/dev/shm", "mode=1777")
        offer_modules(Path(job["modules_tree"]))
    for name, target in DEVICE_LINKS.items():
        with contextlib.suppress(FileExistsError):
            Path("/dev", name).symlink_to(target)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if os.geteuid() == 0 else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    socket.sethostname("testkernel")
    raise_loopback()


def offer_modules(tree: Path) -> None:
    """Let modprobe, and the kernel when something asks for a feature, find the modules unpacked in ``tree``."""
    release = os.uname().release
    shelf = Path("/run/modules/lib/modules")
    shelf.mkdir(parents=True)
    (shelf / release).symlink_to(tree / release)
    wrapper = Path("/run/modprobe")
    wrapper.write_text('#!/bin/sh\nPATH=$PATH:/usr/sbin:/sbin exec modprobe -d /run/modules "$@"\n')
    wrapper.chmod(0o755)
    Path("/proc/sys/kernel/modprobe").write_text(str(wrapper))


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def load(modules: list[str]) -> None:
    """Load modules of a kernel of our own; the host's are loaded by the runner, outside."""
    if modules:
        done = subprocess.run(["/run/modprobe", "-a", *modules], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(
                f"cannot load kernel modules {', '.join(modules)}: {done.stderr.strip()} (is kmod installed?)"
            )


def attach(job: dict[str, Any]) -> None:
    """Give this process the kernel's consoles as its standard streams: the first is the screen, the second the errors.

    Without a shell they pass bytes through unchanged. With one the first is a terminal as a login would find it, for
    then the host's terminal is the one that passes everything through.
    """
    shell = job["shell"]
    screen, errors = job["consoles"]
    for stream, name in enumerate((screen, screen, screen) if shell else ("null", screen, errors)):
        console = os.open(f"/dev/{device(name)}", (os.O_RDWR if name != errors else os.O_WRONLY) | os.O_NOCTTY)
        if console != stream:
            os.dup2(console, stream)
            os.close(console)
    for stream in (1, 2):
        if os.isatty(stream):
            if not shell:
                tty.setraw(stream)
            fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", job["rows"], job["columns"], 0, 0))


def device(name: str) -> str:
    """The file in /dev of a console: of a port of QEMU's, by the name that it was given there."""
    for port in Path("/sys/class/virtio-ports").glob("*/name"):
        if port.read_text().strip() == name:
            return port.parent.name
    return name


def lend() -> None:
    """Put a terminal of our own between the host's and the command, which could not be in charge of the host's."""
    master, slave = os.openpty()
    keyboard, screen = os.dup(0), os.dup(1)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, fcntl.ioctl(keyboard, termios.TIOCGWINSZ, bytes(8)))
    for stream in (0, 1, 2):
        os.dup2(slave, stream)
    os.close(slave)

    def relay(source: int, sink: int) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(source, 4096):
                while data:
                    data = data[os.write(sink, data) :]

    for ends in ((keyboard, master), (master, screen)):
        threading.Thread(target=relay, args=ends, daemon=True).start()


def start(job: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own, with the variables and directory of the runner's caller."""

    def settle() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        if job["shell"]:
            with contextlib.suppress(OSError):
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        job["command"], cwd=job["cwd"], env=job["environment"], start_new_session=True, preexec_fn=settle
    )


def follow(child: subprocess.Popen[bytes], orders: Path) -> int:
    """Wait for the command; its exit code, 128+N for signal N. Reaps orphans and delivers ordered signals meanwhile."""
    while True:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == child.pid:
                    code = os.waitstatus_to_exitcode(ended[1])
                    return 128 - code if code < 0 else code
        signal.sigtimedwait([signal.SIGCHLD], GLANCE)
        with contextlib.suppress(OSError, ValueError):
            number = int(orders.read_text())
            orders.unlink()
            os.killpg(child.pid, number)


def perform(place: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Everything but the end. A fault before the command starts is an ``error``, not an exit code."""
    try:
        furnish(job)
        if job["consoles"]:
            attach(job)
            load(job["modules"])
        elif job["shell"]:
            lend()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        child = start(job)  # kept, for a discarded Popen reaps its process behind our back
    except FileNotFoundError as exc:
        return {"code": 127, "error": f"no such command or directory: {exc.filename}"}
    except PermissionError as exc:
        return {"code": 126, "error": str(exc)}
    except Exception as exc:
        return {"code": 125, "error": str(exc)}
    return {"code": follow(child, place / "order"), "error": ""}


def drain() -> None:
    """Wait until what was written has left the terminals."""
    for stream in (1, 2):
        with contextlib.suppress(termios.error):
            termios.tcdrain(stream)


def main() -> None:
    place = Path(sys.argv[1])
    job = json.loads((place / "job.json").read_text())
    result = perform(place, job)
    drain()
    (place / "result.json").write_text(json.dumps(result))
    if job["consoles"]:
        os.sync()
        libc.reboot(POWER_OFF)
    os._exit(0)


if __name__ == "__main__":
    main()
