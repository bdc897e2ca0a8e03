"""What is known of the cluster as figures for metrics: name, help, samples (label values, value), label names.

Pure. Labels are this node's own VIPs and services, never names that a peer made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from anycastlb.model import Snapshot

Samples: TypeAlias = list[tuple[tuple[str, ...], float]]
Figure: TypeAlias = tuple[str, str, Samples, tuple[str, ...]]


def figures(snapshot: Snapshot, now: float) -> Iterator[Figure]:
    """Nothing for a node that cannot know of others."""
    cluster = snapshot.inputs.cluster
    if not cluster.follows:
        return
    living = [peer for peer in cluster.peers.values() if peer.alive]
    age = 0.0 if cluster.connected else max(0.0, now - cluster.since)
    routes, catalogs = snapshot.actual.routes, cluster.catalogs
    announcers: Samples = [
        (
            (str(vip),),
            float(vip in routes)
            + sum(
                bool(peer.status and not peer.error and vip in peer.status.vips and peer.status.vips[vip].announced)
                for peer in living
            ),
        )
        for vip in snapshot.decision.verdicts
    ]
    differing: Samples = [
        ((service.name,), float(service.name in cluster.tables)) for service in snapshot.inputs.catalog.services
    ]
    yield _one("cluster_connected", "1 while the statuses of the other nodes are followed.", cluster.connected)
    yield _one("cluster_age_seconds", "For how long they could not be; 0 while they are.", age)
    yield _one(
        "cluster_published", "1 while this node's own status stands where the others read it.", cluster.published
    )
    yield _one("cluster_peers_alive", "Other nodes whose session lives.", len(living))
    yield _one("cluster_peers_gone", "Other nodes that vanished lately.", len(cluster.peers) - len(living))
    yield _one("cluster_peers_unreadable", "Nodes whose status is garbage.", sum(bool(p.error) for p in living))
    yield _one("cluster_catalog_differs", "1 while living nodes have different catalogs.", catalogs is not None)
    yield "vip_announcers", "Living nodes that announce this VIP, this one included.", announcers, ("vip",)
    yield (
        "table_differs",
        "1 while nodes with the same catalog have different tables for this service.",
        differing,
        ("service",),
    )


def _one(name: str, text: str, value: float) -> Figure:
    return name, text, [((), float(value))], ()
