"""The parts of a ``Snapshot`` joined by what belongs together, built once for one view.

Pure. A service's backend on one VIP is a ``Seat``: the document, the check, the verdict and the kernel's row side by
side, with ``None`` wherever that part does not exist (yet).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeAlias

from anycastlb.core.decision import probe_marks
from anycastlb.core.http.names import original
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
    Gateway,
    HttpServerKey,
    Reason,
    Service,
    ServiceKey,
    ServiceVerdict,
    Session,
    Snapshot,
    Table,
    Verdict,
)


class Seat(NamedTuple):
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


Order: TypeAlias = Mapping[ServiceKey, tuple[DestinationKey, ...]]
"""``Memory.order``."""
Place: TypeAlias = tuple[Backend, DestinationKey, Check]
"""A backend of a service on a VIP, the row it has unless it was decided otherwise, and its check as it runs there."""


def destination_keys(service: Service, vip: Address, order: Order) -> tuple[DestinationKey, ...]:
    """The names of the rows of the service's backends on this VIP: the very ones in ``order``, if they are the same.
    Those are found faster, and take no memory."""
    key, members = service.key(vip), service.members(vip)
    names = order.get(key, ())
    if len(names) == len(members):
        both = zip(names, members, strict=True)
        if all(name.address is one.address and name.port == one.port for name, one in both):
            return names
    return tuple([DestinationKey(key, one.address, one.port) for one in members])


class Places:
    """The backends of each service on each VIP, with the names of their rows and their checks.

    They are remembered for as long as the service is the same object.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, Address], tuple[Service, tuple[Place, ...]]] = {}

    def of(self, service: Service, vip: Address, order: Order) -> tuple[Place, ...]:
        """The service's backends on this VIP, in canonical order. ``order``: of the decision."""
        known, places = self._known.get((service.name, vip), (None, ()))
        if known is not service:
            keys = destination_keys(service, vip, order)
            places = tuple(
                (one, key, service.check(vip, one)) for one, key in zip(service.members(vip), keys, strict=True)
            )
            self._known[service.name, vip] = service, places
        return places

    def keep(self, services: Iterable[Service]) -> None:
        """Forget all services but these."""
        if len(self._known) > sum(len(service.vips) for service in services):
            kept = {(service.name, vip) for service in services for vip in service.vips}
            self._known = {name: known for name, known in self._known.items() if name in kept}


class Index:
    """Look-ups over one snapshot; ``now`` is monotonic seconds, like every time in the snapshot."""

    def __init__(self, snapshot: Snapshot, now: float, places: Places | None = None) -> None:
        self.snapshot = snapshot
        self.now = now
        self.places = places or Places()
        self._failures = {(f.change.table, f.change.key): f.reason for f in snapshot.failures}
        self._probe_paths = probe_marks.usable(snapshot)
        self._by_vip: dict[Address, list[Service]] = {}
        self._gateways: dict[Address, list[Gateway]] = {}
        for service in snapshot.inputs.catalog.services:
            for vip in service.vips:
                self._by_vip.setdefault(vip, []).append(service)
        for gateway in snapshot.inputs.catalog.gateways if self.serves_http else ():
            for vip in gateway.vips:
                self._gateways.setdefault(vip, []).append(gateway)

    @cached_property
    def by_key(self) -> dict[ServiceKey, ServiceVerdict]:
        verdicts = self.snapshot.decision.verdicts.values()
        return {service.key: service for verdict in verdicts for service in verdict.services}

    @cached_property
    def _by_name(self) -> dict[tuple[ServiceKey, str, str], DestinationKey]:
        """Service and backend -> the row that was decided on, also after its address has changed in the catalog."""
        backends = self.snapshot.decision.backends.items()
        return {(key.service, verdict.service, verdict.backend): key for key, verdict in backends}

    @cached_property
    def http_servers(self) -> dict[tuple[str, str], list[HttpServerKey]]:
        """The rows of each backend of a pool, by the pool's name and the backend's name as HAProxy has it."""
        rows: dict[tuple[str, str], list[HttpServerKey]] = {}
        for key in {**self.snapshot.decision.desired.http_servers, **self.snapshot.actual.http_servers}:
            rows.setdefault((original(key.section), key.server), []).append(key)
        return rows

    def vips(self) -> list[Address]:
        """Every VIP the catalog names, a verdict judges, or the loopback still carries; IPv4 first, in order."""
        known = {*self._by_vip, *self._gateways, *self.snapshot.decision.verdicts, *self.snapshot.actual.addresses}
        return sorted(known, key=lambda vip: (vip.version, int(vip)))

    def on(self, vip: Address) -> list[Service]:
        return self._by_vip.get(vip, [])

    @property
    def serves_http(self) -> bool:
        """Does this node serve gateways?"""
        return self.snapshot.inputs.policy.http

    def gateways_on(self, vip: Address) -> list[Gateway]:
        """The gateways on this VIP that this node serves."""
        return self._gateways.get(vip, [])

    def leaving(self, vip: Address) -> bool:
        """Does nothing of the catalog ask for this VIP any more?"""
        return vip not in self._by_vip and vip not in self._gateways

    def verdict(self, vip: Address) -> Verdict | None:
        return self.snapshot.decision.verdicts.get(vip)

    def service(self, vip: Address, name: str) -> ServiceVerdict | None:
        """What was decided of a service on this VIP."""
        verdict = self.verdict(vip)
        return next((one for one in verdict.services if one.service == name), None) if verdict else None

    def places_of(self, service: Service, vip: Address) -> tuple[Place, ...]:
        """The service's backends on this VIP, in canonical order, whatever is known of them."""
        return self.places.of(service, vip, self.snapshot.decision.memory.order)

    def seats(self, service: Service, vip: Address) -> Iterator[Seat]:
        """The service's backends on this VIP, in canonical order."""
        decision, actual, health = self.snapshot.decision, self.snapshot.actual, self.snapshot.inputs.health
        leaving = decision.memory.leaving
        for backend, plain, check in self.places_of(service, vip):
            key, verdict = plain, decision.backends.get(plain)
            if verdict is None or (verdict.service, verdict.backend) != (service.name, backend.name):
                key = self._by_name.get((plain.service, service.name, backend.name), plain)
                verdict = decision.backends.get(key)
            left = leaving.get(("destinations", key)) if leaving else None
            state, row = health.get(check), actual.destinations.get(key)
            yield Seat(service, vip, backend, key, check, state, verdict, row, left.until if left else None)

    def gate(self, vip: Address) -> Gate | None:
        """What this VIP's gate remembers."""
        return self.snapshot.decision.memory.gates.get(vip)

    def damping(self, vip: Address) -> Damping | None:
        """The damping in force for this VIP: that of the first of its services and gateways that has one."""
        announced = [*(one.announce for one in self.on(vip)), *(one.announce for one in self.gateways_on(vip))]
        return next((announce.damping for announce in announced if announce.damping), None)

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
        return self._failures.get((table, key), NO_REASON) if self._failures else NO_REASON

    def left(self, until: float) -> float:
        """Seconds until then, never negative."""
        return round(max(0.0, until - self.now), 3)

    def age(self, since: float) -> float | None:
        """Seconds since then, never negative; None if that never was."""
        return round(max(0.0, self.now - since), 3) if math.isfinite(since) else None
