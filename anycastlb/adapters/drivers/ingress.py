"""Mark the packets to a VIP where they come in, and nowhere else.

A gateway whose nodes share its flows has an IPVS service by firewall mark. Marked are the packets that come in by an
outside interface; those that another node sends on through a tunnel arrive without a mark, and reach HAProxy whatever
this node's own table says. So no packet goes round between nodes whose tables differ (docs/decisions/0019).

A filter is ours if its action carries our cookie (``ingress_messages``); any other is invisible and is never changed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from anycastlb.adapters.drivers import ingress_messages
from anycastlb.adapters.drivers.ingress_messages import CHANGE, CREATE, DELETE, LIST, OPEN, IngressSocket
from anycastlb.adapters.system.netlink import DumpInterrupted, NetlinkRefused
from anycastlb.adapters.system.route_netlink import InterfaceMissing
from anycastlb.core.model import Change, DriverError, Failure, IngressKey, IngressMark, Reason, Rows, Table

ATTEMPTS = 5
"""So often is a list begun that another program disturbs."""
T = TypeVar("T")
Found = dict[IngressKey, tuple[IngressMark, int]]
"""Our filters: the mark, and the kernel's handle of the filter."""


class IngressDriver:
    """Table ``ingress_marks``. One socket, opened on first use and again after any trouble: a process that can open
    nothing more goes on with it. A look that fails is no news: these rows must not blind a node to all others.

    An interface that does not exist has no rows. The place where filters hang is made when the first is, and stays:
    other programs may use it as well.
    """

    tables: tuple[Table, ...] = ("ingress_marks",)

    def __init__(self, interfaces: Sequence[str]) -> None:
        self._interfaces = tuple(interfaces)
        self._kernel: IngressSocket | None = None
        self._lock = threading.Lock()
        self._seen: Rows = {}

    async def observe(self) -> Mapping[Table, Rows]:
        """Our marks at these interfaces, or those of the last look if they cannot be seen now."""
        try:
            found = await self._use(self._look)
        except DriverError:
            return {"ingress_marks": self._seen}
        self._seen = {key: row for key, (row, _) in found.items()}
        return {"ingress_marks": self._seen}

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Make the changes in this order. Raises ``DriverError``."""
        return await self._use(lambda kernel: self._write(kernel, changes)) if changes else ()

    async def _use(self, work: Callable[[IngressSocket], T]) -> T:
        """Do blocking work with the socket, one at a time, which is not used again after trouble. Raises
        ``DriverError``."""
        try:
            return await asyncio.to_thread(self._locked, work)
        except DriverError as exc:
            raise DriverError(f"marks at {', '.join(self._interfaces)}: {exc}") from exc

    def _locked(self, work: Callable[[IngressSocket], T]) -> T:
        with self._lock:
            if self._kernel is None:
                self._kernel = IngressSocket()
            try:
                return work(self._kernel)
            except DriverError:
                self._kernel.close()
                self._kernel = None
                raise

    def _look(self, kernel: IngressSocket) -> Found:
        found: Found = {}
        for interface in self._interfaces:
            if index := _index(kernel, interface):
                found |= _marks(kernel, interface, index)
        return found

    def _write(self, kernel: IngressSocket, changes: Sequence[Change]) -> list[Failure]:
        found = self._look(kernel)
        failures = []
        for change in changes:
            if reason := self._change(kernel, found, change):
                failures.append(Failure(change, reason))
        return failures

    def _change(self, kernel: IngressSocket, found: Found, change: Change) -> Reason | None:
        """Make one change; why it was not made."""
        key: IngressKey = change.key
        index = _index(kernel, key.interface) if key.interface in self._interfaces else 0
        if not index:
            return Reason("no_interface", f"there is no interface {key.interface}", key.interface)
        if change.new is None and key not in found:
            return Reason("missing", f"{key} has no mark of ours; nothing was deleted", str(key))
        _, handle = found.get(key, (None, 0))
        try:
            if change.new is None:
                _ask(kernel, DELETE, ingress_messages.deletion(index, key.address, handle))
            else:
                _put(kernel, key, index, change.new.mark, handle)
        except NetlinkRefused as exc:
            return _refusal(key, exc.number)
        return None


def _put(kernel: IngressSocket, key: IngressKey, index: int, mark: int, handle: int) -> None:
    """Set the mark by the filter that is there, or by a new one. Raises ``NetlinkRefused``."""
    message = ingress_messages.marking(index, key.address, key.port, mark, handle)
    if handle:
        _ask(kernel, CHANGE, message)
        return
    try:
        _ask(kernel, OPEN, ingress_messages.opening(index))
    except NetlinkRefused as exc:
        if exc.number != errno.EEXIST:
            raise
    _ask(kernel, CREATE, message)


def _ask(kernel: IngressSocket, command: int, payload: bytes) -> None:
    """Have one thing done. Raises ``NetlinkRefused``."""
    refused, _ = kernel.exchange([(command, payload)])
    if refused:
        raise NetlinkRefused(refused[0])


def _marks(kernel: IngressSocket, interface: str, index: int) -> Found:
    """Our filters at the ingress of an interface. Raises ``DriverError``."""
    for _ in range(ATTEMPTS - 1):
        try:
            return _listed(kernel, interface, index)
        except DumpInterrupted:
            continue
    return _listed(kernel, interface, index)


def _listed(kernel: IngressSocket, interface: str, index: int) -> Found:
    found: Found = {}
    try:
        for data, start, end in kernel.dump(LIST, ingress_messages.listing(index)):
            if filtering := ingress_messages.ours(data[start:end]):
                vip, port, mark, handle = filtering
                found[IngressKey(interface, vip, port)] = (IngressMark(mark), handle)
    except NetlinkRefused as exc:
        if exc.number not in (errno.EINVAL, errno.ENOENT, errno.ENODEV):  # no filter can hang there yet
            raise
    return found


def _index(kernel: IngressSocket, interface: str) -> int:
    """The kernel's number of an interface; 0 if there is none. Raises ``DriverError``."""
    try:
        return kernel.index_of(interface)
    except InterfaceMissing:
        return 0


def _refusal(key: IngressKey, number: int) -> Reason:
    if number in (errno.EPERM, errno.EACCES):
        raise DriverError(
            "the kernel does not let this process change filters: it needs CAP_NET_ADMIN; run it as root, or with "
            "AmbientCapabilities=CAP_NET_ADMIN in its systemd unit"
        )
    if number == errno.EEXIST:
        text = (
            f"{key}: another filter for these packets is there already, without our cookie, so it is not ours; "
            f"if nothing needs it, remove it: tc filter show dev {key.interface} ingress"
        )
        return Reason("not_ours", text, str(key))
    if number == errno.ENOENT:
        text = f"{key}: the kernel has no classifier flower or no action skbedit: modprobe cls_flower act_skbedit"
        return Reason("module_missing", text, str(key))
    return Reason("kernel_refused", f"{key}: the kernel refused the mark: {os.strerror(number)}", str(key))
