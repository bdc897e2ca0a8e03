"""Put VIPs on an interface of this node, as /32 and /128 addresses.

An address is ours if it carries our mark (``address_messages``); any other is invisible and is never deleted or
replaced. The label ``lo:alb`` is for humans (``ip address show label 'lo:alb'``) and decides nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from anycastlb.adapters.drivers import address_messages
from anycastlb.adapters.drivers.address_messages import (
    MARK,
    RTM_DELADDR,
    RTM_NEWADDR,
    AddressSocket,
)
from anycastlb.adapters.system import netlink
from anycastlb.adapters.system.netlink import HEADER, DumpInterrupted, Request
from anycastlb.adapters.system.route_netlink import NETLINK_ROUTE, InterfaceMissing
from anycastlb.core.identity import same_objects
from anycastlb.core.model import Address, Change, DriverError, Failure, Reason, Rows, Table, VipAddress

RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x10, 0x100
ATTEMPTS = 5
"""So often is a list begun that another program disturbs."""
PAUSE = 1.0
"""Seconds before a broken notification socket is opened again."""
REMEMBERED = 65_536
"""Messages remembered before all are forgotten; each is some 200 bytes."""
T = TypeVar("T")


class AddressDriver:
    """Table ``addresses``. One socket, opened on first use and again after any trouble: a process that can open
    nothing more goes on with it."""

    tables: tuple[Table, ...] = ("addresses",)

    def __init__(self, interface: str = "lo") -> None:
        self._interface = interface
        self._row = VipAddress(interface)
        self._kernel: AddressSocket | None = None
        self._lock = threading.Lock()
        self._read: dict[bytes, Address | None] = {}
        """What each message of the last looks stands for."""
        self._added: dict[Address, Address] = {}
        """Each address that was added, and is seen from then on as the same object."""
        self._seen: Mapping[Address, VipAddress] = {}
        """What the last look has shown."""

    async def observe(self) -> Mapping[Table, Rows]:
        """Our addresses on the interface: the same object as the last time, if they are. Raises ``DriverError``."""
        vips = await self._use(self._marked)
        if not same_objects(self._seen, vips):
            self._seen = dict.fromkeys(vips, self._row)
        return {"addresses": self._seen}

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Add and delete addresses in this order. Raises ``DriverError``."""
        return await self._use(lambda kernel, index: self._write(kernel, index, changes)) if changes else ()

    async def watch(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever an address of the interface changes (by whomever), for ever; it outlives errors."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                with _notifications() as notifications:
                    while True:
                        try:
                            if self._concerned(await loop.sock_recv(notifications, 65536)):
                                wake()
                        except OSError as exc:
                            if exc.errno != errno.ENOBUFS:
                                raise
                            wake()  # notifications were lost: look
            except OSError:
                wake()
                await asyncio.sleep(PAUSE)

    def _concerned(self, data: bytes) -> bool:
        kinds = (RTM_NEWADDR, RTM_DELADDR)
        changed = [at + HEADER.size for at, _, kind in netlink.messages(data) if kind in kinds]
        try:
            index = socket.if_nametoindex(self._interface)
        except OSError:
            return True  # it may be gone, and our addresses with it
        return any(address_messages.interface_of(data, at) == index for at in changed)

    async def _use(self, work: Callable[[AddressSocket, int], T]) -> T:
        """Do blocking work with a socket of this thread's network namespace, one at a time. Raises ``DriverError``."""
        try:
            kernel = self._kernel = self._kernel or AddressSocket()
            return await asyncio.to_thread(self._locked, work, kernel)
        except BaseException as exc:
            self.close()
            raise self._explained(exc) from exc

    def _locked(self, work: Callable[[AddressSocket, int], T], kernel: AddressSocket) -> T:
        with self._lock:
            return work(kernel, kernel.index_of(self._interface))

    def close(self) -> None:
        """Close the socket; the next use opens another."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def _explained(self, exc: BaseException) -> BaseException:
        """With what an operator can do about it."""
        match exc:
            case _NotAllowed():
                return DriverError(
                    f"the kernel does not let this process change addresses of {self._interface}: it needs "
                    "CAP_NET_ADMIN; run it as root, or with AmbientCapabilities=CAP_NET_ADMIN in its systemd unit"
                )
            case DriverError() if not isinstance(exc, InterfaceMissing):
                return DriverError(f"addresses of {self._interface}: {exc}")
        return exc

    def _marked(self, kernel: AddressSocket, index: int) -> list[Address]:
        """The host addresses on the interface that carry our mark, in the kernel's order."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._listed(kernel, index)
            except DumpInterrupted:
                continue
        return self._listed(kernel, index)

    def _listed(self, kernel: AddressSocket, index: int) -> list[Address]:
        if len(self._read) > REMEMBERED:
            self._read.clear()
            self._added.clear()
        vips: dict[Address, None] = {}
        for data, start, end in kernel.dump(*address_messages.ASK):
            if address_messages.interface_of(data, start) != index:
                continue
            message = data[start:end]
            if message not in self._read:
                ours = address_messages.ours(message)
                self._read[message] = ours and self._added.get(ours, ours)
            if (vip := self._read[message]) is not None:
                vips[vip] = None
        return list(vips)

    # ------------------------------------------------------------ writing

    def _write(self, kernel: AddressSocket, index: int, changes: Sequence[Change]) -> list[Failure]:
        """Make the changes; what was not done, and why."""
        marked = set(self._marked(kernel, index))
        reasons: dict[int, Reason] = {}
        batch: dict[Address, Change] = {}
        for change in changes:
            if change.key in batch:
                reasons |= self._send(kernel, index, marked, batch)
                batch = {}
            if reason := self._impossible(change, marked):
                reasons[id(change)] = reason
            else:
                batch[change.key] = change
        reasons |= self._send(kernel, index, marked, batch)
        return [Failure(change, reasons[id(change)]) for change in changes if id(change) in reasons]

    def _impossible(self, change: Change, marked: Collection[Address]) -> Reason | None:
        """Why a change must not even be tried."""
        vip: Address = change.key
        wanted: VipAddress | None = change.new
        if wanted is not None and wanted.interface != self._interface:
            text = f"{vip}: expected on interface {self._interface}, not {wanted.interface}"
            return Reason("wrong_interface", text, str(vip))
        if wanted is None and vip not in marked:
            text = f"{vip} is not on {self._interface} with our mark (protocol {MARK}); nothing was deleted"
            return Reason("not_ours", text, str(vip))
        return None

    def _send(
        self, kernel: AddressSocket, index: int, marked: set[Address], batch: Mapping[Address, Change]
    ) -> dict[int, Reason]:
        """Make these changes, each of another VIP, and keep ``marked`` up to date; why some were not made."""
        changes = list(batch.values())
        refused, unknown = kernel.exchange([self._request(change, index) for change in changes])
        if errno.EPERM in refused.values():
            raise _NotAllowed
        reasons: dict[int, Reason] = {}
        for place, change in enumerate(changes):
            vip: Address = change.key
            if place in unknown:
                text = f"{vip}: the kernel's answer was lost; the next look tells"
                reasons[id(change)] = Reason("answer_lost", text, str(vip))
            elif place in refused:
                reasons[id(change)] = self._refusal(vip, refused[place], vip in marked)
            elif change.new is None:
                marked.discard(vip)
            else:
                marked.add(vip)
                self._added[vip] = vip
        return reasons

    def _request(self, change: Change, index: int) -> Request:
        if change.new is None:
            return RTM_DELADDR, address_messages.delete(change.key, index)
        return RTM_NEWADDR, address_messages.add(change.key, index, self._interface)

    def _refusal(self, vip: Address, number: int, ours: bool) -> Reason:
        if number == errno.EEXIST and ours:
            return Reason("exists", f"{vip} is on {self._interface} already, with our mark", str(vip))
        if number == errno.EEXIST:
            text = (
                f"{vip} is on {self._interface} already, without our mark (protocol {MARK}), so it is not ours; "
                f"if nothing else needs it, remove it: ip address del {vip}/{vip.max_prefixlen} dev {self._interface}"
            )
            return Reason("not_ours", text, str(vip))
        if number == errno.EADDRNOTAVAIL:
            text = f"{vip} is not on {self._interface}; somebody else deleted it since the last look"
            return Reason("missing", text, str(vip))
        if vip.version == 6 and number in (errno.EACCES, errno.EOPNOTSUPP):
            sysctl = f"net/ipv6/conf/{self._interface}/disable_ipv6=0"
            text = f"{vip}: IPv6 is disabled on {self._interface}; enable it: sysctl -w {sysctl}"
            return Reason("ipv6_disabled", text, str(vip))
        text = f"{vip}: the kernel refused it on {self._interface}: {os.strerror(number)}"
        return Reason("kernel_refused", text, str(vip))


class _NotAllowed(DriverError):
    """This process may not change addresses."""


def _notifications() -> socket.socket:
    """A socket that hears of every address that comes or goes, of both families."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        opened.setblocking(False)
        opened.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
    except OSError:
        opened.close()
        raise
    return opened
