"""Make the status that a node publishes, and find where the statuses of several nodes differ.

Pure. ``status_bytes`` says how a status is written (docs/decisions/0009).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar

from anycastlb import __version__
from anycastlb.core.catalog.fingerprint import fingerprint
from anycastlb.core.decision import sessions
from anycastlb.core.decision.rows import by_service
from anycastlb.core.delta import delta
from anycastlb.core.model import (
    Address,
    BackendVerdict,
    Catalog,
    CatalogSummary,
    Decision,
    Destination,
    DestinationKey,
    Difference,
    DrainSummary,
    Route,
    Service,
    ServiceKey,
    ServiceSummary,
    Snapshot,
    Speaker,
    State,
    Status,
    Verdict,
    VipSummary,
    VirtualService,
    gateway_on_vip,
)

K = TypeVar("K")
V = TypeVar("V")
ALL = ("*",)
"""In place of the names when every backend of a service is down."""
MAX_MISSING = 300
"""Characters of one thing a node waits for."""


# ---------------------------------------------------------------- of this node


def missing(snapshot: Snapshot) -> list[str]:
    """What the node waits for before it is in sync and able to serve; empty if it is ready."""
    feed = snapshot.inputs.feed
    reasons = []
    if not snapshot.cycle:
        reasons.append("the first cycle has not finished")
    if not feed.loaded:
        reasons.append("no catalog is loaded" + (f": {feed.error}" if feed.error else ""))
    if snapshot.failures:
        first = snapshot.failures[0]
        reasons.append(f"changes refused: {len(snapshot.failures)}; the first: {first.change}: {first.reason}")
    if not snapshot.speaker.connected:
        reasons.append("the BGP bridge is not connected (is ExaBGP running, with anycastlb-bridge as its process?)")
    if snapshot.inputs.stopping:
        reasons.append("the node is stopping")
    return reasons


def summarise(
    snapshot: Snapshot, started: str = "", instance: str = "", memory: tuple[Digests, Summaries] | None = None
) -> Status:
    """What this node publishes about itself. ``memory``: what was made for the status before."""
    inputs, decision = snapshot.inputs, snapshot.decision
    catalog, feed = inputs.catalog, inputs.feed
    waits_for = missing(snapshot)
    digests, summaries = memory or (Digests(), Summaries())
    services, vips = summaries.of(snapshot)
    return Status(
        node=inputs.node,
        version=__version__,
        instance=instance,
        started=started,
        ready=not waits_for,
        missing=tuple(text[:MAX_MISSING] for text in waits_for),
        drained=inputs.node in catalog.drained,
        stopping=inputs.stopping,
        catalog=CatalogSummary(
            catalog.index,
            fingerprint(catalog) if feed.loaded else "",
            feed.connected,
            feed.cached,
            feed.held is not None,
        ),
        vips=vips,
        services=services,
        digests=digests.of(catalog, snapshot.actual),
        withdrawn={vip: gate.withdrawn_wall for vip, gate in decision.memory.gates.items() if gate.withdrawn_wall},
        sessions=sessions.summaries(snapshot.speaker),
        leave=leaving(snapshot),
        gateway_address=None if inputs.policy.spread is None else inputs.policy.spread.address,
    )


def leaving(snapshot: Snapshot) -> DrainSummary | None:
    """How far this node has left the routes, without what changes by itself; None if it does not leave."""
    drain, inputs = snapshot.decision.memory.node_drain, snapshot.inputs
    if drain is None:
        return None
    document = inputs.catalog.drains.get(inputs.node)
    return DrainSummary(
        stage=drain.stage,
        cause=drain.cause,
        reason=drain.reason.text,
        since=moment(inputs.wall + drain.since),
        deadline="" if drain.until is None else moment(inputs.wall + drain.until),
        asked=document.since if document else "",
        code=drain.reason.code,
    )


def moment(wall: float) -> str:
    """Wall-clock seconds as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


ByService: TypeAlias = Mapping[ServiceKey, Sequence[DestinationKey]]


