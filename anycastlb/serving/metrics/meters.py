"""What only adds up over time, and so cannot be read from one snapshot.

Counted by the wiring, from results and events that are handed over; no driver and no decision knows of it. What is
counted for an object is forgotten with the object.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from itertools import accumulate

from aiohttp import web
from prometheus_client.core import HistogramMetricFamily, Metric

from anycastlb.core.events import Event
from anycastlb.core.model import NAMES, TABLES, Snapshot
from anycastlb.serving.metrics.families import FAMILIES, FamilySamples, one, samples_of

FINE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
VERBS = ("create", "update", "delete")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OUTCOMES = ("good", "bad", "timeout", "error", "withheld", "unknown")
READS = ("changed", "unchanged", "failed")
SAMPLE = 0.25
"""Seconds between two looks at the event loop's lag."""


class Histogram:
    """Seconds, counted by how many lie within each bound; one for each tuple of label values."""

    def __init__(self, bounds: Sequence[float] = FINE) -> None:
        self._bounds = tuple(bounds)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: Counter[tuple[str, ...]] = Counter()

    def add(self, seconds: float, *labels: str) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] += seconds  # type: ignore[assignment]

    def samples(self, name: str) -> Metric:
        family = FAMILIES[name]
        metric = HistogramMetricFamily(family.name, family.text, labels=family.labels)
        bounds = [*(str(bound) for bound in self._bounds), "+Inf"]
        empty = [] if family.labels else [((), [0] * len(bounds))]
        for labels, counts in sorted(self._counts.copy().items()) or empty:
            cumulative = [float(count) for count in accumulate(counts)]
            metric.add_metric(labels, list(zip(bounds, cumulative, strict=True)), float(self._sums[labels]))
        checked: Metric = metric
        return checked


