"""The kernel's rows: those that a catalog asks for, and those that are only kept until their flows have ended.

Waiting is a desired state: a row that nobody asks for any more stays in the desired state until its drain time is over.
A backend that left a living service gets no new flows meanwhile, unless nothing is proven yet of what replaces it
(``handover``); the backends of a service that is leaving serve on.
The order of destinations is part of the state (the ``mh`` table depends on it), so a leaving one keeps its place.

Pure. Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from anycastlb.core.decision.handover import NOTHING, Handover, Successor, vips_of
from anycastlb.core.decision.pool import Judgement, Pool
from anycastlb.core.model import (
    Address,
    Destination,
    DestinationKey,
    Inputs,
    Leaving,
    Memory,
    ServiceKey,
    Table,
    VipAddress,
    VirtualService,
)

RowId: TypeAlias = tuple[Table, Any]
Wanted: TypeAlias = dict[RowId, tuple[Any, float]]
"""By row: its value, and how long to keep it once nobody asks for it (``Memory.rows``)."""
Tables: TypeAlias = tuple[
    dict[Address, VipAddress], dict[ServiceKey, VirtualService], dict[DestinationKey, Destination]
]


def wanted_rows(pools: Iterable[tuple[Judgement, Pool]]) -> Wanted:
    """The rows that the catalog asks for. A VIP stays as long as the service that drains longest."""
    rows: Wanted = {}
    for judged, pool in pools:
        service, vip = judged.service, judged.vip
        _, longest = rows.get(("addresses", vip), (None, 0.0))
        rows["addresses", vip] = (VipAddress(), max(service.drain, longest))
        rows["services", judged.verdict.key] = (service.row(vip), service.drain)
        rows.update({("destinations", key): (row, service.drain) for key, row in pool.rows.items()})
    return rows


def held_rows(inputs: Inputs, memory: Memory, pools: Sequence[tuple[Judgement, Pool]]) -> Wanted:
    """The last rows of what has no new ones, because a step of this decision has failed."""
    weighed = {(item.service.name, item.vip) for item, _ in pools}
    lost = [(s, vip) for s in inputs.catalog.services for vip in s.vips if (s.name, vip) not in weighed]
    if not lost:
        return {}
    kept = {("addresses", vip) for _, vip in lost} | {("services", service.key(vip)) for service, vip in lost}
    return {
        (table, key): row
        for (table, key), row in memory.rows.items()
        if (("services", key.service) if table == "destinations" else (table, key)) in kept
    }


def leaving_rows(
    rows: Mapping[RowId, Any],
    memory: Memory,
    idle: frozenset[DestinationKey],
    now: float,
    drain: bool = True,
    handover: Handover = NOTHING,
) -> dict[RowId, Leaving]:
    """Rows nobody asks for any more, until their drain time is over or, for a backend, its last connection is.

    A row that is asked for again is taken back. ``drain`` is False where nothing comes any more, so that what begins to
    leave now goes at once.
    """
    leaving = {row_id: item for row_id, item in memory.leaving.items() if row_id not in rows}
    for row_id, (row, seconds) in memory.rows.items():
        if row_id not in rows:
            leaving[row_id] = Leaving(row, now + seconds * drain, seconds * drain)
    for row_id, item in leaving.items():
        begun = item.serves if row_id in memory.leaving else None
        if begun is not False:
            leaving[row_id] = _handed_over(item, handover.end(_successors(row_id, handover, memory), bool(begun)), now)
    done = {("destinations", key) for key in idle if ("services", key.service) in rows}
    return {
        row_id: item for row_id, item in leaving.items() if item.serves or (item.until > now and row_id not in done)
    }


def _handed_over(item: Leaving, end: float | None, now: float) -> Leaving:
    """It serves until ``end``, and is kept for its drain time from then on."""
    until = min(item.until, now + item.drain) if end is None else end + item.drain
    return replace(item, until=until, serves=end is not None)


def _successors(row_id: RowId, handover: Handover, memory: Memory) -> Iterable[Successor]:
    table, key = row_id
    if table == "addresses":
        return (key,)
    service = key.service if table == "destinations" else key
    return (service,) if service in handover.staffed else vips_of(service, memory.fwmarks)


def tables(rows: Wanted, leaving: Mapping[RowId, Leaving], order: Iterable[DestinationKey]) -> Tables:
    """Addresses, services and destinations of the desired state. ``order``: of the destinations so far."""
    addresses = {key: item.row for (table, key), item in leaving.items() if table == "addresses"}
    services = {key: item.row for (table, key), item in leaving.items() if table == "services"}
    kept = {
        key: _without_new_flows(item.row) if ("services", key.service) in rows and not item.serves else item.row
        for (table, key), item in leaving.items()
        if table == "destinations" and (key.service in services or ("services", key.service) in rows)
    }
    addresses |= {key: row for (table, key), (row, _) in rows.items() if table == "addresses"}
    services |= {key: row for (table, key), (row, _) in rows.items() if table == "services"}
    wanted = {key: row for (table, key), (row, _) in rows.items() if table == "destinations"}
    return addresses, services, _merged(wanted, kept, tuple(order))


def _without_new_flows(row: Destination) -> Destination:
    return replace(row, weight=0, last_weight=row.weight or row.last_weight or 1)


def _merged(
    wanted: Mapping[DestinationKey, Destination],
    kept: Mapping[DestinationKey, Destination],
    order: tuple[DestinationKey, ...],
) -> dict[DestinationKey, Destination]:
    """Wanted destinations in their order, each leaving one after its predecessor: leaving moves nobody."""
    if not kept:
        return dict(wanted)
    followers: dict[DestinationKey | ServiceKey, list[DestinationKey]] = {}
    anchors: dict[ServiceKey, DestinationKey] = {}
    for key in order:
        if key in wanted:
            anchors[key.service] = key
        elif key in kept:
            followers.setdefault(anchors.get(key.service, key.service), []).append(key)
    merged: dict[DestinationKey, Destination] = {}
    begun: set[ServiceKey] = set()
    for key, row in wanted.items():
        if key.service not in begun:
            begun.add(key.service)
            merged.update((k, kept[k]) for k in followers.get(key.service, ()))
        merged[key] = row
        merged.update((k, kept[k]) for k in followers.get(key, ()))
    merged.update((k, kept[k]) for k in (*order, *kept) if k in kept and k not in merged)
    return merged
