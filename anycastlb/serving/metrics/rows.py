"""Services and backends of a snapshot, with the label values they are known by. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from anycastlb.core.model import Backend, BackendVerdict, CheckState, DestinationKey, ServiceVerdict, Snapshot


@dataclass(frozen=True, slots=True)
class BackendRow:
    """One backend under one VIP it serves. (The key of a fwmark service has no VIP.)"""

    labels: tuple[str, str, str]
    """Service, backend, VIP."""
    key: DestinationKey
    backend: Backend
    verdict: BackendVerdict
    state: CheckState | None


def service_rows(snapshot: Snapshot) -> Iterator[tuple[tuple[str, str], ServiceVerdict]]:
    """((service, VIP), verdict)."""
    for verdict in snapshot.decision.verdicts.values():
        vip = str(verdict.vip)
        for service in verdict.services:
            yield (service.service, vip), service
