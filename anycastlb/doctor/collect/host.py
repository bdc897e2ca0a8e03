"""What can be seen of this machine: processes, kernel, modules, sysctls, files. It reads /proc and asks netlink."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from anycastlb.adapters.drivers.ipvs import config
from anycastlb.adapters.drivers.ipvs.driver import FAMILY
from anycastlb.adapters.drivers.sysctls import PROBING, ROOT, TAKEOVER, read
from anycastlb.adapters.system.netlink import GenericNetlink
from anycastlb.core.model import DriverError, SyncDaemon
from anycastlb.doctor.facts import Folder, Kernel, Process, Unseen
from anycastlb.doctor.preflight import WHOLE_MACHINE, loadable
from anycastlb.settings.ipvs import SYNC_REFRESH, SYNC_THRESHOLD

SYSCTLS = (
    *TAKEOVER, *PROBING, SYNC_THRESHOLD, SYNC_REFRESH,
    "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/lo/disable_ipv6", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/arp_announce", "net/ipv4/vs/conntrack", "net/ipv4/vs/pmtu_disc", "net/ipv4/vs/conn_lfactor",
    "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max",
)  # fmt: skip
RIVALS = ("keepalived", "ldirectord", "merlin", "gorb", "kube-proxy", "seesaw_engine", "seesaw_ncc", "surealived")
STA_UNSYNC = 0x40


def processes(proc: Path = Path("/proc")) -> tuple[Process, ...]:
    """Every process that has a command line."""
    return tuple(found for entry in _numbers(proc) if (found := process(entry, proc)) is not None and found.argv)


def _numbers(proc: Path) -> Iterator[str]:
    try:
        yield from (name for name in os.listdir(proc) if name.isdigit())  # noqa: PTH208 (thousands of them)
    except OSError:
        return


def process(pid: str | int, proc: Path = Path("/proc")) -> Process | None:
    """One process; None if it is gone."""
    folder = proc / str(pid)
    try:
        argv = tuple((folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0"))
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text(errors="replace").splitlines() if ":" in line
        )
        uids, gids = status["Uid"].split(), status["Gid"].split()
        groups = tuple(int(group) for group in status.get("Groups", "").split())
        number, parent = int(status["Pid"]), int(status["PPid"])
        capabilities = int(status.get("CapEff", "0"), 16)
    except (OSError, ValueError, KeyError):
        return None
    return Process(
        number, argv if argv != ("",) else (), parent, int(uids[1]), int(gids[1]), groups, capabilities,
        _files(folder), _namespace(folder),
    )  # fmt: skip


def _files(folder: Path) -> int:
    try:
        found = re.search(r"^Max open files\s+(\d+)", (folder / "limits").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _namespace(folder: Path) -> str:
    try:
        return os.readlink(folder / "ns/net")  # noqa: PTH115 (it is no path)
    except OSError:
        return ""


def is_node(process: Process) -> bool:
    """Is it ``anycastlb run``, by its command line?"""
    for place, word in enumerate(process.argv[:-1]):
        named = Path(word).name == "anycastlb" or word.endswith("anycastlb/__main__.py")
        if named and process.argv[place + 1] == "run":
            return True
    return False


def is_rival(process: Process) -> bool:
    """Is it another master of IPVS? A script is named by its second word."""
    return bool(set(RIVALS) & {Path(word).name for word in process.argv[:2]})


def kernel(schedulers: Iterable[str], interfaces: Iterable[str], proc: Path = Path("/proc")) -> Kernel:
    """The kernel as it is; no module is loaded."""
    names = [*SYSCTLS, *(f"net/ipv4/conf/{name}/rp_filter" for name in interfaces)]
    sysctls = {name: value for name in names if (value := read(name, ROOT)) is not None}
    modules = ("ip_vs", *(f"ip_vs_{name}" for name in sorted(set(schedulers) - {"none"})))
    family, config = _ipvs()
    return Kernel(
        release=os.uname().release,
        family=family,
        info=_line(proc / "net/ip_vs"),
        loadable={name: loadable(name) for name in modules},
        config=config,
        table_bits=_table_bits(),
        sysctls=sysctls,
        owns_machine=WHOLE_MACHINE in _text(proc / "self/uid_map", WHOLE_MACHINE),
    )


def _ipvs() -> tuple[str, dict[str, int | SyncDaemon] | Unseen]:
    """Why there is no netlink family, and the settings of IPVS."""
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


def folder(path: str, node: Process | None) -> Folder:
    """A directory, as the running node may use it, else as this process may."""
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
    """Does the kernel hold its clock for right (adjtimex)? None if it does not say."""
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
