"""Prometheus metrics, read from the latest ``Snapshot`` at each scrape.

Nothing is stored for an object, so its series vanish with it. Only what cannot be read from one snapshot is counted:
``Meters``, which the reconciler calls once a cycle. Labels are names from the catalog and the BGP sessions, nothing
that a client of the balancer could multiply. Base units: seconds, bytes. No decision may depend on anything here.

One scrape is one object, made of one snapshot, and turned into text in a worker thread: ten thousand backends must
not hold up the event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from anycastlb import __version__
from anycastlb.cluster.figures import figures
from anycastlb.events import Journal
from anycastlb.model import (
    TABLES,
    BackendVerdict,
    DestinationKey,
    DriverError,
    ServiceKey,
    ServiceVerdict,
    Snapshot,
    Verdict,
)

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
VERBS = ("create", "update", "delete")
Sample: TypeAlias = tuple[tuple[str, ...], float]


class Counted(Protocol):
    """What the kernel counted for one service or destination (``drivers.ipvs.Counters``)."""

    @property
    def connections(self) -> int: ...
    @property
    def packets_in(self) -> int: ...
    @property
    def packets_out(self) -> int: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    @property
    def active(self) -> int: ...
    @property
    def inactive(self) -> int: ...


Statistics: TypeAlias = Mapping[ServiceKey | DestinationKey, Counted]


class Meters:
    """What only adds up over cycles: changes made and refused, cycles and how long they took."""

    def __init__(self) -> None:
        self.changes: Counter[tuple[str, str]] = Counter({(table, verb): 0 for table in TABLES for verb in VERBS})
        """Changes made, by (table, verb)."""
        self.refused: Counter[str] = Counter(dict.fromkeys(TABLES, 0))
        """Changes the machine refused, by table."""
        self.cycles = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def observe_cycle(self, snapshot: Snapshot, duration: float) -> None:
        """Count one finished cycle: ``snapshot.plan`` was tried and ``snapshot.failures`` of it refused."""
        refused = {failure.change for failure in snapshot.failures}
        self.refused.update(failure.change.table for failure in snapshot.failures)
        self.changes.update((c.table, c.verb) for c in snapshot.plan if c not in refused)
        self.cycles += 1
        self.seconds += duration
        self.buckets[sum(duration > bound for bound in BUCKETS)] += 1


class Metrics:
    """What ``/metrics`` serves: the snapshot, the meters, the journal and, if given, the kernel's own counters."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        meters: Meters,
        journal: Journal,
        clock: Callable[[], float] = time.monotonic,
        statistics: Callable[[], Awaitable[Statistics]] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._meters = meters
        self._journal = journal
        self._clock = clock
        self._statistics = statistics
        self._process = ProcessCollector(registry=None)

    async def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """The text for this Accept header, and its content type."""
        kernel: Statistics | None = None
        if self._statistics:
            try:
                kernel = await self._statistics()
            except DriverError:
                kernel = None  # told by ipvs_statistics_up; everything else is still worth having
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        told = _Scrape(
            self._snapshot(), self._meters, self._journal, self._clock(), self._statistics is not None, kernel
        )
        registry.register(told)
        registry.register(self._process)
        return await asyncio.to_thread(encode, registry), content_type


class _Scrape(Collector):
    def __init__(
        self,
        snapshot: Snapshot,
        meters: Meters,
        journal: Journal,
        now: float,
        asked: bool,
        kernel: Statistics | None,
    ) -> None:
        self._snapshot, self._meters, self._now = snapshot, meters, now
        self._asked, self._kernel = asked, kernel
        self._events = sorted(journal.counts.items())

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot
        yield gauge("build_info", "Always 1; the version is a label.", [((__version__,), 1)], "version")
        yield from _node(snapshot)
        yield from _catalog(snapshot, self._now)
        yield from _vips(snapshot)
        yield from _services(snapshot)
        yield from _backends(snapshot)
        yield from _speaker(snapshot)
        yield from (gauge(name, text, samples, *by) for name, text, samples, by in figures(snapshot, self._now))
        yield from _cycles(self._meters)
        if self._asked:
            yield from _ipvs(snapshot, self._kernel)
        yield counter("events", "Events emitted.", [(key, n) for key, n in self._events], "kind", "level")


def gauge(name: str, text: str, samples: Iterable[Sample], *labels: str) -> Metric:
    """A family ``anycastlb_<name>`` with one sample for each (label values, value)."""
    return _filled(GaugeMetricFamily(f"anycastlb_{name}", text, labels=labels), samples)


