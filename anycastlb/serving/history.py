"""The last ten minutes in memory: rates of services and backends, and what their checks found, one sample a slot; and
rates of gateways and pools (``serving.http_history``).

``History`` takes values (a snapshot, the kernel's counters) and gives plain dicts. ``sample`` is the small task that
feeds it. A sample is one column over all rows. A large table is sampled less often, so that ten minutes of any table
take the same few megabytes; rows are bounded too (``MAX_ROWS``), and what has left the catalog is forgotten at once.
Nothing may depend on it but what people look at.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any, TypeAlias

from anycastlb.core.model import CheckState, DestinationKey, DriverError, HttpCounters, ServiceKey, Snapshot
from anycastlb.serving.http_history import HttpHistory
from anycastlb.serving.views.index import Index, Places

SPAN = 600.0
"""Seconds after which a sample is forgotten."""
PAUSE = 5.0
"""Seconds from one sample to the next, of up to 1,500 services and backends."""
PACE, LONGEST = 300, 60.0
"""Rows a second: a sample of more costs more, so it is taken less often, but every minute at least."""
TIMEOUT = 1.0
"""Seconds that a sample waits for HAProxy."""
SLOTS = 120
"""Samples at most."""
MAX_ROWS = 4096
"""Rows that are followed; services come first. A row takes 21 bytes in each sample."""
COUNTED = ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out")
WIDTH = len(COUNTED)
NEVER = math.nan
UNKNOWN_RATES, NO_RATES = array("f", [NEVER]) * WIDTH, array("f", [0.0]) * WIDTH
UNKNOWN, UP, FAILING, DOWN, RISING = b"-ufdr"
"""One letter a slot: never checked; up; up, but a result in the slot was bad; down; down, but a result was good."""

Kernel: TypeAlias = Mapping[ServiceKey | DestinationKey, Any]
"""The kernel's counters of each service and destination: objects with the attributes ``COUNTED``, and ``active`` and
``inactive`` connections."""
Name: TypeAlias = tuple[str, str, str]
"""Service, VIP, backend (empty for the service itself)."""


@dataclass(slots=True, eq=False)
class Row:
    """One service or backend on one VIP."""

    key: ServiceKey | DestinationKey
    place: int
    """Its place in each sample."""
    first: int
    """The first sample that it is in; in older ones its place was another's."""
    last: Any = None
    """The counters of the last sample; None if the kernel had none."""


class Sample:
    """One moment of all rows."""

    __slots__ = ("_health", "_rates", "at", "number")

    def __init__(self, number: int, at: float, places: int) -> None:
        self.number, self.at = number, at
        self._health = bytearray([UNKNOWN]) * places
        self._rates = UNKNOWN_RATES * places
        """Place after place, in the order of ``COUNTED``."""

    def write(self, place: int, rates: array[float], health: int) -> None:
        self._rates[place * WIDTH : (place + 1) * WIDTH] = rates
        self._health[place] = health

    def rate(self, row: Row, counter: int) -> float | None:
        """Of the counter with this number in ``COUNTED``; None where it is not known."""
        rate = self._rates[row.place * WIDTH + counter] if self.number >= row.first else NEVER
        return None if math.isnan(rate) else round(rate, 2)

    def health(self, row: Row) -> int:
        return self._health[row.place] if self.number >= row.first else UNKNOWN


def _rates(before: Any, counted: Any, elapsed: float) -> array[float]:
    """How much each counter has grown in a second; ``NEVER`` where that is not known."""
    if counted is None or before is None or elapsed <= 0:
        return UNKNOWN_RATES
    if counted == before:
        return NO_RATES
    grown = (getattr(counted, name) - getattr(before, name) for name in COUNTED)
    return array("f", [more / elapsed if more >= 0 else NEVER for more in grown])  # smaller: it was made anew


