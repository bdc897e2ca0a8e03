"""What is measured of the backends of one service on one VIP, family by family. Pure.

A column is a family with one number for each of them, in order; None where it has no sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from anycastlb.core.model import Backend, BackendVerdict, CheckState, Leaving, TrafficCounters
from anycastlb.serving.metrics.traffic import COUNTERS, DIRECTIONS, SILENT

Numbers: TypeAlias = Sequence[float | None]
Column: TypeAlias = tuple[str, str, Numbers]
"""The family, the value of its label ``direction`` if it has one, and the numbers; none of these for none at all."""


def decided_columns(
    verdicts: Sequence[BackendVerdict], backends: Sequence[Backend], leaving: Sequence[Leaving | None], wall: float
) -> Iterator[Column]:
    """What was decided of them. ``wall``: wall-clock seconds at the zero of the snapshot's clock."""
    weights = [verdict.weights for verdict in verdicts]
    yield ("backend_up", "", [verdict.up for verdict in verdicts])
    yield ("backend_weight", "", [verdict.weight for verdict in verdicts])
    yield ("backend_configured_weight", "", [backend.weight for backend in backends])
    yield ("backend_administrative_weight", "", [weight.admin for weight in weights])
    yield ("backend_health_ratio", "", [weight.health for weight in weights])
    yield ("backend_slow_start_ratio", "", [weight.ramp for weight in weights])
    drained = [
        weight.admin == 0 and (backend.drain or backend.override != 0)
        for weight, backend in zip(weights, backends, strict=True)
    ]
    yield ("backend_drained", "", drained)
    ends = [wall + end.until if end and gone else None for end, gone in zip(leaving, drained, strict=True)]
    yield ("backend_leaves_timestamp_seconds", "", ends)


def checked_columns(states: Sequence[CheckState | None], wall: float) -> Iterator[Column]:
    """What their checks found. ``wall`` as above."""
    lasts = [None if state is None else state.last for state in states]
    yield ("backend_check_up", "", [None if last is None else last.ok for last in lasts])
    yield ("backend_check_unknown", "", [state is None or state.up is None for state in states])
    yield ("backend_check_duration_seconds", "", [None if last is None else last.duration for last in lasts])
    turned = [None if state is None or state.up is None else wall + state.since for state in states]
    yield ("backend_transition_timestamp_seconds", "", turned)


def counted_columns(counters: Sequence[TrafficCounters | None], backends: Sequence[Backend]) -> Iterator[Column]:
    """What the kernel counted for them. Counters that are always 0 are left out: answers do not pass this node, but
    those of ``nat``."""
    if len(counters) > 1 and len(set(map(id, counters))) == 1 and all(one.forward != "nat" for one in backends):
        # nothing came for any of them, as for most services of a node that is not the nearest one
        for name, direction, numbers in counted_columns(counters[:1], backends[:1]):
            yield name, direction, [*numbers] * len(counters)
        return
    returns: list[TrafficCounters | None] = []
    if any(backend.forward == "nat" for backend in backends):
        returns = [c if backend.forward == "nat" else None for c, backend in zip(counters, backends, strict=True)]
    for name in COUNTERS:
        passing = returns if name.endswith("_out") else counters
        yield (f"ipvs_backend_{name}", "", [None if c is None else getattr(c, name) for c in passing])
    inward, outward = _rates(counters), _rates(returns)
    yield ("ipvs_backend_connection_rate", "", [None if rates is None else rates[0] for rates in inward])
    for name, first in (("packet_rate", 1), ("byte_rate", 3)):
        for direction, of, place in zip(DIRECTIONS, (inward, outward), (first, first + 1), strict=True):
            numbers = [None if rates is None else rates[place] for rates in of]
            yield (f"ipvs_backend_{name}", direction, numbers)
    yield ("ipvs_backend_active", "", [None if counted is None else counted.active for counted in counters])
    yield ("ipvs_backend_inactive", "", [None if counted is None else counted.inactive for counted in counters])


def _rates(counters: Sequence[TrafficCounters | None]) -> list[tuple[int, ...] | None]:
    return [None if counted is None else counted.rates or SILENT for counted in counters]
