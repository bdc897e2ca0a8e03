"""Filters that mark packets at the ingress of an interface, as the kernel's messages: values in, bytes out, and back.

The layout is that of the kernel's ``include/uapi/linux``: ``rtnetlink.h``, ``pkt_sched.h``, ``pkt_cls.h`` and
``tc_act/tc_skbedit.h``. A filter is ours if its action carries our cookie; where in the list it stands is not asked.
``tc filter show dev INTERFACE ingress`` shows them.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from anycastlb.adapters.system.netlink import attribute, attributes
from anycastlb.adapters.system.route_netlink import RouteNetlink
from anycastlb.core.model.base import Address

COOKIE = b"anycastlb"
"""The mark of ownership, at most 16 bytes; only who made an action can set it."""
PREFERENCE = {4: 1041, 6: 1061}
"""Where our filters stand in the list: one place for each family, since the kernel keeps one protocol in one place."""
RTM_NEWQDISC, RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 36, 44, 45, 46
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
CLSACT, CLSACT_HANDLE, INGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_FLOWER_ACT, TCA_FLOWER_KEY_ETH_TYPE, TCA_FLOWER_KEY_IP_PROTO, TCA_FLOWER_KEY_TCP_DST = 3, 8, 9, 19
TCA_FLOWER_KEY_TCP_DST_MASK = 36
DESTINATION = {4: (12, 13), 6: (16, 17)}
"""TCA_FLOWER_KEY_IPV4_DST and _IPV6_DST, and their masks."""
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_ACT_COOKIE = 1, 2, 6
TCA_SKBEDIT_PARMS, TCA_SKBEDIT_MARK = 2, 5
CONTINUE = -1
"""TC_ACT_UNSPEC: after the packet is marked, other programs' filters are asked as if ours did not exist."""
ETHER_TYPE = {4: 0x0800, 6: 0x86DD}

_HEAD = struct.Struct("=BxxxiIII")
"""struct tcmsg: family, index of the interface, handle, parent, and preference and protocol in one."""
_PARMS = struct.Struct("=IIiii")
"""struct tc_skbedit: index, capabilities, action, and two counts of the kernel's."""
CREATE, CHANGE, DELETE, LIST, OPEN = range(5)
"""What is asked for: a filter that must not exist yet, one that does, none, all, and the place where they hang."""
_REQUESTS = {
    CREATE: (RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL),
    CHANGE: (RTM_NEWTFILTER, NLM_F_REPLACE),
    DELETE: (RTM_DELTFILTER, 0),
    LIST: (RTM_GETTFILTER, 0),
    OPEN: (RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL),
}


class IngressSocket(RouteNetlink):
    """A socket for filters at the ingress of interfaces."""

    def _head(self, command: int) -> tuple[int, int, bytes]:
        return (*_REQUESTS[command], b"")


def opening(index: int) -> bytes:
    """Gives an interface the place where filters of its ingress hang (qdisc ``clsact``)."""
    return _HEAD.pack(socket.AF_UNSPEC, index, CLSACT_HANDLE, CLSACT, 0) + attribute(TCA_KIND, b"clsact\0")


def listing(index: int) -> bytes:
    return _HEAD.pack(socket.AF_UNSPEC, index, 0, INGRESS, 0)


def marking(index: int, vip: Address, port: int, mark: int, handle: int = 0) -> bytes:
    """Marks the TCP packets to a port of a VIP. ``handle``: that of the filter that is there; 0 for a new one."""
    address, mask = DESTINATION[vip.version]
    parms = attribute(TCA_SKBEDIT_PARMS, _PARMS.pack(0, 0, CONTINUE, 0, 0))
    action = attribute(TCA_ACT_KIND, b"skbedit\0") + attribute(TCA_ACT_COOKIE, COOKIE)
    action += attribute(TCA_ACT_OPTIONS, parms + attribute(TCA_SKBEDIT_MARK, struct.pack("=I", mark)))
    options = (
        attribute(TCA_FLOWER_KEY_ETH_TYPE, struct.pack("!H", ETHER_TYPE[vip.version]))
        + attribute(TCA_FLOWER_KEY_IP_PROTO, bytes([socket.IPPROTO_TCP]))
        + attribute(address, vip.packed)
        + attribute(mask, b"\xff" * len(vip.packed))
        + attribute(TCA_FLOWER_KEY_TCP_DST, struct.pack("!H", port))
        + attribute(TCA_FLOWER_KEY_TCP_DST_MASK, b"\xff\xff")
        + attribute(TCA_FLOWER_ACT, attribute(1, action))
    )
    return _named(index, vip, handle) + attribute(TCA_KIND, b"flower\0") + attribute(TCA_OPTIONS, options)


def deletion(index: int, vip: Address, handle: int) -> bytes:
    return _named(index, vip, handle) + attribute(TCA_KIND, b"flower\0")


def _named(index: int, vip: Address, handle: int) -> bytes:
    place = PREFERENCE[vip.version] << 16 | socket.htons(ETHER_TYPE[vip.version])
    return _HEAD.pack(socket.AF_UNSPEC, index, handle, INGRESS, place)


def ours(message: bytes) -> tuple[Address, int, int, int] | None:
    """VIP, port, mark and handle of the filter in the payload of one message of a list, if it is ours."""
    held = _held(message, _HEAD.size)
    key = _held(held.get(TCA_OPTIONS, b""))
    action = _held(next(iter(_held(key.get(TCA_FLOWER_ACT, b"")).values()), b""))
    mark = _held(action.get(TCA_ACT_OPTIONS, b"")).get(TCA_SKBEDIT_MARK)
    raw = key.get(DESTINATION[4][0]) or key.get(DESTINATION[6][0])
    port = key.get(TCA_FLOWER_KEY_TCP_DST)
    if action.get(TCA_ACT_COOKIE) != COOKIE or raw is None or port is None or mark is None:
        return None
    vip = IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
    handle = _HEAD.unpack_from(message)[2]
    return vip, int.from_bytes(port, "big"), int(struct.unpack("=I", mark)[0]), int(handle)


def _held(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Attribute -> its payload."""
    return {kind: data[begin:end] for kind, begin, end in attributes(data, start, len(data))}