def counter(name: str, text: str, samples: Iterable[Sample], *labels: str) -> Metric:
    """A family ``anycastlb_<name>_total``."""
    return _filled(CounterMetricFamily(f"anycastlb_{name}", text, labels=labels), samples)


def _filled(family: Any, samples: Iterable[Sample]) -> Metric:
    for labels, value in samples:
        family.add_metric(list(labels), float(value))
    filled: Metric = family
    return filled


def _one(value: float) -> list[Sample]:
    return [((), float(value))]


def _node(snapshot: Snapshot) -> Iterator[Metric]:
    inputs = snapshot.inputs
    drained = inputs.node in inputs.catalog.drained
    yield gauge("node_drained", "1 while this node is drained.", _one(drained))
    yield gauge("node_stopping", "1 while this node withdraws and drains before it ends.", _one(inputs.stopping))
    yield gauge("checks_running", "Health checks being run.", _one(len(inputs.health)))
    yield gauge("plan_changes", "Changes the last cycle found necessary.", _one(len(snapshot.plan)))
    yield gauge("failed_changes", "Changes the machine refused in the last cycle.", _one(len(snapshot.failures)))
    yield gauge(
        "leaving_rows", "Rows nobody asks for, kept while they drain.", _one(len(snapshot.decision.memory.leaving))
    )
    yield gauge("last_cycle_timestamp_seconds", "When the last cycle ended, 0 = never.", _one(snapshot.at_wall))


def _catalog(snapshot: Snapshot, now: float) -> Iterator[Metric]:
    feed, catalog = snapshot.inputs.feed, snapshot.inputs.catalog
    age = 0.0 if feed.connected else max(0.0, now - feed.since)
    yield gauge("catalog_index", "Consul's index of the catalog in force.", _one(catalog.index))
    yield gauge("catalog_services", "Services in the catalog in force.", _one(len(catalog.services)))
    yield gauge("catalog_problems", "Faults found in documents.", _one(len(catalog.problems)))
    yield gauge("catalog_connected", "1 while the catalog source answers.", _one(feed.connected))
    yield gauge("catalog_age_seconds", "For how long the source has been away; 0 while it answers.", _one(age))
    yield gauge("catalog_cached", "1 while the catalog in force is the one kept on disk.", _one(feed.cached))
    yield gauge("catalog_held", "1 while a shrunken catalog waits to be confirmed.", _one(feed.held is not None))


def _vips(snapshot: Snapshot) -> Iterator[Metric]:
    verdicts, routes = snapshot.decision.verdicts, snapshot.actual.routes
    yield gauge(
        "vip_open", "1 while this VIP may be announced.", [((str(v),), x.open) for v, x in verdicts.items()], "vip"
    )
    announced = [((str(vip),), float(vip in routes)) for vip in {**verdicts, **dict.fromkeys(routes)}]
    yield gauge("vip_announced", "1 while ExaBGP has acknowledged this VIP's route.", announced, "vip")
    changed = [
        ((str(vip),), snapshot.at_wall - (snapshot.at - verdict.since))
        for vip, verdict in verdicts.items()
        if math.isfinite(verdict.since)
    ]
    penalties = [((str(vip),), verdict.penalty) for vip, verdict in verdicts.items()]
    yield gauge("vip_damping_penalty", "RFC 2439 penalty of this VIP, 0 without damping.", penalties, "vip")
    gates = snapshot.decision.memory.gates
    damped = [((str(v),), float(v in gates and gates[v].suppressed_since is not None)) for v in verdicts]
    yield gauge("vip_damped", "1 while damping keeps this VIP from being announced.", damped, "vip")
    yield gauge("vip_transition_timestamp_seconds", "When this VIP last opened or closed.", changed, "vip")


def _services(snapshot: Snapshot) -> Iterator[Metric]:
    rows = list(_service_rows(snapshot.decision.verdicts.values()))
    by = ("service", "vip")
    yield gauge("service_open", "1 while this service can be served.", [(at, s.open) for at, s in rows], *by)
    yield gauge("service_backends", "Backends that could serve.", [(at, s.total) for at, s in rows], *by)
    yield gauge("service_backends_up", "Backends that are up.", [(at, s.up) for at, s in rows], *by)
    yield gauge("service_backends_needed", "Backends that must be up.", [(at, s.needed) for at, s in rows], *by)


def _backends(snapshot: Snapshot) -> Iterator[Metric]:
    rows = [(at, backend) for at, _, backend in _backend_rows(snapshot)]
    by = ("service", "backend", "vip")
    yield gauge("backend_up", "1 while this backend counts as up.", [(at, b.up) for at, b in rows], *by)
    yield gauge("backend_check_duration_seconds", "How long its last check took.", _durations(snapshot), *by)
    yield gauge("backend_weight", "The weight this backend is to have.", [(at, b.weight) for at, b in rows], *by)


