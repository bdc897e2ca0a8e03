"""Read and write the kernel's IPVS services and destinations. No other code does.

Ours is every service whose address lies in ``vip_ranges`` or whose mark lies in ``mark_ranges``, with all its
destinations. Whatever else is in the kernel is invisible here and can therefore never be touched. No order, no weight
and no retry is decided here.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from anycastlb.adapters.drivers.ipvs import codec
from anycastlb.adapters.drivers.ipvs.kernel_view import KernelView
from anycastlb.adapters.drivers.ipvs.proc_table import ProcTable
from anycastlb.adapters.drivers.ipvs.requests import RequestBatch, refusal, script
from anycastlb.adapters.system.generic_netlink import FamilyMissing, GenericNetlink
from anycastlb.adapters.system.netlink import NetlinkRefused
from anycastlb.core.model import (
    Change,
    Destination,
    DestinationKey,
    DriverError,
    Failure,
    Network,
    Reason,
    Rows,
    ServiceKey,
    Table,
    TrafficCounters,
)

FAMILY = "IPVS"
T = TypeVar("T")


class IpvsDriver:
    """Tables ``services`` and ``destinations``. One socket, opened on first use and again after any trouble, and the
    text of the kernel's table beside it."""

    tables: tuple[Table, ...] = ("services", "destinations")

    def __init__(self, vip_ranges: Sequence[Network], mark_ranges: Sequence[tuple[int, int]] = ()) -> None:
        """``mark_ranges``: firewall marks (low, high), both included, whose services are ours."""
        self._view = KernelView(vip_ranges, mark_ranges)
        self._lock = threading.Lock()
        self._socket: GenericNetlink | None = None
        self._table = ProcTable()

    async def observe(self) -> Mapping[Table, Rows]:
        """Our services and their destinations, oldest first. Raises ``DriverError``."""
        return await asyncio.to_thread(self._locked, self._view.look)

    async def services_differ(self, keys: Collection[ServiceKey] | None) -> bool:
        """Are these services (None: is the list of all) not as last seen or written? Raises ``DriverError``."""
        return await asyncio.to_thread(self._locked, lambda kernel: self._view.services_differ(kernel, keys))

    async def differ(self, keys: Collection[ServiceKey]) -> bool:
        """Are these services or their destinations not as last seen or written? Raises ``DriverError``."""
        return await asyncio.to_thread(self._locked, lambda kernel: self._view.differ(kernel, keys))

    async def destinations_differ(self, keys: Collection[ServiceKey]) -> bool:
        """Are the destinations of these services not as last seen or written? Raises ``DriverError``."""
        return await asyncio.to_thread(self._locked, lambda kernel: self._view.destinations_differ(kernel, keys))

    async def suspects(self, services: Sequence[ServiceKey]) -> Sequence[ServiceKey]:
        """Those of these services whose destinations may not be as last seen or written, by a look that costs little.

        It does not show thresholds, nor the kind of a tunnel.
        """
        return await asyncio.to_thread(self._suspects, services)

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Write the changes in this order. One that is refused stops no other. Raises ``DriverError``."""
        if not changes:
            return ()
        return await asyncio.to_thread(self._locked, lambda kernel: self._apply(kernel, changes))

    async def statistics(self) -> Mapping[ServiceKey | DestinationKey, TrafficCounters]:
        """What the kernel counted, of our services and destinations. Raises ``DriverError``."""
        return await asyncio.to_thread(self._locked, self._view.statistics)

    async def unused(self, keys: Collection[DestinationKey]) -> frozenset[DestinationKey]:
        """Those destinations that exist and have no connection, active or not. Raises ``DriverError``."""
        services = dict.fromkeys(key.service for key in keys)
        return frozenset(keys) & await asyncio.to_thread(
            self._locked, lambda kernel: self._view.unused(kernel, services)
        )

    async def use(self, work: Callable[[GenericNetlink], T]) -> T:
        """Do other blocking work of the family IPVS with this driver's socket. Raises ``DriverError``."""
        return await asyncio.to_thread(self._locked, work)

    def open(self) -> None:
        """Open the socket now, in the calling thread and its network namespace. Raises ``DriverError``."""
        with self._lock:
            self._open()

    def close(self) -> None:
        """Close the socket; the next use opens another. The kernel keeps everything."""
        with self._lock:
            self._close()
            self._table.close()

    def _suspects(self, services: Sequence[ServiceKey]) -> Sequence[ServiceKey]:
        text = self._table.read()  # not locked: no change waits for it
        if text is None:
            return services
        with self._lock:
            return self._view.suspects(text, services)

    # ------------------------------------------------------------ the socket

    def _locked(self, work: Callable[[GenericNetlink], T]) -> T:
        """Do blocking work with the socket, one at a time; after trouble the socket is not used again."""
        with self._lock:
            try:
                return work(self._open())
            except NetlinkRefused as exc:
                self._close()
                raise _explained(exc) from exc
            except BaseException:
                self._close()
                raise

    def _open(self) -> GenericNetlink:
        if self._socket is None:
            self._socket = connect()
            self._table.open()
        return self._socket

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # ------------------------------------------------------------ writing

    def _apply(self, kernel: GenericNetlink, changes: Sequence[Change]) -> Sequence[Failure]:
        try:
            reasons = self._write(kernel, changes)
        except BaseException:
            self._view.forget()  # nobody knows what became of the changes
            raise
        self._view.wrote(changes, reasons)
        return [Failure(change, reasons[id(change)]) for change in changes if id(change) in reasons]

    def _write(self, kernel: GenericNetlink, changes: Sequence[Change]) -> dict[int, Reason]:
        """Why some of the changes were not made."""
        work = script(changes)
        refused, unknown = kernel.exchange(work.requests)
        reasons = {id(failure.change): failure.reason for failure in work.failures}
        for index, number in sorted(refused.items()):
            owner = work.owners[index]
            reasons.setdefault(id(owner), refusal(owner, work.requests[index], number))
        if reasons:
            self._undo(kernel, work, refused, changes, reasons)
        if unknown:
            self._verify(kernel, {id(work.owners[index]): work.owners[index] for index in unknown}, reasons)
        return reasons

    def _undo(
        self,
        kernel: GenericNetlink,
        work: RequestBatch,
        refused: Mapping[int, int],
        changes: Sequence[Change],
        reasons: dict[int, Reason],
    ) -> None:
        """Delete new services whose scheduler was refused: left under ``none`` they would answer with refusals."""
        broken: dict[ServiceKey, Reason] = {}
        for index in refused:
            owner = work.owners[index]
            if work.requests[index][0] == codec.SET_SERVICE and owner.old is None:
                broken.setdefault(owner.key, reasons[id(owner)])
        created = {
            owner.key
            for index, owner in enumerate(work.owners)
            if work.requests[index][0] == codec.NEW_SERVICE and index not in refused
        }
        gone = {key: reason for key, reason in broken.items() if key in created}
        kernel.exchange([(codec.DEL_SERVICE, codec.service_name(key)) for key in gone])
        for change in changes:
            if change.table == "destinations" and change.new is not None and change.key.service in gone:
                text = f"its service could not be created: {gone[change.key.service]}"
                reasons.setdefault(id(change), Reason("service_missing", text, str(change.key.service)))

    def _verify(self, kernel: GenericNetlink, owners: Mapping[int, Change], reasons: dict[int, Reason]) -> None:
        """The kernel's answers were lost: look what became of these changes."""
        tables = self._view.look(kernel)
        for identity, change in owners.items():
            actual, wanted = tables[change.table].get(change.key), change.new
            if isinstance(actual, Destination) and isinstance(wanted, Destination):
                actual = replace(actual, last_weight=wanted.last_weight)
            if actual != wanted:
                text = f"{change.key}: the kernel's answer was lost; the next look tells"
                reasons.setdefault(identity, Reason("answer_lost", text, str(change.key)))


