"""Prometheus metrics, read from the latest ``Snapshot`` at each scrape.

Nothing is stored for an object, so its series vanish with it. Only what cannot be read from one snapshot is counted
(``Meters``), from what the wiring hands over. Labels are names from the catalog, BGP peers, tables, check types and
route templates: nothing that a client of the balancer could multiply. Base units: seconds, bytes. No decision may
depend on anything here.

One scrape is one object, made of one snapshot, and put into words in a worker thread: ten thousand backends must not
hold up the event loop. There is never more than one at work; who asks meanwhile shares the next one. The words are
joined while they are sent: the text of ten thousand backends is 18 MB, and is never there as a whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from anycastlb import __version__
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Catalog, DriverError, HttpCounters, Snapshot
from anycastlb.serving.metrics.blocks import BackendBlocks
from anycastlb.serving.metrics.cluster import cluster_metrics
from anycastlb.serving.metrics.families import PREFIX, FamilyLines, FamilySamples, one, samples_of
from anycastlb.serving.metrics.gateways import gateway_metrics, gateway_traffic
from anycastlb.serving.metrics.meters import Meters, Requests
from anycastlb.serving.metrics.snapshot import (
    catalog_metrics,
    node_metrics,
    reconciler_metrics,
    service_metrics,
    speaker_metrics,
    vip_metrics,
)
from anycastlb.serving.metrics.text import Labels, Writer, Written
from anycastlb.serving.metrics.traffic import Statistics, service_traffic, settings
from anycastlb.serving.pieces import Unjoined, merged

__all__ = ["Load", "Meters", "Metrics", "Requests", "Sources", "Statistics"]

KERNEL = f"{PREFIX}ipvs_"
"""Families that are known only if the kernel's counters could be read."""
Load = tuple[int, int, int]
"""Probes under way, probes that wait for a place, and how many may be under way."""


class Watched(Protocol):
    """The node whose metrics are served."""

    @property
    def snapshot(self) -> Snapshot: ...

    @property
    def load(self) -> Load: ...

    @property
    def alive_at(self) -> float | None:
        """When its reconciler last gave a proof of life, by the clock of ``Metrics``; None where nobody knows."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What is asked at each scrape; None for what there is nothing of."""

    kernel: Callable[[], Awaitable[Statistics]] | None = None
    """The kernel's counters; raises ``DriverError``."""
    haproxy: Callable[[], Awaitable[HttpCounters | None]] | None = None
    """HAProxy's; None if it does not answer."""
    certificate_ends: Callable[[], Mapping[str, float]] | None = None
    """When each certificate of the node ends, in seconds of the wall clock."""


NOTHING_COUNTED = Sources()


