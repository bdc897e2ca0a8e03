"""Can another node take over the flows of a service, and if not, why not: for notices and for ``anycastlb why``.

With ``mh`` the backend of a flow is a function of the packet and the table, which is the same on every node. Whatever
else a flow depends on is known to the node that saw it begin, and to the others only by connection sync. The figures
behind this are in docs/FLOWS.md.

Pure. Decision record: docs/decisions/0007-kernel-settings-as-state.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from anycastlb.core.model import Address, Reason, Service

KERNELS_OWN = 900
"""Seconds after which the kernel by itself forgets an idle TCP connection."""


def obstacles(service: Service) -> tuple[Reason, ...]:
    """Why another node cannot take over its flows; the object of each is the place in the document. Empty: it can."""
    return tuple(_obstacles(service))


def _obstacles(service: Service) -> Iterator[Reason]:
    virtual = service.virtual
    if virtual.scheduler == "sh":
        yield Reason("scheduler_sh", "sh sends most flows elsewhere whenever a backend comes or goes", "scheduler")
    elif virtual.scheduler != "mh":
        yield Reason("scheduler_local", f"{virtual.scheduler} on another node chooses another backend", "scheduler")
    if virtual.persistence:
        yield Reason("persistence", "which backend a client is held to is known to one node", "persistence")
    if any(backend.upper for backend in service.backends):
        text = "a backend that is full on one node (max_connections) may not be on another"
        yield Reason("full_backends", text, "backends")
    if any(backend.forward == "nat" for backend in service.backends):
        text = "replies of nat are translated only by a node that knows the flow, so they must follow it"
        yield Reason("nat", text, "forward")
    if service.protocol == "udp" and virtual.scheduler == "mh" and not virtual.one_packet and not virtual.persistence:
        text = "without one_packet nodes disagree about older flows after a backend came or went"
        yield Reason("one_packet", text, "one_packet")


def only_caches(service: Service) -> bool:
    """Can every flow do without its connection entry, on this node too?"""
    return not any(obstacle.code != "one_packet" for obstacle in obstacles(service))


def warning(service: Service, sync: bool) -> Reason | None:
    """What another node cannot take over, and the remedy; None if it can take over everything.

    The object is the place in the document. ``sync``: connection sync is on.
    """
    known = obstacles(service)
    if not known:
        return None
    reasons = "; ".join(obstacle.text for obstacle in known)
    remedy = (
        "covered by connection sync ([ipvs] sync_interface is set)"
        if sync
        else "connection sync mends that: [ipvs] sync_interface in node.toml, see docs/FLOWS.md"
    )
    text = f"another node cannot take over all flows of this service: {reasons}; {remedy}"
    return Reason("flows_stay", text, known[0].object)


def timeout_warning(service: Service, tcp_timeout: int | None) -> Reason | None:
    """Warning if ``tcp_timeout`` would break idle flows of this service, else None."""
    if tcp_timeout is None or tcp_timeout >= KERNELS_OWN or service.protocol == "udp" or only_caches(service):
        return None
    place = obstacles(service)[0].object
    text = (
        f"flows that are idle for {tcp_timeout} s break: [ipvs] tcp_timeout in node.toml says so for all "
        'services, and only with mh, without nat and persistence, is their backend found again; "auto" leaves it alone'
    )
    return Reason("timeout_breaks_flows", text, place)


def mixed_warning(service: Service) -> Address | None:
    """A VIP of the service whose backends have another address family, which connection sync does not allow."""
    for vip in service.vips:
        if any(backend.address.version != vip.version for backend in service.members(vip)):
            return vip
    return None