class Requests:
    """Requests to the API, by route template, method and class of status; ``middleware`` goes outside all others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.pending = 0
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.durations = Histogram()
        self._clock = clock

    @property
    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        @web.middleware
        async def count(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            started, status, streamed = self._clock(), 0, False
            self.pending += 1
            try:
                response = await handler(request)
                status, streamed = response.status, response.content_type == "text/event-stream"
                return response
            except web.HTTPException as exc:
                status = exc.status
                raise
            finally:
                self.pending -= 1
                self._seen(request, status, None if streamed else self._clock() - started)

        return count

    def _seen(self, request: web.Request, status: int, seconds: float | None) -> None:
        """Status 0: the client went away, or the handler was broken off."""
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        method = request.method if request.method in METHODS else "other"
        self.counts[route, method, f"{status // 100}xx" if status else "none"] += 1
        if seconds is not None:
            self.durations.add(seconds, route, method)

    def collect(self) -> Iterator[FamilySamples | Metric]:
        yield samples_of("http_requests", [(key, n) for key, n in sorted(self.counts.copy().items())])
        yield samples_of("http_requests_pending", one(self.pending))
        yield self.durations.samples("http_request_duration_seconds")


class Meters:
    """Changes made and refused, cycles, checks, reads, transitions, and how late the event loop runs."""

    def __init__(self) -> None:
        self.changes: Counter[tuple[str, str]] = Counter({(table, verb): 0 for table in TABLES for verb in VERBS})
        """Changes made, by (table, verb)."""
        self.refused: Counter[tuple[str, str]] = Counter({(table, verb): 0 for table in TABLES for verb in VERBS})
        """Changes the machine refused, by (table, verb)."""
        self.cycles = self.corrections = 0
        self.requests = Requests()
        self._cycle = Histogram()
        self._checks = Histogram()
        self._lag = Histogram()
        self._results: Counter[tuple[str, str]] = Counter()
        self._reads: Counter[str] = Counter(dict.fromkeys(READS, 0))
        self._vips: Counter[tuple[str, str]] = Counter()
        self._sessions: Counter[tuple[str, str]] = Counter()
        self._bridge: Counter[str] = Counter({"connected": 0, "gone": 0})

    # ------------------------------------------------------------ what is handed over

    def observe_cycle(self, snapshot: Snapshot, duration: float) -> None:
        """Count one finished cycle: ``snapshot.plan`` was tried and ``snapshot.failures`` of it refused."""
        refused = {id(failure.change) for failure in snapshot.failures}
        self.refused.update((failure.change.table, failure.change.verb) for failure in snapshot.failures)
        self.changes.update((c.table, c.verb) for c in snapshot.plan if id(c) not in refused and c.table not in NAMES)
        self.cycles += 1
        self._cycle.add(duration)
        if len(self._vips) > 2 * len(snapshot.decision.verdicts):
            _forget(self._vips, {str(vip) for vip in snapshot.decision.verdicts})
        if len(self._sessions) > 4 * len(snapshot.speaker.sessions):
            _forget(self._sessions, {session.peer for session in snapshot.speaker.sessions})

    def observe_event(self, event: Event) -> None:
        """Count the events of gates, sessions, the bridge, and names written in the background."""
        if event.kind == "gate" and event.before:
            self._vips[event.subject, event.after] += 1
        elif event.kind == "bgp" and event.after:
            if event.subject == "bridge":
                self._bridge[event.after] += 1
            else:
                self._sessions[event.subject, event.after] += 1
        elif event.kind.partition(".")[0] in NAMES:
            table, _, verb = event.kind.partition(".")
            self.changes[table, verb] += 1

    def observe_result(self, type: str, outcome: str, seconds: float | None) -> None:
        """Count one result of a check of this type; ``seconds`` is None where no probe was sent."""
        self._results[type, outcome] += 1
        if seconds is not None:
            self._checks.add(seconds, type)

    def observe_read(self, outcome: str) -> None:
        """Count one read of the catalog's source: ``changed``, ``unchanged`` or ``failed``."""
        self._reads[outcome] += 1

    def observe_correction(self) -> None:
        """Count a decision that was not the one from scratch."""
        self.corrections += 1

    async def watch_loop(self) -> None:
        """Sample the event loop's lag for ever: how much later than due a timer fires."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + SAMPLE
            await asyncio.sleep(SAMPLE)
            self._lag.add(max(0.0, loop.time() - due))

    # ------------------------------------------------------------ what is read

    def collect(self, snapshot: Snapshot) -> Iterator[FamilySamples | Metric]:
        """Of VIPs, backends and sessions only those that still are."""
        vips = {str(vip) for vip in snapshot.decision.verdicts}
        peers = {session.peer for session in snapshot.speaker.sessions}
        gates, sessions = self._vips.copy(), self._sessions.copy()
        yield samples_of(
            "vip_transitions", [((v, to), gates[v, to]) for v in sorted(vips) for to in ("open", "closed")]
        )
        states = ("up", "down", "connected", "unknown")
        yield samples_of(
            "bgp_session_transitions", [((p, to), sessions[p, to]) for p in sorted(peers) for to in states]
        )
        yield samples_of("bgp_bridge_transitions", [((to,), n) for to, n in sorted(self._bridge.copy().items())])
        yield samples_of("changes", [(key, n) for key, n in sorted(self.changes.copy().items())])
        yield samples_of("change_failures", [(key, n) for key, n in sorted(self.refused.copy().items())])
        yield samples_of("reconcile_cycles", one(self.cycles))
        yield samples_of("decision_corrections", one(self.corrections))
        yield samples_of("check_results", [(key, n) for key, n in sorted(self._results.copy().items())])
        yield samples_of("catalog_reads", [((outcome,), n) for outcome, n in self._reads.copy().items()])
        yield self._cycle.samples("reconcile_seconds")
        yield self._checks.samples("check_duration_seconds")
        yield self._lag.samples("event_loop_lag_seconds")
        yield from self.requests.collect()


def _forget(counts: Counter[tuple[str, str]], living: Collection[str]) -> None:
    """What was counted for objects that are no more."""
    for key in [key for key in counts if key[0] not in living]:
        del counts[key]
