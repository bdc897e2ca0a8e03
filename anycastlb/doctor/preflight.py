"""What this machine lacks to be a node, and the command that mends each lack.

It only looks: it loads no module, writes no sysctl, and runs without privilege (whose lack is its first finding).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anycastlb.adapters.drivers.ipvs.driver import FAMILY, modprobe
from anycastlb.adapters.drivers.sysctls import PROBING, TAKEOVER, read
from anycastlb.adapters.system.netlink import GenericNetlink
from anycastlb.core.model import DriverError
from anycastlb.settings import Settings

CAP_NET_ADMIN = 12
IFA_PROTO_SINCE = (5, 18)
WHOLE_MACHINE = "4294967295"
"""The length of the user map of the initial user namespace."""


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """Something that is missing. An ``error`` keeps the node from serving; a ``warning`` will hurt some day."""

    level: Literal["error", "warning"]
    what: str
    mend: str
    """The command that mends it."""

    def __str__(self) -> str:
        return f"{self.level}: {self.what}; mend it: {self.mend}"


def preflight(
    settings: Settings, schedulers: Collection[str] = ("mh",), nat: bool = False, proc: Path = Path("/proc")
) -> tuple[PreflightFinding, ...]:
    """Everything that is missing, the worst first. ``nat``: some backend is forwarded to by ``nat``."""
    sysctls = proc / "sys"
    found = [
        *_privilege(proc),
        *_kernel(os.uname().release),
        *_modules(schedulers),
        *_takeover(sysctls, settings.ipvs.manage_sysctls),
        *_forwarding(sysctls, nat),
        *_reverse_path(sysctls),
        *_secrets(settings),
    ]
    return tuple(sorted(found, key=lambda finding: finding.level != "error"))


def probing(settings: Settings, proc: Path = Path("/proc")) -> tuple[PreflightFinding, ...]:
    """What keeps checks with ``"via": "forward"`` from being answered on this machine."""
    return tuple(_accept_local(proc / "sys", settings.ipvs.manage_sysctls))


def _accept_local(sysctls: Path, managed: bool) -> Iterator[PreflightFinding]:
    if not managed and not _somewhere(sysctls / "net/ipv4/conf", "accept_local"):
        (name, value), *_ = PROBING.items()
        dotted = name.replace("/", ".")
        yield PreflightFinding(
            "warning",
            'accept_local is 0 on every interface: over IPv4, checks with "via": "forward" get no answer from backends '
            "reached by dr, tunnel, gue or gre",
            f"sysctl -w {dotted}={value} (or the same on just the interfaces towards the backends)",
        )


def _somewhere(conf: Path, name: str) -> bool:
    """Is it on for any interface?"""
    try:
        return any(read(f"{entry.name}/{name}", conf) == "1" for entry in conf.iterdir() if entry.name != "default")
    except OSError:
        return False


def _secrets(settings: Settings) -> Iterator[PreflightFinding]:
    """Files that give rights to whoever can read them."""
    api = settings.api
    for name in (api.read_token_file, api.write_token_file, api.tls_key_file or api.tls_cert_file):
        try:
            open_to_all = name is not None and Path(name).stat().st_mode & 0o004
        except OSError:
            continue  # the API tells that it cannot be read
        if open_to_all:
            yield PreflightFinding(
                "warning", f"every user of this machine can read {name}, a secret of the API", f"chmod o= {name}"
            )


def _privilege(proc: Path) -> Iterator[PreflightFinding]:
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", (proc / "self/status").read_text(), re.MULTILINE)
    if effective and not int(effective[1], 16) >> CAP_NET_ADMIN & 1:
        yield PreflightFinding(
            "error",
            "this process lacks CAP_NET_ADMIN, which IPVS and addresses need",
            "run it as root, or put AmbientCapabilities=CAP_NET_ADMIN into its systemd unit",
        )
    if WHOLE_MACHINE not in (proc / "self/uid_map").read_text():
        yield PreflightFinding(
            "error",
            "this process is in a user namespace of its own, from which the kernel allows no IPVS",
            "run it outside, as the machine's root (not in a rootless container)",
        )


def _kernel(release: str) -> Iterator[PreflightFinding]:
    version = re.match(r"(\d+)\.(\d+)", release)
    if version and (int(version[1]), int(version[2])) < IFA_PROTO_SINCE:
        yield PreflightFinding(
            "error",
            f"kernel {release} cannot mark addresses as ours (IFA_PROTO), which takes 5.18 or later",
            "install a newer kernel: apt-get install linux-image-amd64",
        )


def _modules(schedulers: Collection[str]) -> Iterator[PreflightFinding]:
    try:
        GenericNetlink(FAMILY).close()
    except DriverError as exc:
        if not loadable("ip_vs"):
            yield PreflightFinding(
                "error",
                f"this kernel has no IPVS, and no module ip_vs to load ({exc})",
                f"install the kernel's modules: apt-get install linux-modules-{os.uname().release} "
                "(Ubuntu) or linux-image-amd64 instead of a -cloud kernel (Debian)",
            )
            return
        yield PreflightFinding(
            "warning",
            "the module ip_vs is not loaded; it will be, if this process may",
            "modprobe ip_vs; echo ip_vs > /etc/modules-load.d/ipvs.conf",
        )
    for name in sorted(set(schedulers) - {"none"}):
        if not loadable(f"ip_vs_{name}"):
            yield PreflightFinding("error", f'the kernel has no IPVS scheduler "{name}"', f"modprobe ip_vs_{name}")


def loadable(module: str) -> bool:
    """Is the module loaded, built in, or there to be loaded? Loads nothing."""
    if Path("/sys/module", module).exists():
        return True
    try:
        done = subprocess.run([modprobe(), "-n", "-q", module], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _takeover(sysctls: Path, managed: bool, wanted: Mapping[str, str] = TAKEOVER) -> Iterator[PreflightFinding]:
    for name, value in wanted.items():
        dotted = name.replace("/", ".")
        actual = read(name, sysctls)
        if actual is None or actual == value:
            continue  # absent until ip_vs is loaded, which has its own finding
        if not managed:
            yield PreflightFinding(
                "warning", f"{dotted} is {actual}, and a cluster node needs {value}", f"sysctl -w {dotted}={value}"
            )
        elif not os.access(sysctls / name, os.W_OK, effective_ids=True):  # with CAP_NET_ADMIN it may
            yield PreflightFinding(
                "warning",
                f"{dotted} is {actual}, a cluster node needs {value}, and this process may not write it",
                f"sysctl -w {dotted}={value}",
            )


def _forwarding(sysctls: Path, nat: bool) -> Iterator[PreflightFinding]:
    if not nat:
        return
    for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        if read(name, sysctls) == "0":
            dotted = name.replace("/", ".")
            yield PreflightFinding(
                "error", f"{dotted} is 0, so replies of nat backends are dropped", f"sysctl -w {dotted}=1"
            )


def _reverse_path(sysctls: Path) -> Iterator[PreflightFinding]:
    """The kernel takes the larger of ``all`` and the interface's own; 1 (strict) drops asymmetric traffic."""
    conf = sysctls / "net/ipv4/conf"
    everywhere = read("all/rp_filter", conf) or "0"
    try:
        interfaces = sorted(entry.name for entry in conf.iterdir())
    except OSError:
        return
    strict = [
        name
        for name in interfaces
        if name not in ("all", "default", "lo") and max(everywhere, read(f"{name}/rp_filter", conf) or "0") == "1"
    ]
    if strict:
        names = " ".join(f"net/ipv4/conf/{name}/rp_filter=2" for name in strict)
        yield PreflightFinding(
            "warning",
            f"rp_filter is strict on {', '.join(strict)}: traffic that comes and goes by different ways is dropped",
            f"sysctl -w {names}",
        )
