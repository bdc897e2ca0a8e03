"""Ways to harm a program, a cable, a disk or the clock of the lab. Each is a context: what it did ends with its block.

Nothing here imitates a fault: processes are stopped, descriptors and processes are limited by the kernel, packets are
dropped and delayed by it, disks are full, frozen or gone, and the clock is set. What would harm the host if the test
kernel were the host's needs a kernel of the lab's own (``own_kernel``).
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from tests.lab.namespaces import LabError, Namespace, run
from tests.lab.process import freeze, meanwhile, thaw

Pid = Callable[[], int]
"""Which process it is now; 0 while there is none. Raises ``LabError`` or ``OSError`` then, too."""
SLOW = (0.45, 0.05)
"""Seconds that a slow program is stopped, and that it runs, in turns: it gets a tenth of the time."""
_PIDFD_GETFD = 438
_GROUPS = Path("/run/tmp/cgroup")
_libc = ctypes.CDLL(None, use_errno=True)
_places = count(100)
"""Where a rule of ``tc`` stands: each in a place of its own, so that it can be taken out again alone."""


def own_kernel() -> bool:
    """Is the kernel that runs this the lab's own, and not the host's?"""
    return os.environ.get("TESTKERNEL") == "packaged"


# ------------------------------------------------------------ programs


def _living(which: Pid) -> int:
    with suppress(LabError, OSError):
        return which()
    return 0


@contextmanager
def stopped(which: Pid) -> Iterator[None]:
    """It hangs. Who does not wait for it may have put another in its place."""
    pid = which()
    freeze(pid)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            thaw(pid)


def slow(which: Pid) -> AbstractContextManager[None]:
    def starve(over: threading.Event) -> None:
        while not over.is_set():
            pid = _living(which)
            for number, pause in zip((signal.SIGSTOP, signal.SIGCONT), SLOW, strict=True):
                with suppress(ProcessLookupError):
                    if pid:
                        os.kill(pid, number)
                if number == signal.SIGSTOP:
                    over.wait(pause)
                else:
                    time.sleep(pause)

    return meanwhile(starve)


@contextmanager
def no_descriptors(which: Pid) -> Iterator[None]:
    """It can open nothing more: its limit is the lowest number that is free."""
    pid = which()
    lowest = next(number for number in count() if not os.path.lexists(f"/proc/{pid}/fd/{number}"))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def no_child(which: Pid) -> Iterator[None]:
    """The kernel lets it start no process and no thread more, as ``TasksMax`` of systemd does."""
    if not _GROUPS.is_dir():
        _GROUPS.mkdir(parents=True)
        run("mount", "-t", "cgroup2", "none", str(_GROUPS))
        (_GROUPS / "cgroup.subtree_control").write_text("+pids")
    pid = which()
    group = _GROUPS / f"lab-{pid}"
    group.mkdir()
    (group / "cgroup.procs").write_text(str(pid))
    (group / "pids.max").write_text((group / "pids.current").read_text())
    try:
        yield
    finally:
        while members := (group / "cgroup.procs").read_text().split():
            for member in members:
                with suppress(ProcessLookupError):
                    (_GROUPS / "cgroup.procs").write_text(member)
        group.rmdir()


# ------------------------------------------------------------ garbage


def noise(chance: random.Random) -> bytes:
    """Lines of bytes, of words of JSON and of something that is nearly right."""
    words = (b"{", b'"', b"[" * 2000, b"null", b"\xff\xfe\x00", b"done", b"error", b'{"exabgp": "5", "type":', b"1e999")
    lines = (b" ".join(chance.choices(words, k=chance.randint(1, 5))) for _ in range(chance.randint(1, 5)))
    return b"\n".join([*lines, chance.randbytes(chance.randint(1, 200)).replace(b"\n", b"")]) + b"\n"


def said_through_pipe(pid: int, descriptor: int, data: bytes) -> None:
    """As if the other end of this pipe of the process had said it."""
    with Path(f"/proc/{pid}/fd/{descriptor}").open("wb", buffering=0) as pipe:
        pipe.write(data)


def said_through_socket(pid: int, descriptor: int, data: bytes) -> None:
    """As if the process had said it through this socket."""
    handle = os.pidfd_open(pid)
    try:
        mine = _libc.syscall(_PIDFD_GETFD, handle, descriptor, 0)
        if mine < 0:
            raise OSError(ctypes.get_errno(), f"no descriptor {descriptor} of process {pid}")
        with socket.socket(fileno=mine) as link:
            link.sendall(data)
    finally:
        os.close(handle)


def said_to_port(namespace: Namespace, source: str, host: str, port: int, data: bytes) -> None:
    """By somebody who connects. Whether it is taken is the listener's business."""
    with namespace.inside():
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with link, suppress(OSError):
        link.settimeout(2)
        link.bind((source, 0))
        link.connect((host, port))
        link.sendall(data)
        link.recv(1000)


