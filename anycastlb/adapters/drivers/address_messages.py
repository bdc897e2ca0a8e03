"""Addresses of interfaces as the kernel's messages: values in, bytes out, and back. Pure, but for the socket.

The layout is that of the kernel's ``include/uapi/linux/if_addr.h``. An address is ours if it carries our mark
(IFA_PROTO, kernel 5.18 or later) and is a host's: a /32 or a /128.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from anycastlb.adapters.system.netlink import attribute, attributes
from anycastlb.adapters.system.route_netlink import RouteNetlink
from anycastlb.core.model import Address

MARK = 99
"""Our IFA_PROTO, the mark of ownership; kernels use 1 to 3."""
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
NLM_F_CREATE, NLM_F_EXCL = 0x400, 0x200
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_FLAGS, IFA_PROTO = 1, 2, 3, 8, 11
IFA_F_NODAD = 0x02
LABEL_LENGTH = 15

_HEAD = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index of the interface."""
ASK = (RTM_GETADDR, _HEAD.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
"""Lists the addresses of all interfaces."""


class AddressSocket(RouteNetlink):
    """A socket for addresses. What it adds must not exist yet: nothing is ever replaced."""

    def _head(self, command: int) -> tuple[int, int, bytes]:
        return command, NLM_F_CREATE | NLM_F_EXCL if command == RTM_NEWADDR else 0, b""


def add(vip: Address, index: int, interface: str) -> bytes:
    """Puts a VIP on an interface, with our mark. The label is for humans, and decides nothing."""
    more = attribute(IFA_PROTO, bytes([MARK]))
    if vip.version == 4:
        label = f"{interface}:alb".encode()[:LABEL_LENGTH]
        more += attribute(IFA_LOCAL, vip.packed) + attribute(IFA_LABEL, label + b"\0")
    else:
        more += attribute(IFA_FLAGS, struct.pack("=I", IFA_F_NODAD))
    return _named(vip, index) + more


def delete(vip: Address, index: int) -> bytes:
    """Takes a VIP from an interface."""
    return _named(vip, index) + (attribute(IFA_LOCAL, vip.packed) if vip.version == 4 else b"")


def _named(vip: Address, index: int) -> bytes:
    family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
    return _HEAD.pack(family, vip.max_prefixlen, 0, 0, index) + attribute(IFA_ADDRESS, vip.packed)


def interface_of(data: bytes, start: int) -> int:
    """The index of the interface that a message speaks of."""
    return int(_HEAD.unpack_from(data, start)[4])


def ours(message: bytes) -> Address | None:
    """The VIP in the payload of one message of a list, if it is ours."""
    family, prefix, *_ = _HEAD.unpack_from(message)
    held = {kind: message[start:end] for kind, start, end in attributes(message, _HEAD.size, len(message))}
    raw = held.get(IFA_LOCAL) or held.get(IFA_ADDRESS, b"")
    if held.get(IFA_PROTO) != bytes([MARK]) or prefix != 8 * len(raw):
        return None
    return IPv4Address(raw) if family == socket.AF_INET else IPv6Address(raw)