class History:
    """The samples. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.interval = PAUSE
        """Seconds from the last sample to the next."""
        self._lock = Lock()
        self._places = Places()
        """For the thread that observes."""
        self._rows: dict[Name, Row] = {}
        self._free: list[int] = []
        """The places in a sample that no row has."""
        self._samples: deque[Sample] = deque(maxlen=SLOTS)
        self._sample = object()
        self._http = HttpHistory()
        self._left_out = 0
        self._error = "no sample was taken yet"

    @property
    def samples(self) -> object:
        """Another object after each sample."""
        return self._sample

    def observe(
        self,
        snapshot: Snapshot,
        kernel: Kernel | None,
        now: float,
        error: str = "",
        http: HttpCounters | None = None,
    ) -> None:
        """Take one sample. ``kernel`` is None where its counters could not be read, and ``error`` says why; ``http``,
        where HAProxy told none."""
        seen, left_out = _wanted(Index(snapshot, now, self._places))
        with self._lock:
            last = self._samples[-1] if self._samples else None
            number, before = (last.number + 1, last.at) if last else (0, -math.inf)
            self._settle(seen, number)
            sample = Sample(number, now, len(self._rows) + len(self._free))
            for name, (key, state) in seen.items():
                row = self._rows[name]
                counted = kernel.get(key) if kernel else None
                sample.write(row.place, _rates(row.last, counted, now - before), _health(state, before))
                row.last = counted
            while self._samples and self._samples[0].at <= now - SPAN:
                self._samples.popleft()
            self._samples.append(sample)
            self._http.observe(snapshot, http, now - before, len(self._samples))
            self._sample = object()
            self._left_out, self._error = left_out, error

    def _settle(self, seen: Mapping[Name, tuple[Any, CheckState | None]], number: int) -> None:
        """Give each of them a row from this sample on, and forget all others."""
        for name in [name for name, row in self._rows.items() if name not in seen or row.key != seen[name][0]]:
            self._free.append(self._rows.pop(name).place)
        for name, (key, _) in seen.items():
            if name not in self._rows:
                place = self._free.pop() if self._free else len(self._rows)
                self._rows[name] = Row(key, place, number)

    @property
    def size(self) -> int:
        """How many services and backends there are, those that are not followed included."""
        return len(self._rows) + self._left_out

    def stats(self, now: float) -> dict[str, Any]:
        """The counters as of the last sample, and the rates since the one before."""
        with self._lock:
            services: dict[tuple[str, str], dict[str, Any]] = {}
            for (service, vip, backend), row in self._rows.items():
                view = self._counters(row)
                if not backend:
                    services[service, vip] = {"service": service, "vip": vip, "key": str(row.key), **view}
                    services[service, vip]["backends"] = []
                elif shown := services.get((service, vip)):
                    gauges = {name: getattr(row.last, name, None) for name in ("active", "inactive")}
                    shown["backends"].append({"backend": backend, **gauges, **view})
            return {**self._head(now), "services": list(services.values()), **self._http.stats()}

    def series(self, now: float, service: str = "") -> dict[str, Any]:
        """Samples, oldest first: of one service with its backends, or of all services without theirs, and of all
        gateways and pools."""
        with self._lock:
            services, backends = [], []
            for (name, vip, backend), row in self._rows.items():
                if (service and name != service) or (backend and not service):
                    continue
                rates = {of: [one.rate(row, n) for one in self._samples] for n, of in enumerate(COUNTED)}
                view = {"service": name, "vip": vip, "rates": rates}
                if backend:
                    health = bytes(one.health(row) for one in self._samples).decode()
                    backends.append({**view, "backend": backend, "health": health})
                else:
                    services.append(view)
            ages = [round(max(0.0, now - one.at), 1) for one in self._samples]
            http = {} if service else self._http.series(len(self._samples))
            return {**self._head(now), "ages_seconds": ages, "services": services, "backends": backends, **http}

    def _head(self, now: float) -> dict[str, Any]:
        age = round(max(0.0, now - self._samples[-1].at), 3) if self._samples else None
        return {"interval_seconds": self.interval, "age_seconds": age, "error": self._error, "left_out": self._left_out}

    def _counters(self, row: Row) -> dict[str, Any]:
        counted = {name: getattr(row.last, name, None) for name in COUNTED}
        return {**counted, "per_second": {name: self._samples[-1].rate(row, n) for n, name in enumerate(COUNTED)}}


async def sample(
    history: History,
    snapshot: Callable[[], Snapshot],
    statistics: Callable[[], Awaitable[Kernel]],
    *,
    http: Callable[[], Awaitable[HttpCounters | None]] | None = None,
    pause: float = PAUSE,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Feed the history for ever. An error here is shown in its views, and stops nothing else."""
    while True:
        kernel, error = None, ""
        try:
            kernel = await statistics()
        except DriverError as exc:
            error = str(exc)
        try:
            counted = await _soon(http) if http is not None else None
            await asyncio.to_thread(history.observe, snapshot(), kernel, clock(), error, counted)
        except Exception:
            logging.getLogger("anycastlb").exception("a sample of the history could not be taken")
        history.interval = max(pause, min(LONGEST, history.size / PACE))
        await asyncio.sleep(history.interval)


async def _soon(http: Callable[[], Awaitable[HttpCounters | None]]) -> HttpCounters | None:
    """What HAProxy says within ``TIMEOUT``: one that is stopped must not thin out the samples of services."""
    with suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT):
            return await http()
    return None


def _wanted(index: Index) -> tuple[dict[Name, tuple[Any, CheckState | None]], int]:
    """What is to be followed, each service before its backends, and how much is left out for want of room."""
    catalog = index.snapshot.inputs.catalog
    index.places.keep(catalog.services)
    served = [(service, vip, str(vip)) for service in catalog.services for vip in service.vips]
    seen: dict[Name, tuple[Any, CheckState | None]] = {
        (service.name, shown, ""): (service.key(vip), None) for service, vip, shown in served[:MAX_ROWS]
    }
    total = len(served) + sum(len(service.members(vip)) for service, vip, _ in served)
    for service, vip, shown in served:
        if len(seen) >= MAX_ROWS:
            break
        for seat in islice(index.seats(service, vip), MAX_ROWS - len(seen)):
            seen[service.name, shown, seat.backend.name] = (seat.key, seat.state)
    return seen, total - len(seen)


def _health(state: CheckState | None, before: float) -> int:
    if state is None or state.up is None:
        return UNKNOWN
    if state.last is not None and state.last.at <= before:
        return UP if state.up else DOWN
    contrary = any(result.ok != state.up for result in state.recent if result.at > before)
    if state.up:
        return FAILING if contrary else UP
    return RISING if contrary else DOWN
