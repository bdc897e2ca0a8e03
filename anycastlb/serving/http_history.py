"""The last ten minutes of gateways and pools in memory, and the last sample of hostnames: what HAProxy has counted of
them, and how fast that grew.

It is fed with the history of services (``serving.history``), sample by sample, and shown with it. Up to ``MAX_ROWS``
hostnames and as many pools are followed; what has left the catalog is forgotten at once.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

from anycastlb.core.model import HttpCounters, PoolCounters, SiteCounters, SiteKey, Snapshot

MAX_ROWS = 2048
"""A pool takes up to 3 kB, and a hostname much less."""
OF_HOSTNAME = ("requests", "bytes_in", "bytes_out", "responses_2xx", "responses_3xx", "responses_4xx", "responses_5xx")
OF_POOL = ("requests", "retries", "redispatches", "connection_errors", "response_errors")
Counters: TypeAlias = Sequence[int] | None
"""None if HAProxy told none."""
Rates: TypeAlias = Sequence[float]
"""How much each counter has grown in a second; not a number where that is not known, as after a reload."""


@dataclass(slots=True)
class _Row:
    """One gateway, hostname or pool."""

    names: tuple[str, ...]
    last: Counters = None
    """The counters of the last sample."""
    _rates: array[float] = field(default_factory=lambda: array("f"))
    """Sample after sample, in the order of ``names``."""

    @property
    def latest(self) -> Rates:
        return self._rates[-len(self.names) :]

    def take(self, counters: Counters, rates: Rates, slots: int) -> None:
        self.last = counters
        self._rates.extend(rates)
        del self._rates[: -slots * len(self.names)]

    def grown(self, counters: Counters, seconds: float) -> Rates:
        if self.last is None or counters is None or seconds <= 0:
            return [math.nan] * len(self.names)
        return [(n - b) / seconds if n >= b else math.nan for b, n in zip(self.last, counters, strict=True)]

    def stats(self) -> dict[str, Any]:
        counters = self.last if self.last is not None else [None] * len(self.names)
        rates = dict(zip(self.names, map(_shown, self.latest), strict=True))
        return {**dict(zip(self.names, counters, strict=True)), "per_second": rates}

    def series(self, samples: int) -> dict[str, list[float | None]]:
        """By counter; None for samples that are older than this row, and where a rate is not known."""
        width = len(self.names)
        missing: list[float | None] = [None] * (samples - len(self._rates) // width)
        return {name: missing + [_shown(one) for one in self._rates[n::width]] for n, name in enumerate(self.names)}


class HttpHistory:
    """Whoever uses it takes care that nobody else does meanwhile."""

    def __init__(self) -> None:
        self._hostnames: dict[SiteKey, _Row] = {}
        self._gateways: dict[str, _Row] = {}
        self._pools: dict[str, _Row] = {}

    def observe(self, snapshot: Snapshot, counted: HttpCounters | None, seconds: float, slots: int) -> None:
        """Take one sample, ``seconds`` after the last one; the last ``slots`` samples are kept."""
        decision = snapshot.decision
        sites = islice(decision.desired.http_sites, MAX_ROWS)
        self._hostnames = {key: self._hostnames.get(key) or _Row(OF_HOSTNAME) for key in sites}
        self._gateways = {name: self._gateways.get(name) or _Row(OF_HOSTNAME) for name in decision.http.gateways}
        pools = islice(decision.http.pools, MAX_ROWS)
        self._pools = {name: self._pools.get(name) or _Row(OF_POOL) for name in pools}
        for key, row in self._hostnames.items():
            site = _of_site(counted.sites.get(key, SiteCounters())) if counted else None
            row.take(site, row.grown(site, seconds), 1)
        by_gateway: dict[str, list[_Row]] = {}
        for key, row in self._hostnames.items():
            by_gateway.setdefault(key.gateway, []).append(row)
        for name, row in self._gateways.items():
            own = by_gateway.get(name, [])
            counters = [one.last for one in own if one.last is not None]
            row.take(_sums(counters) if counted else None, _known_sums([one.latest for one in own]), slots)
        for name, row in self._pools.items():
            pool = _of_pool(counted.pools.get(name, PoolCounters())) if counted else None
            row.take(pool, row.grown(pool, seconds), slots)

    def stats(self) -> dict[str, list[dict[str, Any]]]:
        """The counters as of the last sample, and the rates since the one before."""
        return {
            "gateways": [{"gateway": name, **row.stats()} for name, row in self._gateways.items()],
            "hostnames": [
                {"gateway": key.gateway, "hostname": key.host, **row.stats()} for key, row in self._hostnames.items()
            ],
            "pools": [{"pool": name, **row.stats()} for name, row in self._pools.items()],
        }

    def series(self, samples: int) -> dict[str, list[dict[str, Any]]]:
        """The rates in each of the last ``samples``, oldest first."""
        return {
            "gateways": [{"gateway": name, "rates": row.series(samples)} for name, row in self._gateways.items()],
            "pools": [{"pool": name, "rates": row.series(samples)} for name, row in self._pools.items()],
        }


def _of_site(row: SiteCounters) -> Sequence[int]:
    return row.requests, row.bytes_in, row.bytes_out, *row.answers


def _of_pool(row: PoolCounters) -> Sequence[int]:
    return [getattr(row, name) for name in OF_POOL]


def _sums(rows: Iterable[Sequence[int]]) -> Sequence[int]:
    return [sum(column) for column in zip(*rows, strict=True)] or [0] * len(OF_HOSTNAME)


def _known_sums(rows: Sequence[Rates]) -> Rates:
    """Of the rates that are known; a hostname that is new has none yet."""
    known = [row for row in rows if not any(map(math.isnan, row))]
    if rows and not known:
        return [math.nan] * len(OF_HOSTNAME)
    return [sum(column) for column in zip(*known, strict=True)] or [0.0] * len(OF_HOSTNAME)


def _shown(rate: float) -> float | None:
    return None if math.isnan(rate) else round(rate, 2)
