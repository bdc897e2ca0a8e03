"""The kernel's rows: those that a catalog asks for, and those that are only kept until their flows have ended.

Waiting is a desired state: a row that nobody asks for any more stays in the desired state until its drain time is over.
A backend that left a living service gets no new flows meanwhile, unless nothing is proven yet of what replaces it
(``handover``); the backends of a service that is leaving serve on.
The order of destinations is part of the state (the ``mh`` table depends on it), so a leaving one keeps its place.

Pure. Decision record: docs/decisions/0003-pools-and-gates.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from anycastlb.core.decision.handover import NOTHING, Handover, Successor, vips_of
from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.decision.kernel_settings import need_no_entries
from anycastlb.core.decision.pool import Pool
from anycastlb.core.decision.vip_groups import Place
from anycastlb.core.delta import in_one_piece
from anycastlb.core.model import (
    EMPTY,
    Address,
    Destination,
    DestinationKey,
    Leaving,
    Memory,
    ServiceKey,
    Table,
    VipAddress,
    VirtualService,
    gateway_on_vip,
)

RowId: TypeAlias = tuple[Table, Any]
Wanted: TypeAlias = dict[RowId, tuple[Any, float]]
"""By row: its value, and how long to keep it once nobody asks for it (``Memory.rows``)."""
Order: TypeAlias = Mapping[ServiceKey, tuple[DestinationKey, ...]]
"""The destinations of each service, in their order (``Memory.order``)."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The kernel's tables, as far as the catalog's services make them."""

    addresses: Mapping[Address, VipAddress] = field(default_factory=lambda: EMPTY)
    services: Mapping[ServiceKey, VirtualService] = field(default_factory=lambda: EMPTY)
    destinations: Mapping[DestinationKey, Destination] = field(default_factory=lambda: EMPTY)
    order: Order = field(default_factory=lambda: EMPTY)


def wanted_rows(pools: Iterable[tuple[Judgement, Pool]]) -> Wanted:
    """The rows that the catalog asks for. A VIP stays as long as the service that drains longest."""
    rows: Wanted = {}
    for judged, pool in pools:
        service, vip = judged.service, judged.vip
        _, longest = rows.get(("addresses", vip), (None, 0.0))
        rows["addresses", vip] = (VipAddress(), max(service.drain, longest))
        if gateway_on_vip(service.name) is not None and not service.backends:
            continue  # HAProxy listens there, and no other node shares its connections
        rows["services", judged.verdict.key] = (service.row(vip), service.drain)
        rows.update({("destinations", key): (row, service.drain) for key, row in pool.rows.items()})
    return rows


def held_rows(places: Iterable[Place], memory: Memory, pools: Iterable[tuple[Judgement, Pool]]) -> Wanted:
    """The last rows of those services and VIPs that have no new ones, because a step of this decision has failed."""
    weighed = {(item.service.name, item.vip) for item, _ in pools}
    lost = [(service, vip) for service, vip in places if (service.name, vip) not in weighed]
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
    doubtful: Iterable[tuple[RowId, Any]],
    memory: Memory,
    idle: frozenset[DestinationKey],
    now: float,
    drain: bool = True,
    handover: Handover = NOTHING,
) -> dict[RowId, Leaving]:
    """Rows nobody asks for any more, until their drain time is over or, for a backend, its last connection is.

    A row that is asked for again is taken back. ``doubtful``: those of ``memory.rows`` that may not be asked for.
    ``drain`` is False where nothing comes any more, so that what begins to leave now goes at once.
    """
    leaving = {row_id: item for row_id, item in memory.leaving.items() if row_id not in rows}
    for row_id, (row, seconds) in doubtful:
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


def with_leaving(
    tables: Tables, wanted: Mapping[RowId, Any], leaving: Mapping[RowId, Leaving], before: Order
) -> Tables:
    """The tables of what is wanted, with what is leaving. ``before``: the destinations so far."""
    if not leaving:
        return tables
    addresses = {key: item.row for (table, key), item in leaving.items() if table == "addresses"}
    services = {key: item.row for (table, key), item in leaving.items() if table == "services"}
    kept: dict[ServiceKey, dict[DestinationKey, Destination]] = {}
    for (table, key), item in leaving.items():
        if table != "destinations":
            continue
        stays = ("services", key.service) in wanted
        if stays or key.service in services:
            row = _without_new_flows(item.row) if stays and not item.serves else item.row
            kept.setdefault(key.service, {})[key] = row
    destinations, order = dict(in_one_piece(tables.destinations)), dict(in_one_piece(tables.order))
    for service, rows in kept.items():
        asked = {key: destinations.pop(key) for key in tables.order.get(service, ())}
        both = _merged(asked, rows, before.get(service, ()))
        destinations.update(both)
        order[service] = tuple(both)
    return Tables(
        {**addresses, **in_one_piece(tables.addresses)},
        {**services, **in_one_piece(tables.services)},
        destinations,
        order,
    )


def cached_leaving(leaving: Mapping[RowId, Leaving]) -> bool:
    """Can the flows of what is leaving do without their connection entries?"""
    services = [item.row for (table, _), item in leaving.items() if table == "services"]
    return need_no_entries(services, [item.row for (table, _), item in leaving.items() if table == "destinations"])


def _without_new_flows(row: Destination) -> Destination:
    return replace(row, weight=0, last_weight=row.weight or row.last_weight or 1)


def _merged(
    wanted: Mapping[DestinationKey, Destination],
    kept: Mapping[DestinationKey, Destination],
    before: Iterable[DestinationKey],
) -> dict[DestinationKey, Destination]:
    """A service's wanted destinations in their order, each leaving one after its predecessor: leaving moves nobody."""
    followers: dict[DestinationKey | None, list[DestinationKey]] = {}
    anchor: DestinationKey | None = None
    for key in before:
        if key in wanted:
            anchor = key
        elif key in kept:
            followers.setdefault(anchor, []).append(key)
    merged = {key: kept[key] for key in followers.get(None, ())}
    for key, row in wanted.items():
        merged[key] = row
        merged.update((k, kept[k]) for k in followers.get(key, ()))
    return {**merged, **kept}


def by_service(keys: Iterable[DestinationKey]) -> dict[ServiceKey, tuple[DestinationKey, ...]]:
    """The destinations of each service, in their order."""
    grouped: dict[ServiceKey, list[DestinationKey]] = {}
    for key in keys:
        grouped.setdefault(key.service, []).append(key)
    return {service: tuple(names) for service, names in grouped.items()}
