"""The kernel's own counters and rates of services, as metrics. Pure: what was asked of it is handed over.

Those of a fwmark service are one for all its VIPs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from anycastlb.core.model import DestinationKey, ServiceKey, Snapshot, TrafficCounters
from anycastlb.serving.metrics.families import FamilySamples, one, samples_of
from anycastlb.serving.metrics.rows import service_rows

Statistics: TypeAlias = Mapping[ServiceKey | DestinationKey, TrafficCounters]
COUNTERS = ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out")
SILENT = (0, 0, 0, 0, 0)
DIRECTIONS = ("in", "out")


def service_traffic(snapshot: Snapshot, kernel: Statistics) -> Iterator[FamilySamples]:
    """The counters of services."""
    rows = [(labels, kernel[s.key]) for labels, s in service_rows(snapshot) if s.key in kernel]
    for name in COUNTERS:
        yield samples_of(f"ipvs_service_{name}", ((labels, getattr(counted, name)) for labels, counted in rows))
    rates = [(labels, counted.rates or SILENT) for labels, counted in rows]
    yield samples_of("ipvs_service_connection_rate", ((labels, values[0]) for labels, values in rates))
    for name, first in (("packet_rate", 1), ("byte_rate", 3)):
        both = [((*labels, to), values[first + n]) for n, to in enumerate(DIRECTIONS) for labels, values in rates]
        yield samples_of(f"ipvs_service_{name}", both)


def settings(snapshot: Snapshot) -> Iterator[FamilySamples]:
    """Time-outs and connection sync; nothing if the settings were never read."""
    config = snapshot.actual.config
    times = [((name.removesuffix("_timeout"),), row) for name, row in config.items() if isinstance(row, int)]
    yield samples_of("ipvs_timeout_seconds", times)
    if times:
        yield samples_of("ipvs_sync_wanted", one("sync_master" in snapshot.inputs.policy.config))
        roles = ("master", "backup")
        yield samples_of("ipvs_sync_running", [((role,), f"sync_{role}" in config) for role in roles])