def connect() -> GenericNetlink:
    """A socket for the family IPVS, loading its module if the kernel does not have it yet. Raises ``DriverError``."""
    try:
        return GenericNetlink(FAMILY)
    except FamilyMissing:
        trouble = load_module("ip_vs")
    try:
        return GenericNetlink(FAMILY)
    except FamilyMissing as exc:
        raise DriverError(
            f"this kernel has no IPVS: modprobe ip_vs: {trouble or 'loaded, but the family IPVS did not appear'}. "
            "Load it as root on the host (modprobe ip_vs), and at every boot: "
            "echo ip_vs > /etc/modules-load.d/ipvs.conf"
        ) from exc


def load_module(name: str) -> str:
    """Load a kernel module by the kernel's own modprobe; what went wrong, empty if nothing did."""
    try:
        done = subprocess.run(
            [modprobe(), name], capture_output=True, text=True, errors="replace", timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"


def modprobe() -> str:
    """The program the kernel itself would load a module with."""
    try:
        return Path("/proc/sys/kernel/modprobe").read_text().strip() or "modprobe"
    except OSError:
        return "modprobe"


def _explained(exc: NetlinkRefused) -> DriverError:
    if exc.number == 1:  # EPERM
        return DriverError(
            "the kernel does not let this process read IPVS: it needs CAP_NET_ADMIN; run it as root, or with "
            "AmbientCapabilities=CAP_NET_ADMIN in its systemd unit"
        )
    return DriverError(f"IPVS: {exc}; the next look opens a new socket")