class Summaries:
    """Of each VIP, and of each service on it; made anew only of what differs from the snapshot before."""

    def __init__(self) -> None:
        self._verdicts: Mapping[Address, Verdict] = {}
        self._backends: Mapping[DestinationKey, BackendVerdict] = {}
        self._routes: Mapping[Address, Route] = {}
        self._speaker: Speaker | None = None
        self._announced: frozenset[Address] = frozenset()
        self._names: ByService = {}
        """The backends of each service."""
        self._services: Mapping[str, Mapping[Address, ServiceSummary]] = {}
        self._vips: Mapping[Address, VipSummary] = {}

    def of(
        self, snapshot: Snapshot
    ) -> tuple[Mapping[str, Mapping[Address, ServiceSummary]], Mapping[Address, VipSummary]]:
        """The services by their names, and the VIPs."""
        decision, routes = snapshot.decision, snapshot.actual.routes
        anew = self._to_make(decision)
        announced = self._announced
        if routes is not self._routes or snapshot.speaker != self._speaker:
            announced = sessions.carried(routes, snapshot.speaker)
        if anew is None or routes is not self._routes or announced != self._announced:
            lost = {vip: VipSummary(vip in announced, False) for vip in routes if vip not in decision.verdicts}
            self._vips = self._summaries(decision.verdicts, announced) | lost
        elif anew:
            made = {vip: decision.verdicts[vip] for vip in anew}
            self._vips = _merged(self._vips, self._summaries(made, announced))
        self._make_services(decision, anew)
        self._verdicts, self._backends = decision.verdicts, decision.backends
        self._routes, self._speaker, self._announced = routes, snapshot.speaker, announced
        return self._services, self._vips

    @staticmethod
    def _summaries(verdicts: Mapping[Address, Verdict], announced: frozenset[Address]) -> dict[Address, VipSummary]:
        return {vip: VipSummary(vip in announced, x.open, x.reason.text, x.own) for vip, x in verdicts.items()}

    def _to_make(self, decision: Decision) -> set[Address] | None:
        """The VIPs that may not be as before; None: all, since other VIPs or other services are on them."""
        verdicts, backends = delta(self._verdicts, decision.verdicts), delta(self._backends, decision.backends)
        if not backends.aligned:
            self._names = by_service(decision.backends)
        changed = {key.service for key in backends.keys}
        if not verdicts.aligned or any(key.protocol == "fwmark" for key in changed):
            return None
        for vip in verdicts.keys:
            if _names(self._verdicts[vip]) != _names(decision.verdicts[vip]):
                return None
        return {*verdicts.keys, *(key.address for key in changed if key.address in decision.verdicts)}

    def _make_services(self, decision: Decision, anew: set[Address] | None) -> None:
        if anew is not None and not anew:
            return
        made: dict[str, dict[Address, ServiceSummary]] = {}
        for vip in decision.verdicts if anew is None else anew:
            for item in decision.verdicts[vip].services:
                backends = map(decision.backends.__getitem__, self._names.get(item.key, ()))
                lost = tuple(x.backend for x in backends if not x.up and x.service == item.service)
                if gateway_on_vip(item.service) is not None:
                    lost = ()  # these are nodes, which no other node keeps in
                lost = ALL if item.total and len(lost) == item.total else lost  # when it matters most it must fit
                summary = ServiceSummary(item.open, item.up, item.total, lost, item.condition.dead)
                made.setdefault(item.service, {})[vip] = summary
        if anew is None:
            self._services = dict(made)
        else:
            merged = {name: _merged(self._services[name], new) for name, new in made.items()}
            self._services = _merged(self._services, merged)


def _names(verdict: Verdict) -> list[str]:
    return [item.service for item in verdict.services]


def _merged(before: Mapping[K, V], made: Mapping[K, V]) -> Mapping[K, V]:
    """With what was made anew; the very object if that says nothing new, so that nothing is written again for it."""
    news = {key: value for key, value in made.items() if before[key] != value}
    return {**before, **news} if news else before