def said_to_path(path: Path, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as link, suppress(OSError):
        link.settimeout(2)
        link.connect(str(path))
        link.sendall(data)
        link.recv(1000)


# ------------------------------------------------------------ cables


@contextmanager
def dropped(namespace: Namespace, interface: str, *matches: Sequence[str]) -> Iterator[None]:
    """Nothing that matches comes through any more, in or out. A match: ``tc``'s words for packets that come in; for
    those that go out, ``src`` and ``dst`` are exchanged. Without one: nothing at all."""
    namespace.run("tc", "qdisc", "add", "dev", interface, "clsact", check=False)
    rules = []
    with ExitStack() as undo:
        for match in matches or [("protocol", "all", "matchall")]:
            for way in ("ingress", "egress"):
                place = ("dev", interface, way, "pref", str(next(_places)))
                words = [_turned(word) for word in match] if way == "egress" else match
                rules.append(("tc", "filter", "add", *place, *words, "action", "drop"))
                undo.callback(namespace.run, "tc", "filter", "del", *place, check=False)
        for rule in rules:
            namespace.run(*rule)
        yield


def _turned(word: str) -> str:
    ways = {"src": "dst", "dst": "src"}
    return next((ways[one] + word[3:] for one in ways if word.startswith(f"{one}_")), word)


@contextmanager
def delayed(namespace: Namespace, interface: str, time: str) -> Iterator[None]:
    """What leaves through it takes so much longer."""
    namespace.run("tc", "qdisc", "replace", "dev", interface, "root", "netem", "delay", time)
    try:
        yield
    finally:
        namespace.run("tc", "qdisc", "del", "dev", interface, "root")


# ------------------------------------------------------------ disks and the clock


@contextmanager
def disk(place: Path, size: str = "8M") -> Iterator[None]:
    """A file system of its own in place of this directory, with what was in it, which is there again afterwards."""
    image, inside = place.with_name(f"{place.name}.img"), _inside(place)
    run("/run/modprobe", "loop")
    inside.mkdir()
    run("truncate", "-s", size, str(image))
    run("mkfs.ext4", "-q", "-m", "0", str(image))
    run("mount", "-o", "loop", str(image), str(inside))
    shutil.copytree(place, inside, dirs_exist_ok=True)
    run("mount", "--bind", str(inside), str(place))
    try:
        yield
    finally:
        run("umount", "-l", str(place))
        shutil.copytree(inside, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lost+found"))
        run("umount", "-l", str(inside))
        inside.rmdir()
        image.unlink()


def _inside(place: Path) -> Path:
    """Where the file system of a ``disk`` is mounted, too."""
    return place.with_name(f"{place.name}.disk")


@contextmanager
def full(place: Path) -> Iterator[None]:
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 1024, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def frozen_disk(place: Path) -> Iterator[None]:
    """Whoever writes waits, and cannot be killed meanwhile."""
    run("fsfreeze", "--freeze", str(place))
    try:
        yield
    finally:
        run("fsfreeze", "--unfreeze", str(place))


def slow_disk(place: Path) -> AbstractContextManager[None]:
    def starve(over: threading.Event) -> None:
        while not over.is_set():
            with frozen_disk(place):
                over.wait(SLOW[0])
            time.sleep(SLOW[1])

    return meanwhile(starve)


@contextmanager
def lost_disk(place: Path) -> Iterator[None]:
    """It is not mounted any more; what is open stays open, and what is opened is in the directory beneath."""
    run("umount", "-l", str(place))
    try:
        yield
    finally:
        run("mount", "--bind", str(_inside(place)), str(place))


@contextmanager
def clock_step(seconds: float) -> Iterator[None]:
    """The time of day of all machines of the lab."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.time() - seconds)
