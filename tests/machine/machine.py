"""A bare Debian machine of the lab: its own file tree and its own systemd, in the network of one of the lab's nodes.

The tree is the one ``tests/rig/bareroot.py`` made, unpacked into memory. systemd is process 1 of namespaces of its own,
so units, users, sandboxes, watchdog and journal are the real ones; the kernel is the test kernel, as is its IPVS. What
differs from a real machine: no boot loader, no udev, its network is there before it starts, and the kernel's modules
are those of the test kernel.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.lab.namespaces import LabError, Namespace, run
from tests.lab.process import until

PLACE = Path("/run/machines")
BOOT = 60.0
"""Seconds until systemd has reached its target."""

PATIENCE = "[Manager]\nDefaultTimeoutStartSec=30min\n"
"""systemd's, for a service that says itself when it has started: several tests may share this processor."""

ENTER = """
set -e
mount --make-rprivate /
cd {root}
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/pts dev/shm old
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
hostname {name}
pivot_root . old
umount -l old
rmdir old
mount --make-rshared /
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal
"""


class Machine:
    """``start`` gives a bare machine; ``end`` leaves nothing of it."""

    def __init__(self, name: str, namespace: Namespace, tree: Path) -> None:
        self.name = name
        self.namespace = namespace
        self.root = PLACE / name
        self._tree = tree
        self._child: subprocess.Popen[bytes] | None = None
        self.init = 0

    def start(self) -> None:
        """Unpack it, start its systemd, and wait until that has reached its target."""
        self.root.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", "mode=755,size=1G", "machine", str(self.root))
        run("tar", "-C", str(self.root), "-xf", str(self._tree), timeout=600)
        modules = self.root / "lib/modules"
        modules.mkdir(exist_ok=True)
        (modules / os.uname().release).mkdir()
        run("mount", "--bind", _modules(), str(modules / os.uname().release))
        (self.root / "etc/hostname").write_text(self.name + "\n")
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost {self.name}\n")
        patience = self.root / "etc/systemd/system.conf.d/patience.conf"
        patience.parent.mkdir(exist_ok=True)
        patience.write_text(PATIENCE)
        group = _cgroups() / self.name
        group.mkdir(exist_ok=True)
        script = ENTER.format(root=shlex.quote(str(self.root)), name=self.name)
        unshare = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "sh", "-c"]
        command = ["nsenter", f"--net=/run/netns/{self.namespace.full}", *unshare, script]
        join = f"echo $$ >{group}/cgroup.procs; exec {shlex.join(command)}"
        log = (PLACE / f"{self.name}.log").open("wb")
        with log:
            self._child = subprocess.Popen(
                ["sh", "-c", join], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.init = until(self._systemd, f"the systemd of {self.name} runs")
            until(self._booted, f"{self.name} has booted", BOOT)
        except LabError as exc:
            raise LabError(f"{exc}\n{(PLACE / f'{self.name}.log').read_text(errors='replace')}") from None

    def end(self) -> None:
        if self._child is not None:
            os.kill(self.init or self._child.pid, signal.SIGKILL)  # and with it all that runs in it
            self._child.wait(20)
        run("umount", "-R", str(self.root), check=False)
        shutil.rmtree(self.root, ignore_errors=True)

    def _systemd(self) -> int:
        """The process id, here outside, of its systemd; 0 if it does not run yet."""
        assert self._child is not None
        if self._child.poll() is not None:
            raise LabError(f"{self.name} ended with status {self._child.returncode}")
        for child in _children(self._child.pid):
            with suppress(OSError):  # it is gone
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return child
        return 0

    def _booted(self) -> bool:
        return self.sh("systemctl is-system-running", check=False).strip() in ("running", "degraded")

    def sh(self, script: str, check: bool = True, timeout: float = 900) -> str:
        """The output of a script that root runs on it, line by line as typed. Raises ``LabError`` if a line fails."""
        argv = [
            "nsenter",
            "--target",
            str(self.init),
            "--all",
            "env",
            "-i",
            "HOME=/root",
            "DEBIAN_FRONTEND=noninteractive",
        ]
        argv += [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "bash",
            "-e",
            "-c",
            f"cd /root\n{script}",
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        if check and done.returncode:
            raise LabError(
                f"on {self.name}, status {done.returncode}:\n{script}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            )
        return done.stdout

    def show(self, unit: str, *names: str) -> dict[str, str]:
        lines = self.sh(f"systemctl show {unit} {' '.join(f'-p {name}' for name in names)}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, unit: str) -> str:
        return self.sh(f"journalctl --no-pager -o cat -u {unit} | tail -n 60", check=False)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            children += [int(child), *_children(int(child))]
    return children


def _modules() -> str:
    """Where the running kernel's modules are."""
    for place in ("/run/modules/lib/modules", "/lib/modules"):
        tree = Path(place, os.uname().release)
        if tree.exists():
            return str(tree.resolve())
    raise LabError(f"no modules of kernel {os.uname().release}")


def _cgroups() -> Path:
    """The control groups, mounted where this process can make more."""
    if Path("/sys/fs/cgroup/cgroup.procs").exists():
        return Path("/sys/fs/cgroup")
    place = PLACE / "cgroup"
    if not (place / "cgroup.procs").exists():
        place.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "cgroup2", "cgroup2", str(place))
    return place
