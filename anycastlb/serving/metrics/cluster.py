"""What is known of the other nodes, as metrics.

Pure. Labels are this node's own VIPs and services, never names that a peer made up.
"""

from __future__ import annotations

from collections.abc import Iterator

from anycastlb.core.decision import sessions
from anycastlb.core.model import Snapshot
from anycastlb.serving.metrics.families import FamilySamples, Sample, one, samples_of


def cluster_metrics(snapshot: Snapshot, now: float) -> Iterator[FamilySamples]:
    """Nothing for a node that cannot know of others."""
    known = snapshot.inputs.cluster
    if not known.follows:
        return
    living = [peer for peer in known.peers.values() if peer.alive]
    age = 0.0 if known.connected else max(0.0, now - known.since)
    routes, catalogs = sessions.carried(snapshot.actual.routes, snapshot.speaker), known.catalogs
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
    yield samples_of("cluster_connected", one(known.connected))
    yield samples_of("cluster_age_seconds", one(age))
    yield samples_of("cluster_published", one(known.published))
    yield samples_of("cluster_peers_alive", one(len(living)))
    yield samples_of("cluster_peers_gone", one(len(known.peers) - len(living)))
    yield samples_of("cluster_peers_unreadable", one(sum(bool(peer.error) for peer in living)))
    yield samples_of("cluster_catalog_differs", one(catalogs is not None))
    yield samples_of("vip_announcers", announcers)
    yield samples_of("table_differs", differing)