def _durations(snapshot: Snapshot) -> Iterator[Sample]:
    """Of every backend that has been checked at least once."""
    health, judged = snapshot.inputs.health, snapshot.decision.verdicts
    for service in snapshot.inputs.catalog.services:
        for vip in service.vips:
            for backend in service.members(vip) if vip in judged else ():
                state = health.get(service.check(vip, backend))
                if state is not None and state.last is not None:
                    yield (service.name, backend.name, str(vip)), state.last.duration


def _service_rows(verdicts: Iterable[Verdict]) -> Iterator[tuple[tuple[str, ...], ServiceVerdict]]:
    for verdict in verdicts:
        for service in verdict.services:
            yield (service.service, str(verdict.vip)), service


def _backend_rows(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], DestinationKey, BackendVerdict]]:
    """Backends under the VIP they serve: the key of a fwmark service does not name it."""
    by_service: dict[ServiceKey, list[tuple[DestinationKey, BackendVerdict]]] = {}
    for key, backend in snapshot.decision.backends.items():
        by_service.setdefault(key.service, []).append((key, backend))
    for (name, vip), service in _service_rows(snapshot.decision.verdicts.values()):
        for key, backend in by_service.get(service.key, ()):
            if backend.service == name:
                yield (name, backend.backend, vip), key, backend


def _ipvs(snapshot: Snapshot, kernel: Statistics | None) -> Iterator[Metric]:
    """The kernel's counters of services and backends; those of a fwmark service are one for all its VIPs."""
    yield gauge("ipvs_statistics_up", "1 while the kernel tells its counters.", _one(kernel is not None))
    if not kernel:
        return
    services = [(at, kernel[s.key]) for at, s in _service_rows(snapshot.decision.verdicts.values()) if s.key in kernel]
    backends = [(at, kernel[key]) for at, key, _ in _backend_rows(snapshot) if key in kernel]
    for prefix, rows, labels in (
        ("ipvs_service", services, ("service", "vip")),
        ("ipvs_backend", backends, ("service", "backend", "vip")),
    ):
        yield counter(f"{prefix}_connections", "Connections.", [(at, c.connections) for at, c in rows], *labels)
        yield counter(f"{prefix}_packets_in", "Packets from clients.", [(at, c.packets_in) for at, c in rows], *labels)
        yield counter(f"{prefix}_packets_out", "Packets to clients.", [(at, c.packets_out) for at, c in rows], *labels)
        yield counter(f"{prefix}_bytes_in", "Bytes from clients.", [(at, c.bytes_in) for at, c in rows], *labels)
        yield counter(f"{prefix}_bytes_out", "Bytes to clients.", [(at, c.bytes_out) for at, c in rows], *labels)
    by = ("service", "backend", "vip")
    yield gauge("ipvs_backend_active", "Open connections.", [(at, c.active) for at, c in backends], *by)
    yield gauge(
        "ipvs_backend_inactive", "Connections about to be forgotten.", [(at, c.inactive) for at, c in backends], *by
    )


def _speaker(snapshot: Snapshot) -> Iterator[Metric]:
    speaker = snapshot.speaker
    sessions: list[Sample] = [((peer,), up) for peer, up in {s.peer: s.state == "up" for s in speaker.sessions}.items()]
    yield gauge("bgp_bridge_connected", "1 while the bridge in ExaBGP is connected.", _one(speaker.connected))
    yield gauge("bgp_session_up", "1 while this BGP session is established.", sessions, "peer")
    yield gauge("bgp_routes_announced", "Routes ExaBGP has acknowledged.", _one(len(snapshot.actual.routes)))
    yield gauge("bgp_routes_rejected", "Routes ExaBGP or the bridge refused.", _one(len(speaker.rejected)))


def _cycles(meters: Meters) -> Iterator[Metric]:
    changes = [(key, float(count)) for key, count in sorted(meters.changes.copy().items())]
    refused = [((table,), float(count)) for table, count in sorted(meters.refused.copy().items())]
    yield counter("changes", "Changes made to the machine.", changes, "table", "verb")
    yield counter("change_failures", "Changes the machine refused.", refused, "table")
    yield counter("reconcile_cycles", "Reconciler cycles finished.", _one(meters.cycles))
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    cumulative = [float(count) for count in accumulate(meters.buckets)]
    yield HistogramMetricFamily(
        "anycastlb_reconcile_seconds",
        "How long a reconciler cycle takes.",
        buckets=list(zip(bounds, cumulative, strict=True)),
        sum_value=meters.seconds,
    )
