"""Ask the kernel whether it would deliver packets for an address to this node itself. No packet is sent.

A socket that is connected to the address does not tell: of several own addresses in one network the kernel answers from
the first, and for 127.9.9.9 from 127.0.0.1.
"""

from __future__ import annotations

import socket
import struct

from anycastlb.adapters.system.netlink import HEADER, NLM_F_REQUEST, attribute
from anycastlb.core.model import Address

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTA_DST = 1
RTN_LOCAL, RTN_ANYCAST = 2, 4
ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags."""
SECONDS = 1.0
"""The kernel answers at once; the bound only keeps a probe from waiting for ever."""


def is_own(address: Address) -> bool:
    """Is it one of this node's addresses, in this thread's network namespace? False, too, if there is no way to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    asked = ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    asked += attribute(RTA_DST, address.packed)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
            kernel.settimeout(SECONDS)
            kernel.send(HEADER.pack(HEADER.size + len(asked), RTM_GETROUTE, NLM_F_REQUEST, 1, 0) + asked)
            answer = kernel.recv(4096)
    except OSError:
        return False  # there is no way to it, and nobody is reached
    _, kind, _, _, _ = HEADER.unpack_from(answer)
    if kind != RTM_NEWROUTE:
        return False
    return ROUTE.unpack_from(answer, HEADER.size)[7] in (RTN_LOCAL, RTN_ANYCAST)
