"""The services of a snapshot on the VIPs that they serve. (The key of a fwmark service has no VIP.)"""

from __future__ import annotations

from collections.abc import Iterator

from anycastlb.core.model import ServiceVerdict, Snapshot


def service_rows(snapshot: Snapshot) -> Iterator[tuple[tuple[str, str], ServiceVerdict]]:
    """((service, VIP), verdict)."""
    for verdict in snapshot.decision.verdicts.values():
        vip = str(verdict.vip)
        for service in verdict.services:
            yield (service.service, vip), service
