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


def backend_rows(snapshot: Snapshot) -> Iterator[BackendRow]:
    """Every backend of which the decision has a verdict."""
    decision, health = snapshot.decision, snapshot.inputs.health
    for service in snapshot.inputs.catalog.services:
        for vip in service.vips:
            key, shown = service.key(vip), str(vip)
            for backend in service.members(vip) if vip in decision.verdicts else ():
                at = DestinationKey(key, backend.address, backend.port)
                if (verdict := decision.backends.get(at)) is not None:
                    state = health.get(service.check(vip, backend))
                    yield BackendRow((service.name, backend.name, shown), at, backend, verdict, state)
