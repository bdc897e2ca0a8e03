"""Ask the kernel for interfaces, their addresses, and the route a packet would take. It reads only.

pyroute2 is loaded when it is asked for the first time: a daemon, which asks for none of this, starts without its 160
modules.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from anycastlb.core.model import Address, DriverError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

IFF_UP = 1


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    mtu: int
    up: bool
    addresses: tuple[str, ...] = ()
    """``192.0.2.1/24``."""


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """The way to an address, or why there is none."""

    interface: str = ""
    mtu: int = 0
    """Of the route if it has one, else of the interface."""
    gateway: str = ""
    error: str = ""


def read_interfaces(targets: Iterable[Address]) -> tuple[tuple[Interface, ...], dict[Address, KernelRoute]]:
    """Every interface, and the route to each target. Raises ``DriverError``."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as netlink:
            held: dict[int, list[str]] = {}
            for message in netlink.get_addr():
                text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                held.setdefault(message["index"], []).append(f"{text}/{message['prefixlen']}")
            links = {
                message["index"]: Interface(
                    message.get_attr("IFLA_IFNAME"),
                    message.get_attr("IFLA_MTU"),
                    bool(message["flags"] & IFF_UP),
                    tuple(held.get(message["index"], ())),
                )
                for message in netlink.get_links()
            }
            return tuple(links.values()), {target: _route(netlink, target, links) for target in targets}
    except (OSError, NetlinkError) as exc:
        raise DriverError(f"interfaces and routes cannot be read: {exc}") from exc


def _route(netlink: IPRoute, target: Address, links: dict[int, Interface]) -> KernelRoute:
    from pyroute2.netlink.exceptions import NetlinkError

    family = socket.AF_INET6 if target.version == 6 else socket.AF_INET
    try:
        (message, *_) = netlink.route("get", dst=str(target), family=family)
    except NetlinkError as exc:
        return KernelRoute(error=os.strerror(exc.code).lower())
    link = links.get(message.get_attr("RTA_OIF") or 0)
    if link is None:
        return KernelRoute(error="it has no interface")
    metrics = message.get_attr("RTA_METRICS")
    own = metrics.get_attr("RTAX_MTU") if metrics is not None else None
    gateway = message.get_attr("RTA_GATEWAY")
    return KernelRoute(link.name, own or link.mtu, str(ip_address(gateway)) if gateway else "")
