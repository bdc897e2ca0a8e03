"""The cluster as JSON-ready dicts: every node's status, who announces what, where nodes differ.

Pure. This node's own entry comes from its own snapshot, never from what it published; the others are as they were last
known, with their age. A difference is shown once it has lasted ``MOMENT``: nodes never change at the very same time.
"""

from __future__ import annotations

from typing import Any

from anycastlb import __version__
from anycastlb.adapters.cluster import status_document
from anycastlb.core.decision import drain_traffic, sessions
from anycastlb.core.model import Address, Difference, Drain, Peer, Snapshot, Status

View = dict[str, Any]
MOMENT = 5.0
"""Seconds that a difference must last."""
FORGOTTEN = 600.0
"""Seconds for which a node that has vanished is shown."""


def nodes_view(snapshot: Snapshot, now: float) -> View:
    """``GET /v1/nodes``: this node first, the others by name."""
    cluster = snapshot.inputs.cluster
    own = status_document.summarise(snapshot, cluster.started)
    age = _age(snapshot.at, now) if snapshot.cycle else None
    mine = _node(own, True, True, "", age)
    mine["drain"] = drain_view(snapshot, now)
    return {"nodes": [mine, *(_peer(peer, now, snapshot) for peer in shown(snapshot, now))], **_standing(snapshot, now)}


def node_view(snapshot: Snapshot, now: float, name: str) -> View | None:
    """One of them; None if there is no such node."""
    views: list[View] = nodes_view(snapshot, now)["nodes"]
    return next((view for view in views if view["name"] == name), None)


def drain_view(snapshot: Snapshot, now: float) -> View | None:
    """How far this node has left the routes, with what still comes to it; None if it does not leave."""
    inputs, drain = snapshot.inputs, snapshot.decision.memory.node_drain
    view = _drain(Status(inputs.node, leave=status_document.leaving(snapshot)), snapshot)
    if view is None or drain is None:
        return None
    eta = drain_traffic.eta(drain, now)
    return {
        **view,
        "connections": drain.samples[-1].connections if drain.samples else None,
        "packets_per_second": round(drain_traffic.rate(drain), 1) if len(drain.samples) > 1 else None,
        "eta_seconds": None if eta is None else round(eta, 1),
    }


def budget(snapshot: Snapshot) -> View:
    """How many nodes may be drained at once, and which are; ``exceeded`` if there are more."""
    limit, drained = snapshot.inputs.policy.drain_rules.max_drained, sorted(snapshot.inputs.catalog.drained)
    return {"max_drained": limit, "drained": drained, "exceeded": bool(limit) and len(drained) > limit}


def shown(snapshot: Snapshot, now: float) -> list[Peer]:
    """The other nodes, without those that vanished long ago."""
    return [peer for peer in snapshot.inputs.cluster.peers.values() if peer.alive or now - peer.since <= FORGOTTEN]


def cluster_brief(snapshot: Snapshot, now: float) -> View:
    """What the picture of one node says of the others."""
    inputs = snapshot.inputs
    lacking = status_document.missing(snapshot)
    own = {
        "name": inputs.node,
        "self": True,
        "alive": True,
        "error": "",
        "version": __version__,
        "ready": not lacking,
        "missing": lacking,
        "drained": inputs.node in inputs.catalog.drained,
        "drain": drain_view(snapshot, now),
        "stopping": inputs.stopping,
        "index": inputs.catalog.index,
        "announced": len(sessions.carried(snapshot.actual.routes, snapshot.speaker)),
        "vips": len(snapshot.decision.verdicts),
        "age_seconds": _age(snapshot.at, now) if snapshot.cycle else None,
    }
    peers = [_brief(peer, now, snapshot) for peer in shown(snapshot, now)]
    by_vip = {str(vip): names for vip, names in announcers(snapshot).items()}
    return {"nodes": [own, *peers], "announcers": by_vip, **_standing(snapshot, now)}


