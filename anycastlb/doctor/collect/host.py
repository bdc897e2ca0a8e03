"""The facts about this machine: kernel, modules, sysctls, files, clock.

They are read from /proc and by netlink. Nothing is changed, and no kernel module is loaded.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from anycastlb.adapters.drivers.ipvs import config
from anycastlb.adapters.drivers.ipvs.driver import FAMILY, modprobe
from anycastlb.adapters.drivers.sysctls import PROBING, ROOT, TAKEOVER, read
from anycastlb.adapters.system.generic_netlink import GenericNetlink
from anycastlb.core.model import DriverError, SyncDaemon
from anycastlb.doctor.facts import Folder, Kernel, Process, Unseen
from anycastlb.settings import Settings
from anycastlb.settings.ipvs import SYNC_REFRESH, SYNC_THRESHOLD

FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
SYSCTLS = (
    *TAKEOVER, *PROBING, *FORWARDING, SYNC_THRESHOLD, SYNC_REFRESH, "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/lo/disable_ipv6", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/arp_announce", "net/ipv4/vs/conntrack", "net/ipv4/vs/pmtu_disc",
    "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max",
)  # fmt: skip
STA_UNSYNC = 0x40
WHOLE_MACHINE = "4294967295"
"""The length of the user map of the initial user namespace."""
MODULES = Path("/sys/module")
"""The modules that are loaded, or built into the kernel; only one that is loaded has an ``initstate``."""
MODPROBE_TIMEOUT = 30.0
"""Seconds."""


def kernel(schedulers: Iterable[str], proc: Path = Path("/proc")) -> Kernel:
    """The kernel as it is, for services with these schedulers."""
    values = sysctls((*SYSCTLS, *of_interfaces("accept_local"), *of_interfaces("rp_filter")))
    modules = ("ip_vs", *(f"ip_vs_{name}" for name in sorted(set(schedulers) - {"none"})))
    family, rows = _ipvs()
    return Kernel(
        release=os.uname().release,
        family=family,
        info=_line(proc / "net/ip_vs"),
        loadable={name: loadable(name) for name in modules},
        config=rows,
        table_bits=_table_bits(),
        sysctls=values,
        read_only=frozenset(name for name in values if not os.access(ROOT / name, os.W_OK, effective_ids=True)),
        owns_machine=WHOLE_MACHINE in _text(proc / "self/uid_map", WHOLE_MACHINE),
    )


def sysctls(names: Iterable[str]) -> dict[str, str]:
    """The values of those that this kernel has."""
    return {name: value for name in names if (value := read(name, ROOT)) is not None}


def of_interfaces(setting: str) -> list[str]:
    """The sysctls of this name of every interface, and of all of them; the default is for interfaces to come."""
    conf = ROOT / "net/ipv4/conf"
    try:
        names = sorted(entry.name for entry in conf.iterdir())
    except OSError:
        return []
    return [f"net/ipv4/conf/{name}/{setting}" for name in names if name != "default"]


def loadable(module: str) -> bool:
    """Is the module loaded, built into the kernel, or available to be loaded?

    Where modprobe runs and does not even find ``ip_vs``, which is loaded, the modules are hidden from this process, as
    they are in the sandbox of our unit. That says nothing about what the kernel would load by itself, so every module
    counts as available. A kernel whose modprobe is /bin/false, say, loads nothing.
    """
    if (MODULES / module).exists() or _modprobe("-n", "-q", module):
        return True
    loaded = (MODULES / "ip_vs/initstate").exists()
    return loaded and not _modprobe("-n", "-q", "ip_vs") and _modprobe("--version")


def _modprobe(*arguments: str) -> bool:
    """Does modprobe say yes? With ``-n`` it loads nothing."""
    try:
        done = subprocess.run([modprobe(), *arguments], capture_output=True, timeout=MODPROBE_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def loopback_manager(run: Path = Path("/run")) -> str:
    """Who configures the interface with index 1, by the state files of the network managers."""
    networkd = _text(run / "systemd/netif/links/1")
    if re.search(r"^ADMIN_STATE=(?!unmanaged|pending)\w", networkd, re.MULTILINE):
        return "systemd-networkd"
    manager = _text(run / "NetworkManager/devices/1")
    if re.search(r"^managed=true", manager, re.MULTILINE) and re.search(r"^connection-uuid=", manager, re.MULTILINE):
        return "NetworkManager"
    return ""


def exposed_secrets(settings: Settings) -> tuple[str, ...]:
    """The files with secrets of the API, of checks and of gateways that every user of this machine can read."""
    api = settings.api
    names = [api.read_token_file, api.write_token_file, api.tls_key_file or api.tls_cert_file]
    names += [secret.file for secret in settings.checks.secrets.values()]
    names += private_keys(Path(settings.http.certificate_dir)) if settings.http else ()
    return tuple(name for name in names if name is not None and _world_readable(Path(name)))


def private_keys(folder: Path) -> list[str]:
    """The certificates of gateways that have their keys with them; none if not every user may enter their directory."""
    try:
        may_enter = folder.stat().st_mode & stat.S_IXOTH
        files = sorted(path for path in folder.iterdir() if path.suffix == ".pem") if may_enter else ()
    except OSError:
        return []
    return [str(path) for path in files if _has_key(path)]


def _has_key(path: Path) -> bool:
    try:
        return b"PRIVATE KEY-----" in path.read_bytes()
    except OSError:
        return False


def _world_readable(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False  # the API itself reports a file that cannot be read


def _ipvs() -> tuple[str, dict[str, int | SyncDaemon] | Unseen]:
    """Why the netlink family does not exist (empty if it does), and the settings of IPVS."""
    try:
        netlink = GenericNetlink(FAMILY)
    except DriverError as exc:
        return str(exc), Unseen("IPVS is not there")
    try:
        return "", config.read_config(netlink)
    except DriverError as exc:
        return "", Unseen(f"IPVS GET_CONFIG: {exc}")
    finally:
        netlink.close()


def _table_bits() -> int | None:
    text = _text(Path("/sys/module/ip_vs/parameters/conn_tab_bits")).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path, otherwise: str = "") -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return otherwise


def _line(path: Path) -> str:
    return _text(path).partition("\n")[0].strip()


def owners(path: str) -> tuple[int, ...]:
    """The user a file belongs to; nobody if it is not there."""
    try:
        return (Path(path).stat().st_uid,)
    except OSError:
        return ()


def folder(path: str, node: Process | None) -> Folder:
    """A directory and whether the running node may write it; without a node, whether this process may."""
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        return Folder(path)
    if node is not None and node.uid != os.geteuid() and os.geteuid() != 0:
        return Folder(path, True, Unseen(f"the node runs as user {node.uid}"), free)
    if node is None and os.geteuid() != 0:
        return Folder(path, True, os.access(path, os.W_OK) or Unseen(f"{path} may not be written by this user"), free)
    return Folder(path, True, os.access(path, os.W_OK), free)


def synchronised() -> bool | None:
    """Does the kernel consider its clock synchronised (adjtimex)? None if it does not say."""
    try:
        timex = ctypes.create_string_buffer(512)
        if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
            return None
    except (OSError, AttributeError):
        return None
    # struct timex: unsigned int modes; long offset, freq, maxerror, esterror; int status
    size = ctypes.sizeof(ctypes.c_long)
    status = int.from_bytes(timex.raw[5 * size : 5 * size + 4], sys.byteorder)
    return not status & STA_UNSYNC
