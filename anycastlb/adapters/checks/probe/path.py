"""Find the path of a probe through IPVS: its source address and its hop limit, by this machine's routes.

A backend that lost the VIP but forwards packets (it runs containers, say) sends the probe on to its router, which
takes it to another node, which gives it to a healthy backend, which answers: the probe would find everything in order.
So a probe to a backend on a network of this node's own gets no further than that. Towards a backend behind routers
nobody knows how far is too far; there the probe's range is the system's.

It asks the kernel for routes and sends no packet (docs/decisions/0004).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address

from anycastlb.adapters.checks.probe.sockets import family
from anycastlb.adapters.system.netlink import attribute, attributes
from anycastlb.core.model import Address, ForwardPath, Network, ProbePath

WORLD = {4: ip_address("203.0.113.1"), 6: ip_address("2001:db8:ffff::1")}
"""An address that is reached by the default route."""
NEAR = 3
"""Hop limit of a probe that is not to leave this node's networks: IPVS takes one, and one router may stand before the
service inside of the backend. Any way over another node takes four."""

_HEADER, _ROUTE = struct.Struct("=IHHII"), struct.Struct("=8BI")
_ERROR, _GET_ROUTE, _REQUEST = 2, 26, 1
_TO, _GATEWAY, _VIA = 1, 5, 18


def find_path(via: ForwardPath, mark: int, foreign: Iterable[Network] = ()) -> ProbePath:
    """How to probe through ``via`` now. Raises OSError if there is no way, or none that an answer could come back by:
    from an address inside ``foreign`` (the VIPs) a probe would never be answered."""
    source = _source(via, foreign)
    near = via.forward != "nat" and not routed(via.address)
    return ProbePath(mark, source, NEAR if near else None)


def _source(via: ForwardPath, foreign: Iterable[Network]) -> Address:
    """The address this node would use towards the backend or, if the VIP is of the other family, the world."""
    far = via.address if via.address.version == via.family else WORLD[via.family]
    with socket.socket(family(far), socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect((str(far), 9))
        own = ip_address(sock.getsockname()[0].partition("%")[0])
    if any(own in network for network in foreign):
        raise OSError(f"this node's only IPv{via.family} address towards {via.address} is the VIP {own}")
    return own


def routed(address: Address) -> bool:
    """Is the next hop towards the address a router, and not the address itself? Raises OSError without a route."""
    route = _ROUTE.pack(family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body = route + attribute(_TO, address.packed)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(1.0)  # the kernel answers at once; never wait for ever
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST, 1, 0) + body)
        answer = sock.recv(65536)
    length, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _ERROR:
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise OSError(code, os.strerror(code))
    names = attributes(answer, _HEADER.size + _ROUTE.size, length)
    return any(name in (_GATEWAY, _VIA) for name, _, _ in names)
