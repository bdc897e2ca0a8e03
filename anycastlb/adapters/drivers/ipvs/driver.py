"""Read and write the kernel's IPVS services and destinations. No other code does.

Ours is every service whose address lies in ``vip_ranges`` or whose mark lies in ``mark_ranges``, with all its
destinations. Whatever else is in the kernel is invisible here and can therefore never be touched. No order, no weight
and no retry is decided here.
"""

from __future__ import annotations

import asyncio
import errno
import subprocess
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from anycastlb.adapters.drivers.ipvs import codec, reader
from anycastlb.adapters.drivers.ipvs.reader import Real
from anycastlb.adapters.drivers.ipvs.requests import RequestBatch, refusal, script
from anycastlb.adapters.system.generic_netlink import FamilyMissing, GenericNetlink
from anycastlb.adapters.system.netlink import NetlinkRefused
from anycastlb.core.model import (
    Address,
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
    VirtualService,
)

FAMILY = "IPVS"
T = TypeVar("T")
Destinations = dict[DestinationKey, Destination]


class IpvsDriver:
    """Tables ``services`` and ``destinations``. One socket, opened on first use and again after any trouble."""

    tables: tuple[Table, ...] = ("services", "destinations")

    def __init__(self, vip_ranges: Sequence[Network], mark_ranges: Sequence[tuple[int, int]] = ()) -> None:
        """``mark_ranges``: firewall marks (low, high), both included, whose services are ours."""
        self._vip_ranges = tuple(vip_ranges)
        self._mark_ranges = tuple(mark_ranges)
        self._lock = threading.Lock()
        self._socket: GenericNetlink | None = None
        self._reader = reader.IpvsReader()
        self._in_ranges: dict[Address, bool] = {}
        self._lowered: dict[DestinationKey, int] = {}
        """The last non-zero weight of destinations that we set to 0: the kernel cannot be asked for it."""
        self._absent: set[DestinationKey] = set()
        """Those of them that the last look did not show: forgotten when the next one does not show them either."""
        self._seen: dict[ServiceKey, tuple[list[Real], Destinations]] = {}
        """Each service's destinations at the last look, as read and as rows."""

    async def observe(self) -> Mapping[Table, Rows]:
        """Our services and their destinations, oldest first. Raises ``DriverError``."""
        return await asyncio.to_thread(self._locked, self._observe)

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Write the changes in this order. One that is refused stops no other. Raises ``DriverError``."""
        if not changes:
            return ()
        return await asyncio.to_thread(self._locked, lambda kernel: self._apply(kernel, changes))

    async def statistics(self) -> Mapping[ServiceKey | DestinationKey, TrafficCounters]:
        """What the kernel counted, of our services and destinations. Raises ``DriverError``."""
        return await asyncio.to_thread(self._locked, self._statistics)

    async def unused(self, keys: Collection[DestinationKey]) -> frozenset[DestinationKey]:
        """Those destinations that exist and have no connection, active or not. Raises ``DriverError``."""
        services = dict.fromkeys(key.service for key in keys)
        return frozenset(keys) & await asyncio.to_thread(self._locked, lambda kernel: self._unused(kernel, services))

    async def use(self, work: Callable[[GenericNetlink], T]) -> T:
        """Do other blocking work of the family IPVS with this driver's socket. Raises ``DriverError``."""
        return await asyncio.to_thread(self._locked, work)

    def open(self) -> None:
        """Open the socket now, in the calling thread and its network namespace. Raises ``DriverError``."""
        with self._lock:
            if self._socket is None:
                self._socket = connect()

    def close(self) -> None:
        """Close the socket; the next use opens another. The kernel keeps everything."""
        with self._lock:
            self._close()

    # ------------------------------------------------------------ the socket

    def _locked(self, work: Callable[[GenericNetlink], T]) -> T:
        """Do blocking work with the socket, one at a time; after trouble the socket is not used again."""
        with self._lock:
            if self._socket is None:
                self._socket = connect()
            try:
                return work(self._socket)
            except NetlinkRefused as exc:
                self._close()
                raise _explained(exc) from exc
            except BaseException:
                self._close()
                raise

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # ------------------------------------------------------------ reading

    def _ours(self, key: ServiceKey) -> bool:
        if key.protocol == "fwmark":
            return any(low <= key.port <= high for low, high in self._mark_ranges)
        known = self._in_ranges.get(key.address)
        if known is None:
            if len(self._in_ranges) > reader.REMEMBERED:
                self._in_ranges.clear()
            known = self._in_ranges[key.address] = any(key.address in network for network in self._vip_ranges)
        return known

    def _observe(self, kernel: GenericNetlink) -> Mapping[Table, Rows]:
        services: dict[ServiceKey, VirtualService] = {}
        for data, start, end in kernel.dump(codec.GET_SERVICE):
            found = self._reader.service(data, start, end)
            if found is not None and self._ours(found[0]):
                services[found[0]] = found[1]
        destinations: Destinations = {}
        for key in services:
            destinations.update(self._look(kernel, key))  # dict to dict: no key is hashed again
        for gone in self._seen.keys() - services.keys():
            del self._seen[gone]
        self._forget(destinations)
        return {"services": services, "destinations": destinations}

    def _forget(self, destinations: Destinations) -> None:
        """Forget the last weights of destinations that have a weight again, and of those gone for two looks."""
        absent = self._lowered.keys() - destinations.keys()
        raised = {name for name in self._lowered.keys() - absent if destinations[name].weight}
        for name in raised | (absent & self._absent):
            del self._lowered[name]
        self._absent = absent - self._absent

    def _look(self, kernel: GenericNetlink, service: ServiceKey) -> Destinations:
        """A service's destinations, oldest first: the kernel lists the newest first."""
        read = self._reader.destination
        found = [
            read(data, start, end)
            for data, start, end in kernel.dump(codec.GET_DESTINATION, codec.service_name(service))
        ]
        reals = [real for real in reversed(found) if real is not None]
        seen = self._seen.get(service)
        if seen is not None and seen[0] == reals:
            return seen[1]
        rows: Destinations = {}
        for address, port, row in reals:
            name = DestinationKey(service, address, port)
            if not row.weight and name in self._lowered:
                row = replace(row, last_weight=self._lowered[name])
            rows[name] = row
        self._seen[service] = (reals, rows)
        return rows

    def _statistics(self, kernel: GenericNetlink) -> Mapping[ServiceKey | DestinationKey, TrafficCounters]:
        counted: dict[ServiceKey | DestinationKey, TrafficCounters] = {}
        services: list[ServiceKey] = []
        for data, start, end in kernel.dump(codec.GET_SERVICE):
            found = self._reader.service(data, start, end)
            if found is not None and self._ours(found[0]):
                services.append(found[0])
                counted[found[0]] = reader.counters(data, start, end, of_destination=False)
        for service in services:
            for key, counters in self._of_destinations(kernel, service).items():
                counted[key] = counters
        return counted

    def _unused(self, kernel: GenericNetlink, services: Iterable[ServiceKey]) -> frozenset[DestinationKey]:
        """The destinations of these services that have no connection. One that does not exist has none of either."""
        counted: dict[DestinationKey, TrafficCounters] = {}
        for service in services:
            try:
                counted.update(self._of_destinations(kernel, service))
            except NetlinkRefused as exc:
                if exc.number != errno.ESRCH:
                    raise
        return frozenset(key for key, now in counted.items() if not now.active + now.inactive)

    def _of_destinations(self, kernel: GenericNetlink, service: ServiceKey) -> dict[DestinationKey, TrafficCounters]:
        counted: dict[DestinationKey, TrafficCounters] = {}
        for data, start, end in kernel.dump(codec.GET_DESTINATION, codec.service_name(service)):
            real = self._reader.destination(data, start, end)
            if real is not None:
                key = DestinationKey(service, real[0], real[1])
                counted[key] = reader.counters(data, start, end, of_destination=True)
        return counted

    # ------------------------------------------------------------ writing

    def _apply(self, kernel: GenericNetlink, changes: Sequence[Change]) -> Sequence[Failure]:
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
        self._remember(changes, reasons)
        return [Failure(change, reasons[id(change)]) for change in changes if id(change) in reasons]

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
        tables = self._observe(kernel)
        for identity, change in owners.items():
            actual, wanted = tables[change.table].get(change.key), change.new
            if isinstance(actual, Destination) and isinstance(wanted, Destination):
                actual = replace(actual, last_weight=wanted.last_weight)
            if actual != wanted:
                text = f"{change.key}: the kernel's answer was lost; the next look tells"
                reasons.setdefault(identity, Reason("answer_lost", text, str(change.key)))

    def _remember(self, changes: Sequence[Change], reasons: Mapping[int, Reason]) -> None:
        """Keep the last weights of destinations now at 0. What failed half-way is not known."""
        lowered = self._lowered
        for change in changes:
            if change.table != "destinations":
                continue
            new: Destination | None = change.new
            known = None if new is None or new.weight or id(change) in reasons else new.last_weight
            if known is not None:
                lowered[change.key] = known
                self._seen.pop(change.key.service, None)
            elif lowered and lowered.pop(change.key, None) is not None:
                self._seen.pop(change.key.service, None)


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
