"""What the other nodes report of a VIP: who judges it, who serves it, and what is news.

Reports carry what a node's own probes say, and never what it concluded from others (``peer_health``).

Pure. Decision record: docs/decisions/0009-believing-the-other-nodes.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from anycastlb.core.decision.sessions import cut_off
from anycastlb.core.model import Address, Cluster, Status


def statuses(cluster: Cluster) -> tuple[Status, ...] | None:
    """Of the living nodes whose word counts at all; None while nothing is known of any."""
    if not cluster.follows or not cluster.connected:
        return None
    return tuple(
        peer.status for peer in cluster.peers.values() if peer.alive and not peer.error and peer.status is not None
    )


def informed(known: Iterable[Status], vip: Address, names: Iterable[str]) -> list[Status]:
    """Those that judge this VIP's services for traffic of their own."""
    wanted = tuple(names)
    return [
        status
        for status in known
        if not status.stopping
        and not status.drained
        and vip in status.vips
        and all(vip in status.services.get(name, ()) for name in wanted)
    ]


def dead(status: Status, vip: Address, names: Iterable[str]) -> frozenset[str]:
    """The services of which it reaches no backend. (An older node does not say so of one that it keeps open.)"""
    judged = {name: status.services[name][vip] for name in names}
    return frozenset(
        name for name, service in judged.items() if service.dead or (service.total and not (service.up or service.open))
    )


def serves(status: Status, vip: Address, names: Sequence[str]) -> bool:
    """Its route is up, and its own probes say that this is right."""
    summary = status.vips[vip]
    well = summary.own == "well" or (not summary.own and len(dead(status, vip, names)) < len(names))
    return well and announces(status, vip)


def announces(status: Status, vip: Address) -> bool:
    """Its gate is open, and its route reaches a router (an older node counts what ExaBGP has acknowledged)."""
    summary = status.vips[vip]
    return summary.announced and summary.open and vip.version not in cut_off(status.sessions)


def could_hold(status: Status, vip: Address) -> bool:
    """Would it keep the route as the last one? One that is well, and closed, waits for reasons of its own; one without
    a session cannot."""
    summary = status.vips[vip]
    if vip.version in cut_off(status.sessions):
        return False
    return status.ready and (summary.own == "ill" or (summary.own == "well" and summary.open))


def news(before: Cluster, after: Cluster) -> bool:
    """Whether anything has changed that a decision may depend on."""
    old, new = _by_node(before), _by_node(after)
    if old is None or new is None or old.keys() != new.keys():
        return old is not new
    return any(old[name] is not new[name] and _heeded(old[name]) != _heeded(new[name]) for name in new)


def _by_node(cluster: Cluster) -> dict[str, Status] | None:
    known = statuses(cluster)
    return None if known is None else {status.node: status for status in known}


def _heeded(status: Status) -> Any:
    vips = {vip: replace(summary, reason="") for vip, summary in status.vips.items()}
    services = {
        name: {vip: (s.dead, s.down, bool(s.total and not (s.up or s.open))) for vip, s in judged.items()}
        for name, judged in status.services.items()
    }
    lost = cut_off(status.sessions)
    shares = status.gateway_address, status.gateway_address and status.leave and status.leave.stage == "drained"
    return status.ready, status.stopping, status.drained, vips, services, status.withdrawn, lost, shares