def announcers(snapshot: Snapshot) -> dict[Address, list[str]]:
    """By VIP, the living nodes that announce it; this node first. Every VIP known here is named."""
    known = {**dict.fromkeys(snapshot.decision.verdicts), **dict.fromkeys(snapshot.actual.routes)}
    own = sessions.carried(snapshot.actual.routes, snapshot.speaker)
    nodes = {vip: [snapshot.inputs.node] if vip in own else [] for vip in known}
    for peer in snapshot.inputs.cluster.peers.values():
        for vip, summary in peer.status.vips.items() if peer.alive and peer.status and not peer.error else ():
            if summary.announced:
                nodes.setdefault(vip, []).append(peer.name)
    return nodes


def lasting(difference: Difference, now: float) -> bool:
    return now - difference.since >= MOMENT


def _standing(snapshot: Snapshot, now: float) -> View:
    cluster = snapshot.inputs.cluster
    catalogs = cluster.catalogs if cluster.catalogs and lasting(cluster.catalogs, now) else None
    return {
        "follows": cluster.follows,
        "alone": cluster.alone,
        "connected": cluster.connected,
        "since_seconds": _age(cluster.since, now) if cluster.follows else None,
        "error": cluster.error,
        "published": cluster.published,
        "differs": [
            {"service": service, "nodes": _parties(difference)}
            for service, difference in sorted(cluster.tables.items())
            if lasting(difference, now)
        ],
        "catalogs_differ": _parties(catalogs) if catalogs else {},
        "budget": budget(snapshot),
    }


def _drain(status: Status | None, snapshot: Snapshot) -> View | None:
    """What a node says of its leaving; what still comes to it, only itself can tell."""
    if status is None or status.leave is None:
        return None
    known = snapshot.inputs.catalog.drains.get(status.node, Drain())
    names = ("stage", "cause", "reason", "since", "deadline", "asked")
    fields = {name: getattr(status.leave, name) for name in names}
    live = ("connections", "packets_per_second", "eta_seconds")
    return {**fields, "reason_code": status.leave.code, "why": known.reason, "by": known.by, **dict.fromkeys(live)}


def _parties(difference: Difference) -> dict[str, list[str]]:
    return {digest: list(names) for digest, names in difference.parties.items()}


def _peer(peer: Peer, now: float, snapshot: Snapshot) -> View:
    view = _node(peer.status or Status(peer.name), False, peer.alive, peer.error, _age(peer.since, now))
    return {**view, "drain": _drain(peer.status, snapshot)}


def _node(status: Status, own: bool, alive: bool, error: str, age: float | None) -> View:
    return {
        "name": status.node,
        "self": own,
        "alive": alive,
        "error": error,
        "version": status.version,
        "started": status.started,
        "drained": status.drained,
        "drain": None,
        "stopping": status.stopping,
        "ready": status.ready,
        "missing": list(status.missing),
        "catalog": {
            "index": status.catalog.index,
            "hash": status.catalog.hash,
            "connected": status.catalog.connected,
            "cached": status.catalog.cached,
            "held": status.catalog.held,
        },
        "vips": {
            str(vip): {"announced": item.announced, "open": item.open, "reason": item.reason}
            for vip, item in status.vips.items()
        },
        "services": {
            service: {
                str(vip): {"open": item.open, "up": item.up, "total": item.total, "down": list(item.down)}
                for vip, item in vips.items()
            }
            for service, vips in status.services.items()
        },
        "digests": dict(status.digests),
        "sessions": [{"peer": session.peer, "state": session.state} for session in status.sessions],
        "omitted": list(status.omitted),
        "age_seconds": age,
    }


def _brief(peer: Peer, now: float, snapshot: Snapshot) -> View:
    status = peer.status or Status(peer.name)
    return {
        "name": peer.name,
        "self": False,
        "alive": peer.alive,
        "error": peer.error,
        "version": status.version,
        "ready": status.ready,
        "missing": list(status.missing),
        "drained": status.drained,
        "drain": _drain(peer.status, snapshot),
        "stopping": status.stopping,
        "index": status.catalog.index,
        "announced": sum(item.announced for item in status.vips.values()),
        "vips": len(status.vips),
        "age_seconds": _age(peer.since, now),
    }


def _age(since: float, now: float) -> float:
    return round(max(0.0, now - since), 3)
