"""The kernel's own counters and rates of services and backends, as metrics. Pure: what was asked of it is handed over.

Those of a fwmark service are one for all its VIPs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from anycastlb.core.model import DestinationKey, ServiceKey, Snapshot, TrafficCounters
from anycastlb.serving.metrics.families import FamilySamples, one, samples_of
from anycastlb.serving.metrics.rows import BackendRow, service_rows

Statistics: TypeAlias = Mapping[ServiceKey | DestinationKey, TrafficCounters]
COUNTERS = ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out")
RATES = ("connection_rate", "packet_rate", "byte_rate")
SILENT = (0, 0, 0, 0, 0)


def service_traffic(snapshot: Snapshot, kernel: Statistics) -> Iterator[FamilySamples]:
    """The counters of services."""
    rows = [(labels, kernel[s.key], True) for labels, s in service_rows(snapshot) if s.key in kernel]
    yield from _counted("service", rows)


def counted_metrics(rows: Sequence[BackendRow], kernel: Statistics) -> Iterator[FamilySamples]:
    """The counters of backends."""
    backends = [
        (row.labels, counted, row.backend.forward == "nat")
        for row in rows
        if (counted := kernel.get(row.key)) is not None
    ]
    yield from _counted("backend", backends)
    yield samples_of("ipvs_backend_active", ((labels, c.active) for labels, c, _ in backends))
    yield samples_of("ipvs_backend_inactive", ((labels, c.inactive) for labels, c, _ in backends))


def settings(snapshot: Snapshot) -> Iterator[FamilySamples]:
    """Time-outs and connection sync; nothing if the settings were never read."""
    config = snapshot.actual.config
    times = [((name.removesuffix("_timeout"),), row) for name, row in config.items() if isinstance(row, int)]
    yield samples_of("ipvs_timeout_seconds", times)
    if times:
        yield samples_of("ipvs_sync_wanted", one("sync_master" in snapshot.inputs.policy.config))
        roles = ("master", "backup")
        yield samples_of("ipvs_sync_running", [((role,), f"sync_{role}" in config) for role in roles])


def _counted(what: str, rows: Sequence[tuple[tuple[str, ...], TrafficCounters, bool]]) -> Iterator[FamilySamples]:
    """``rows``: labels, counters, and whether return traffic passes this node. Counters that are always 0 are left
    out."""
    for name in COUNTERS:
        some = [row for row in rows if row[2]] if name.endswith("_out") else rows
        yield samples_of(f"ipvs_{what}_{name}", ((labels, getattr(c, name)) for labels, c, _ in some))
    rates = [(labels, c.rates or SILENT, returns) for labels, c, returns in rows]
    yield samples_of(f"ipvs_{what}_connection_rate", ((labels, values[0]) for labels, values, _ in rates))
    for name, first in (("packet_rate", 1), ("byte_rate", 3)):
        inward = [((*labels, "in"), values[first]) for labels, values, _ in rates]
        outward = [((*labels, "out"), values[first + 1]) for labels, values, returns in rates if returns]
        yield samples_of(f"ipvs_{what}_{name}", [*inward, *outward])