class Metrics:
    """What ``/metrics`` serves: the snapshot, the meters, the journal and, if given, what was counted elsewhere."""

    def __init__(
        self,
        node: Watched,
        meters: Meters,
        journal: Journal,
        sources: Sources = NOTHING_COUNTED,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._node, self._meters, self._journal = node, meters, journal
        self._sources, self._clock, self._wall = sources, clock, wall
        self._process = ProcessCollector(registry=None)
        self._blocks = BackendBlocks()
        self._labels: tuple[Catalog, Labels] = Catalog(), Labels()
        """The labels of everything else, with the catalog that names it."""
        self._turn = asyncio.Lock()
        self._begun = 0
        """Scrapes that have begun."""
        self._asking = 0
        """Callers who have no answer yet."""
        self._texts: dict[str, tuple[int, Unjoined]] = {}
        """By content type: the last text, and which scrape it was."""

    async def scrape(self, accept: str = "") -> tuple[Unjoined, str]:
        """The text for this Accept header, and its content type."""
        encode, content_type = choose_encoder(accept)
        before = self._begun
        self._asking += 1
        try:
            async with self._turn:
                known = self._texts.get(content_type)
                if known is None or known[0] <= before:  # it was begun before we asked
                    self._begun = number = self._begun + 1
                    look = await self._look()
                    text = await asyncio.to_thread(self._text, look, encode, "openmetrics" in content_type)
                    self._texts[content_type] = known = number, text
                return known[1], content_type
        finally:
            self._asking -= 1
            if not self._asking:
                self._texts.clear()  # nobody waits to share it, and it may be large

    def _text(self, look: _Scrape, encode: Callable[[CollectorRegistry], bytes], openmetrics: bool) -> Unjoined:
        """In a worker thread. The library's part comes last: in OpenMetrics it ends with an end mark."""
        catalog = look.snapshot.inputs.catalog
        if self._labels[0] is not catalog:
            self._labels = catalog, Labels()
        writer, rest = Writer(openmetrics, self._labels[1]), _Rest()
        families: list[Written] = []
        for family in look.collect():
            if isinstance(family, (FamilySamples, FamilyLines)):
                families.append(writer.write(family))
            else:
                rest.families.append(family)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(rest)
        registry.register(self._process)
        end = encode(registry)
        return Unjoined(lambda: merged(chain(*(family.joined() for family in families), (end,))))

    async def _look(self) -> _Scrape:
        kernel: Statistics | None = None
        sources = self._sources
        if sources.kernel:
            try:
                kernel = await sources.kernel()
            except DriverError:
                kernel = None  # ipvs_statistics_up says so; everything else is still worth having
        counted = await sources.haproxy() if sources.haproxy else None
        ends = await asyncio.to_thread(sources.certificate_ends) if sources.certificate_ends else {}
        snapshot, now, alive_at = self._node.snapshot, self._clock(), self._node.alive_at
        silent = None if alive_at is None else max(0.0, now - alive_at)
        events = sorted(self._journal.counts.items())
        asked, wall, load = sources.kernel is not None, self._wall(), self._node.load
        return _Scrape(
            snapshot, self._meters, events, now, wall, asked, kernel, load, silent, self._blocks, counted, ends
        )


class _Rest(Collector):
    """What the library puts into words."""

    def __init__(self) -> None:
        self.families: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        return iter(self.families)


@dataclass(eq=False)
class _Scrape:
    """Everything one scrape is made of."""

    snapshot: Snapshot
    meters: Meters
    events: list[tuple[tuple[str, str], int]]
    now: float
    wall: float
    asked: bool
    kernel: Statistics | None
    load: Load
    silent: float | None
    blocks: BackendBlocks
    counted: HttpCounters | None
    ends: Mapping[str, float]

    def collect(self) -> Iterator[FamilySamples | FamilyLines | Metric]:
        snapshot = self.snapshot
        backends = self.blocks.collect(snapshot, self.kernel)
        yield samples_of("build_info", [((__version__,), 1)])
        yield from node_metrics(snapshot, self.wall)
        yield from catalog_metrics(snapshot, self.now)
        yield from cluster_metrics(snapshot, self.now)
        yield from vip_metrics(snapshot)
        yield from service_metrics(snapshot)
        yield from (lines for name, lines in backends.items() if not name.startswith(KERNEL))
        yield from gateway_metrics(snapshot, self.ends)
        yield from gateway_traffic(snapshot, self.counted)
        yield from speaker_metrics(snapshot)
        yield from reconciler_metrics(snapshot)
        yield from settings(snapshot)
        yield samples_of("checks_running", one(len(snapshot.inputs.health)))
        for name, value in zip(("probing", "waiting", "limit"), self.load, strict=True):
            yield samples_of(f"checks_{name}", one(value))
        if self.silent is not None:
            yield samples_of("reconciler_silent_seconds", one(self.silent))
        yield from self.meters.collect(snapshot)
        if self.asked:
            yield samples_of("ipvs_statistics_up", one(self.kernel is not None))
            if self.kernel:
                yield from service_traffic(snapshot, self.kernel)
                yield from (lines for name, lines in backends.items() if name.startswith(KERNEL))
        yield samples_of("events", self.events)
