"""What is known of the other nodes, as metrics.

Pure. Labels are this node's own VIPs and services, never names that a peer made up.
"""

from __future__ import annotations

from collections.abc import Iterator

from anycastlb.metrics.families import Sample, Told, one, told
from anycastlb.model import Snapshot


def cluster(snapshot: Snapshot, now: float) -> Iterator[Told]:
    """Nothing for a node that cannot know of others."""
    known = snapshot.inputs.cluster
    if not known.follows:
        return
    living = [peer for peer in known.peers.values() if peer.alive]
    age = 0.0 if known.connected else max(0.0, now - known.since)
    routes, catalogs = snapshot.actual.routes, known.catalogs
    announcers: list[Sample] = [
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
    differing: list[Sample] = [
        ((service.name,), float(service.name in known.tables)) for service in snapshot.inputs.catalog.services
    ]
    yield told("cluster_connected", one(known.connected))
    yield told("cluster_age_seconds", one(age))
    yield told("cluster_published", one(known.published))
    yield told("cluster_peers_alive", one(len(living)))
    yield told("cluster_peers_gone", one(len(known.peers) - len(living)))
    yield told("cluster_peers_unreadable", one(sum(bool(peer.error) for peer in living)))
    yield told("cluster_catalog_differs", one(catalogs is not None))
    yield told("vip_announcers", announcers)
    yield told("table_differs", differing)
