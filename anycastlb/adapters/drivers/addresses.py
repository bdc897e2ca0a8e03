"""Put VIPs on an interface of this node, as /32 and /128 addresses.

An address is ours if it carries our mark (IFA_PROTO, kernel 5.18 or later); any other is invisible and is never deleted
or replaced. The label ``lo:alb`` is for humans (``ip address show label 'lo:alb'``) and decides nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from anycastlb.core.model import Address, Change, DriverError, Failure, Reason, Rows, Table, VipAddress

MARK = 99
"""Our IFA_PROTO, the mark of ownership; kernels use 1 to 3."""
IFA_F_NODAD = 0x02
TIMEOUT = 30.0
"""Seconds for one look or one batch of changes."""
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x10, 0x100
NETLINK_ROUTE = 0
PAUSE = 1.0
"""Seconds before a broken notification socket is opened again."""


class AddressDriver:
    """Table ``addresses``. It opens a socket for every look and every batch, so that none can go stale."""

    tables: tuple[Table, ...] = ("addresses",)

    def __init__(self, interface: str = "lo") -> None:
        self._interface = interface

    async def observe(self) -> Mapping[Table, Rows]:
        """Our addresses on the interface. Raises ``DriverError``."""
        row = VipAddress(self._interface)
        try:
            async with asyncio.timeout(TIMEOUT), AsyncIPRoute(groups=0) as netlink:
                return {"addresses": dict.fromkeys(await self._marked(netlink, self._index()), row)}
        except (OSError, NetlinkError, TimeoutError) as exc:
            raise self._error(exc) from exc

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        """Add and delete addresses in this order. Raises ``DriverError``."""
        if not changes:
            return ()
        failures = []
        try:
            async with asyncio.timeout(TIMEOUT), AsyncIPRoute(groups=0) as netlink:
                index = self._index()
                marked = await self._marked(netlink, index)
                for change in changes:
                    if reason := await self._write(netlink, index, marked, change):
                        failures.append(Failure(change, reason))
        except (OSError, NetlinkError, TimeoutError) as exc:
            raise self._error(exc) from exc
        return failures

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
        try:
            index = socket.if_nametoindex(self._interface)
        except OSError:
            return True  # it is gone, and our addresses with it
        at = 0
        while at + 24 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            # struct ifaddrmsg: family, prefix length, flags, scope (one byte each), interface index
            if kind in (RTM_NEWADDR, RTM_DELADDR) and struct.unpack_from("=I", data, at + 20)[0] == index:
                return True
            if length < 16:
                return True
            at += length + 3 & ~3
        return False

    def _index(self) -> int:
        return socket.if_nametoindex(self._interface)

    async def _marked(self, netlink: Any, index: int) -> set[Address]:
        """The host addresses on the interface that carry our mark."""
        for attempt in range(5):
            try:
                found = [message async for message in await netlink.addr("dump", index=index)]
                return set(filter(None, map(_marked_address, found)))
            except NetlinkDumpInterrupted:
                if attempt == 4:
                    raise
        raise AssertionError("unreachable")

    async def _write(self, netlink: Any, index: int, marked: set[Address], change: Change) -> Reason | None:
        """Make one change; why it was refused, if it was."""
        vip: Address = change.key
        wanted: VipAddress | None = change.new
        if wanted is not None and wanted.interface != self._interface:
            text = f"{vip}: expected on interface {self._interface}, not {wanted.interface}"
            return Reason("wrong_interface", text, str(vip))
        where = {"index": index, "address": str(vip), "prefixlen": vip.max_prefixlen}
        if wanted is None and vip not in marked:
            text = f"{vip} is not on {self._interface} with our mark (protocol {MARK}); nothing was deleted"
            return Reason("not_ours", text, str(vip))
        try:
            if wanted is None:
                await netlink.addr("del", **where)
                marked.discard(vip)
            elif vip.version == 4:
                await netlink.addr("add", **where, proto=MARK, label=f"{self._interface}:alb"[:15])
            else:
                await netlink.addr("add", **where, proto=MARK, flags=IFA_F_NODAD)
        except NetlinkError as exc:
            if exc.code == errno.EPERM:
                raise
            return self._refusal(vip, exc.code, vip in marked)
        return None

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

    def _error(self, exc: BaseException) -> DriverError:
        number = exc.code if isinstance(exc, NetlinkError) else getattr(exc, "errno", None)
        if isinstance(exc, TimeoutError):
            return DriverError(f"addresses of {self._interface}: the kernel did not answer within {TIMEOUT:g} s")
        if number == errno.EPERM:
            return DriverError(
                f"the kernel does not let this process change addresses of {self._interface}: it needs CAP_NET_ADMIN; "
                "run it as root, or with AmbientCapabilities=CAP_NET_ADMIN in its systemd unit"
            )
        try:
            self._index()
        except OSError:
            return DriverError(f"there is no interface {self._interface}")
        return DriverError(f"addresses of {self._interface}: {exc}")


def _marked_address(message: Any) -> Address | None:
    if message.get("proto") != MARK:
        return None
    text = message.get("local") or message.get("address")
    vip: Address = IPv4Address(text) if message["family"] == socket.AF_INET else IPv6Address(text)
    return vip if message["prefixlen"] == vip.max_prefixlen else None


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
