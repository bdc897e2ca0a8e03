"""Can another node take over the flows of a service, and if not, why not: the words for notices and ``why``. Pure.

With ``mh`` the backend of a flow is a function of the packet and the table, which is the same on every node. Whatever
else a flow depends on is known to the node that saw it begin, and to the others only by connection sync. The figures
behind this are in docs/FLOWS.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from anycastlb.core.model import Address, Service

KERNELS_OWN = 900
"""Seconds after which the kernel by itself forgets an idle TCP connection."""


def obstacles(service: Service) -> tuple[tuple[str, str], ...]:
    """Why another node cannot take over its flows, as (place in the document, reason); empty if it can."""
    return tuple(_obstacles(service))


def _obstacles(service: Service) -> Iterator[tuple[str, str]]:
    virtual = service.virtual
    if virtual.scheduler == "sh":
        yield "scheduler", "sh sends most flows elsewhere whenever a backend comes or goes"
    elif virtual.scheduler != "mh":
        yield "scheduler", f"{virtual.scheduler} on another node chooses another backend"
    if virtual.persistence:
        yield "persistence", "which backend a client is held to is known to one node"
    if any(backend.forward == "nat" for backend in service.backends):
        yield "forward", "replies of nat are translated only by a node that knows the flow, so they must follow it"
    if service.protocol == "udp" and virtual.scheduler == "mh" and not virtual.one_packet and not virtual.persistence:
        yield "one_packet", "without one_packet nodes disagree about older flows after a backend came or went"


def only_caches(service: Service) -> bool:
    """Can every flow do without its connection entry, on this node too?"""
    return not any(place != "one_packet" for place, _ in obstacles(service))


def warning(service: Service, sync: bool) -> str:
    """What another node cannot take over, and what mends it: ``place: words``; empty if it can take everything.

    ``sync``: connection sync is on.
    """
    found = obstacles(service)
    if not found:
        return ""
    reasons = "; ".join(reason for _, reason in found)
    mend = (
        "covered by connection sync ([ipvs] sync_interface is set)"
        if sync
        else "connection sync mends that: [ipvs] sync_interface in node.toml, see docs/FLOWS.md"
    )
    return f"{found[0][0]}: another node cannot take over all flows of this service: {reasons}; {mend}"


def timeout_warning(service: Service, tcp_timeout: int | None) -> str:
    """The same about a time-out that ends idle flows of the service; empty if it does not."""
    if tcp_timeout is None or tcp_timeout >= KERNELS_OWN or service.protocol == "udp" or only_caches(service):
        return ""
    place = next(place for place, _ in obstacles(service) if place != "one_packet")
    return (
        f"{place}: flows that are idle for {tcp_timeout} s break: [ipvs] tcp_timeout in node.toml says so for all "
        'services, and only with mh, without nat and persistence, is their backend found again; "auto" leaves it alone'
    )


def mixed_warning(service: Service) -> Address | None:
    """A VIP of the service whose backends have another address family, which connection sync does not allow."""
    for vip in service.vips:
        if any(backend.address.version != vip.version for backend in service.members(vip)):
            return vip
    return None
