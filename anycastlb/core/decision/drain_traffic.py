"""What still comes to a node that leaves, how fast, and how long that may last.

Pure. Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anycastlb.core.model import NodeDrain, ServiceKey, Traffic, TrafficCounters

LOOK = 1.0
"""Seconds between two looks at what cannot tell by itself that it has changed."""
QUIET = 5.0
"""Seconds with at most ``STRAY`` packets after which nothing comes any more; the kernel counts every two seconds."""


def count(counters: Mapping[Any, TrafficCounters], at: float, probes: tuple[int, int]) -> Traffic:
    """The sum over all services but those of probes, whose firewall marks are ``probes``."""
    packets = connections = 0
    for key, counted in counters.items():
        service = key if isinstance(key, ServiceKey) else key.service
        if service.protocol == "fwmark" and probes[0] <= service.port <= probes[1]:
            continue
        if key is service:
            packets += counted.packets_in + counted.packets_out
        else:
            connections += counted.active
    return Traffic(at, packets, connections)


def rate(drain: NodeDrain) -> float:
    """Packets a second over the samples that are kept."""
    return _rate(drain.samples)


def eta(drain: NodeDrain, now: float) -> float | None:
    """Seconds until the node is drained, by what is known now; None while nobody can say."""
    if drain.stage == "drained":
        return 0.0
    if drain.stage == "waiting" or drain.until is None:
        return None
    left = max(0.0, drain.until - now)
    if drain.stage == "graceful":
        return left + QUIET
    if drain.calm is not None and drain.samples[-1].at > drain.calm.at:
        return min(left, max(0.0, drain.calm.at + QUIET - now))
    half = len(drain.samples) // 2
    earlier, later = _rate(drain.samples[: half + 1]), _rate(drain.samples[half:])
    if not half or later >= earlier:
        return left
    between = (drain.samples[-1].at - drain.samples[0].at) / 2
    return min(left, later * between / (earlier - later) + QUIET)


def _rate(samples: tuple[Traffic, ...]) -> float:
    if len(samples) < 2:
        return 0.0
    first, last = samples[0], samples[-1]
    return max(0.0, (last.packets - first.packets) / (last.at - first.at))
