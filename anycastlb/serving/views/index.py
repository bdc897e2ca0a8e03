"""The parts of a ``Snapshot`` joined by what belongs together, built once for one view.

Pure. A service's backend on one VIP is a ``Seat``: the document, the check, the verdict and the kernel's row side by
side, with ``None`` wherever that part does not exist (yet).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from anycastlb.core.decision import probe_marks
from anycastlb.core.model import (
    NO_REASON,
    Address,
    Backend,
    BackendVerdict,
    Check,
    CheckState,
    Damping,
    Destination,
    DestinationKey,
    Gate,
    Reason,
    Service,
    ServiceKey,
    ServiceVerdict,
    Session,
    Snapshot,
    Table,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Seat:
    """One backend of one service on one VIP, and everything known about it."""

    service: Service
    vip: Address
    backend: Backend
    key: DestinationKey
    check: Check
    """As it runs for this VIP: through IPVS it is one for each."""
    state: CheckState | None
    verdict: BackendVerdict | None
    row: Destination | None
    leaves: float | None = None
    """When its row, which nobody asks for any more, will be deleted at the latest."""

    @property
    def drained(self) -> bool:
        """By its document: it has no place in the kernel, but for as long as its flows may end."""
        return self.backend.drain


class Index:
    """Look-ups over one snapshot; ``now`` is monotonic seconds, like every time in the snapshot."""

    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self.snapshot = snapshot
        self.now = now
        self.services: dict[tuple[Address, str], ServiceVerdict] = {}
        self.by_key: dict[ServiceKey, ServiceVerdict] = {}
        self._backends: dict[tuple[ServiceKey, str, str], DestinationKey] = {}
        self._failures = {(f.change.table, f.change.key): f.reason for f in snapshot.failures}
        self._probe_paths = probe_marks.usable(snapshot)
        self._by_vip: dict[Address, list[Service]] = {}
        for vip, verdict in snapshot.decision.verdicts.items():
            self.services |= {(vip, service.service): service for service in verdict.services}
            self.by_key |= {service.key: service for service in verdict.services}
        for key, backend in snapshot.decision.backends.items():
            self._backends[key.service, backend.service, backend.backend] = key
        for service in snapshot.inputs.catalog.services:
            for vip in service.vips:
                self._by_vip.setdefault(vip, []).append(service)

    def vips(self) -> list[Address]:
        """Every VIP the catalog names, a verdict judges, or the loopback still carries; IPv4 first, in order."""
        known = {*self._by_vip, *self.snapshot.decision.verdicts, *self.snapshot.actual.addresses}
        return sorted(known, key=lambda vip: (vip.version, int(vip)))

    def on(self, vip: Address) -> list[Service]:
        return self._by_vip.get(vip, [])

    def verdict(self, vip: Address) -> Verdict | None:
        return self.snapshot.decision.verdicts.get(vip)

    def seats(self, service: Service, vip: Address) -> Iterator[Seat]:
        """The service's backends on this VIP, in canonical order."""
        service_key, leaving = service.key(vip), self.snapshot.decision.memory.leaving
        for backend in service.members(vip):
            plain = DestinationKey(service_key, backend.address, backend.port)
            key = self._backends.get((service_key, service.name, backend.name), plain)
            check, left = service.check(vip, backend), leaving.get(("destinations", key))
            yield Seat(
                service=service,
                vip=vip,
                backend=backend,
                key=key,
                check=check,
                state=self.snapshot.inputs.health.get(check),
                verdict=self.snapshot.decision.backends.get(key),
                row=self.snapshot.actual.destinations.get(key),
                leaves=left.until if left else None,
            )

    def gate(self, vip: Address) -> Gate | None:
        """What this VIP's gate remembers."""
        return self.snapshot.decision.memory.gates.get(vip)

    def damping(self, vip: Address) -> Damping | None:
        """The damping in force for this VIP: that of the first of its services that has one."""
        return next((service.announce.damping for service in self.on(vip) if service.announce.damping), None)

    def probe_path(self, check: Check) -> int | str | None:
        """The mark by which this check goes through IPVS, or why there is none; None if it goes straight."""
        return (
            None if check.via is None else self._probe_paths.get(check.via, "the kernel has no way for the probe yet")
        )

    def probes(self, key: ServiceKey) -> bool:
        """Is it there only for probes through IPVS?"""
        low, high = self.snapshot.inputs.policy.marks
        return key.protocol == "fwmark" and low <= key.port <= high

    def carriers(self, vip: Address) -> list[Session]:
        """The BGP sessions that can carry this VIP's route: those of its family."""
        return [s for s in self.snapshot.speaker.sessions if ip_address(s.peer).version == vip.version]

    def refusal(self, table: Table, key: Any) -> str:
        """Why the machine refused to write this row in the last cycle; empty if it did not."""
        return self.failure(table, key).text

    def refusal_code(self, table: Table, key: Any) -> str:
        """The code of that reason; empty where there is none."""
        return self.failure(table, key).code

    def failure(self, table: Table, key: Any) -> Reason:
        """Why the machine refused to write this row in the last cycle; ``NO_REASON`` if it did not."""
        return self._failures.get((table, key), NO_REASON)

    def age(self, since: float) -> float | None:
        """Seconds since then, never negative; None if that never was."""
        return round(max(0.0, self.now - since), 3) if math.isfinite(since) else None