class Digests:
    """By service, of its tables in the kernel; without those of which the kernel's last weights are not known yet.

    The digest of a service whose rows are the same objects as before is not worked out again.
    """

    def __init__(self) -> None:
        self._actual = State()
        self._read: Sequence[Service] = ()
        self._services: dict[str, Service] = {}
        self._owners: dict[ServiceKey, str] = {}
        """The service of the catalog that each IPVS service belongs to."""
        self._names: ByService = {}
        """The destinations of each service, in the kernel's order."""
        self._digests: Mapping[str, str] = {}

    def of(self, catalog: Catalog, actual: State) -> Mapping[str, str]:
        before, self._actual = self._actual, actual
        destinations = delta(before.destinations, actual.destinations)
        if not destinations.aligned:
            self._names = by_service(actual.destinations)
        touched = {*delta(before.services, actual.services).keys, *(key.service for key in destinations.keys)}
        anew = {self._owners[key] for key in touched if key in self._owners}
        if catalog.services is not self._read:
            anew |= self._follow(catalog.services)
        if anew:
            made = {name: self._made(actual, self._services[name]) for name in anew if name in self._services}
            rest = {name: digest for name, digest in self._digests.items() if name not in anew}
            self._digests = rest | {name: digest for name, digest in made.items() if digest is not None}
        return self._digests

    def _follow(self, services: Sequence[Service]) -> set[str]:
        """Take over the services of a catalog; the names of those that have changed, or are gone."""
        known, now = self._services, {service.name: service for service in services}
        changed = {name for name, service in now.items() if known.get(name) is not service} | (
            known.keys() - now.keys()
        )
        for name in changed & known.keys():
            for vip in known[name].vips:
                self._owners.pop(known[name].key(vip), None)
        for name in changed & now.keys():
            self._owners.update((now[name].key(vip), name) for vip in now[name].vips)
        self._read, self._services = services, now
        return changed

    def _made(self, actual: State, service: Service) -> str | None:
        keys = dict.fromkeys(map(service.key, service.vips))
        return _digest((key, actual.services.get(key), self._rows(actual, key)) for key in keys)

    def _rows(self, actual: State, service: ServiceKey) -> Sequence[tuple[DestinationKey, Destination]]:
        return [(key, actual.destinations[key]) for key in self._names.get(service, ())]


Table: TypeAlias = tuple[ServiceKey, VirtualService | None, Sequence[tuple[DestinationKey, Destination]]]


def _digest(tables: Iterable[Table]) -> str | None:
    """Of all that makes the kernel choose a backend for a flow; None if that is not wholly known."""
    lines = []
    for key, virtual, rows in tables:
        lines.append(f"{key} {virtual}")
        for name, row in rows:
            if row.last_weight is None:
                return None
            lines.append(f"{name.address} {name.port} {row.last_weight} {row.weight}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- of several


def compare(
    statuses: Iterable[Status], before: tuple[Difference | None, Mapping[str, Difference]], now: float
) -> tuple[Difference | None, Mapping[str, Difference]]:
    """Where living nodes differ: in their catalogs, and, with the same catalog, in a service's tables.

    A difference keeps its age for as long as the same nodes stand on the same sides of it.
    """
    catalogs: dict[str, list[str]] = defaultdict(list)
    tables: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for status in sorted(statuses, key=lambda status: status.node):
        if status.stopping or not status.catalog.hash:
            continue  # its tables are about to go, or not there yet
        catalogs[status.catalog.hash].append(status.node)
        for service, digest in status.digests.items():
            tables[service][status.catalog.hash][digest].append(status.node)
    differing = {}
    for service, by_catalog in tables.items():
        parties = {digest: names for part in by_catalog.values() if len(part) > 1 for digest, names in part.items()}
        if parties:
            differing[service] = _aged(parties, before[1].get(service), now)
    return _aged(catalogs, before[0], now) if len(catalogs) > 1 else None, differing


def _aged(parties: Mapping[str, list[str]], before: Difference | None, now: float) -> Difference:
    named = {digest: tuple(names) for digest, names in parties.items()}
    return before if before is not None and before.parties == named else Difference(named, now)
