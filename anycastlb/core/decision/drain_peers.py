"""What of the other nodes holds up a planned drain: too few that stay, or tables that differ.

Pure. Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from anycastlb.core.decision.sessions import cut_off
from anycastlb.core.model import Address, Cluster, Drain, Inputs, Peer, Reason


def trouble(inputs: Inputs, routes: Iterable[Address]) -> Reason | None:
    """Why the cluster is not ready to lose this node, which announces ``routes``; None if it is."""
    cluster = inputs.cluster
    if not cluster.follows:
        return None
    if not cluster.connected:
        return Reason("peers_unknown", "the other nodes are not known now")
    forced = inputs.catalog.drains.get(inputs.node, Drain()).force
    if not forced and (ahead := _ahead(inputs)):
        limit = inputs.policy.drain_rules.max_drained
        return Reason("drain_budget", f"{_named(ahead)} drained too, and at most {limit} may be at once")
    if not forced and (alone := last_announced(cluster, routes)):
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        return Reason("last_announcer", f"no other node that stays announces {alone[0]}{more}", str(alone[0]))
    if cluster.catalogs is not None:
        return Reason("catalogs_differ", "the nodes have different catalogs in force")
    if cluster.tables:
        service, difference = min(cluster.tables.items())
        names = sorted(name for names in difference.parties.values() for name in names)
        return Reason("tables_differ", f"the tables of {service} differ between {', '.join(names)}", service)
    return None


def has_peers(inputs: Inputs) -> bool:
    """Is there another living node?"""
    return any(peer.alive for peer in inputs.cluster.peers.values())


def last_announced(cluster: Cluster, vips: Iterable[Address], node: str = "") -> list[Address]:
    """Those of the VIPs that no other living node announces which is to stay; ``node`` does not count."""
    others = [peer for peer in cluster.peers.values() if _stays(peer) and peer.name != node]
    return [vip for vip in vips if not any(_announces(peer, vip) for peer in others)]


def _stays(peer: Peer) -> bool:
    status = peer.status
    if not peer.alive or status is None or peer.error or status.stopping:
        return False
    return not status.drained or (status.leave is not None and status.leave.stage == "waiting")


def _announces(peer: Peer, vip: Address) -> bool:
    status = peer.status
    if status is None or vip not in status.vips or vip.version in cut_off(status.sessions):
        return False
    return status.vips[vip].announced


def _ahead(inputs: Inputs) -> list[str]:
    """The nodes that were drained before this one, if they spend the budget already."""
    limit, catalog = inputs.policy.drain_rules.max_drained, inputs.catalog

    def age(node: str) -> tuple[int, str]:
        entry = catalog.good.get(f"drain/{node}")
        return (entry.created if entry else 0), node

    known = [node for node in catalog.drained if node in inputs.cluster.peers]
    ahead = sorted((node for node in known if age(node) < age(inputs.node)), key=age)
    return ahead if limit and len(ahead) >= limit else []


def _named(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{' and more' if len(names) > 5 else ''} {'is' if len(names) == 1 else 'are'}"
