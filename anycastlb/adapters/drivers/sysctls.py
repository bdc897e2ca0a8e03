"""Read and write kernel settings under /proc/sys: those whose names it was given, and no other.

The caller decides whether they are written at all (``manage_sysctls``): if not, it does not call ``apply``
(docs/decisions/0007).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from anycastlb.core.model import Change, Failure, Reason, Rows, Table

ROOT = Path("/proc/sys")

TAKEOVER: Mapping[str, str] = MappingProxyType(
    {
        # Take up a TCP flow in its middle: the router moved it here from a node that died. Without it all are reset.
        "net/ipv4/vs/sloppy_tcp": "1",
        # The same for SCTP.
        "net/ipv4/vs/sloppy_sctp": "1",
        # End the connections of a deleted destination at once, instead of letting their clients hang for 15 minutes.
        # Draining comes first, so whoever is left then has had his time.
        "net/ipv4/vs/expire_nodest_conn": "1",
        # Do not let persistence hold clients to a destination that is drained.
        "net/ipv4/vs/expire_quiescent_template": "1",
        # A client port used again is a new connection, and is not sent to a drained destination.
        "net/ipv4/vs/conn_reuse_mode": "1",
        # Count what passes: a node that leaves waits until nothing comes any more, and without this nothing ever does.
        "net/ipv4/vs/run_estimation": "1",
    }
)
"""What lets any node of the cluster take over any other's flows. All are per network namespace, and of Linux 5.18."""

PROBING: Mapping[str, str] = MappingProxyType(
    {
        # The answer to a probe through IPVS comes from the VIP, which is this node's own address too: by default the
        # kernel drops such a packet when it arrives from outside (IPv4 only, with dr and the tunnels). The kernel takes
        # the logical or of "all" and the interface's own.
        "net/ipv4/conf/all/accept_local": "1",
    }
)
"""What checks with ``"via": "forward"`` need besides; per network namespace too."""


FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say only that this process, or the machine, can open nothing more."""


class SysctlDriver:
    """Table ``sysctls``: names such as ``net/ipv4/vs/sloppy_tcp``, values as their text, blanks made single."""

    tables: tuple[Table, ...] = ("sysctls",)

    def __init__(self, names: Iterable[str] = TAKEOVER, root: Path = ROOT) -> None:
        self._names = tuple(names)
        self._root = root
        self._last: dict[str, str] = {}

    async def observe(self) -> Mapping[Table, Rows]:
        """The values of the sysctls that exist; the kernel makes ``net/ipv4/vs`` when ip_vs is loaded.

        A process that can open nothing more takes none for missing: they are as they last were.
        """
        values = {name: self._value(name) for name in self._names}
        self._last = {name: value for name, value in values.items() if value is not None}
        return {"sysctls": dict(self._last)}

    def _value(self, name: str) -> str | None:
        try:
            return _read(name, self._root)
        except OSError as exc:
            return self._last.get(name) if exc.errno in FULL else None

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        return [Failure(change, reason) for change in changes if (reason := self._write(change))]

    def _write(self, change: Change) -> Reason | None:
        name, value = change.key, change.new
        if value is None:
            return Reason("not_deletable", f"sysctl {name}: cannot be deleted", name)
        try:
            # Not "w": in /proc/sys there is nothing to create, and nothing to truncate.
            with (self._root / name).open("r+") as file:
                file.write(value)
        except OSError as exc:
            return refusal(name, value, exc)
        return None


def read(name: str, root: Path = ROOT) -> str | None:
    """A sysctl's value; None if this kernel does not have it or does not show it."""
    try:
        return _read(name, root)
    except OSError:
        return None


def _read(name: str, root: Path) -> str:
    return " ".join((root / name).read_text().split())


def refusal(name: str, value: str, exc: OSError) -> Reason:
    """Why a sysctl could not be written, and what to do about it."""
    dotted = name.replace("/", ".")
    if exc.errno == errno.ENOENT:
        hint = (
            "load ip_vs first (modprobe ip_vs)" if name.startswith("net/ipv4/vs/") else "this kernel is too old for it"
        )
        return Reason("no_such_setting", f"sysctl {dotted}: this kernel has no such setting; {hint}", dotted)
    if exc.errno in (errno.EACCES, errno.EPERM):
        text = f"sysctl {dotted}: not allowed to write it; run as root, or once as root: sysctl -w {dotted}={value}"
        return Reason("not_permitted", text, dotted)
    if exc.errno == errno.EROFS:
        text = (
            f"sysctl {dotted}: /proc/sys is read-only here (a container? ProtectKernelTunables=yes in the unit?); "
            f"set it from outside: sysctl -w {dotted}={value}"
        )
        return Reason("read_only", text, dotted)
    if exc.errno == errno.EINVAL:
        return Reason("value_refused", f"sysctl {dotted}: the kernel does not accept the value {value!r}", dotted)
    return Reason("kernel_refused", f"sysctl {dotted}={value}: {exc.strerror}", dotted)
