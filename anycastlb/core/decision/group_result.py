"""What a decision makes of one group of VIPs, and for how long that stands.

A result is remembered, and stands until something that it was made of changes. What it was made of is all named here
and in ``scope``: the services and their checks, what the decision before has left in memory, what the machine
has refused, rows that are leaving, the other nodes' reports, and time. In doubt a result does not stand.

Pure. Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from anycastlb.core.decision import kernel_settings
from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.decision.peer_health import Case
from anycastlb.core.decision.peer_votes import PeerVote, ServiceId
from anycastlb.core.decision.pool import Pool
from anycastlb.core.decision.rows import Wanted
from anycastlb.core.decision.vip_gates import GateStep
from anycastlb.core.delta import shared
from anycastlb.core.model import (
    Address,
    BackendVerdict,
    Destination,
    DestinationKey,
    Gate,
    LocalTrouble,
    Route,
    ServiceKey,
    Verdict,
    VipAddress,
    VirtualService,
)

NEVER, ALWAYS = float("-inf"), float("inf")
EARLY = 1e-6
"""Seconds by which a result is made anew before it would change by itself: clock arithmetic is not exact."""
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What a decision makes of one group. All tables are those of the whole decision, restricted to the group."""

    rows: Wanted
    gates: Mapping[Address, Gate]
    up_since: Mapping[DestinationKey, float]
    unproven: Mapping[DestinationKey, float]
    troubles: Mapping[Address, LocalTrouble]
    followed: Mapping[ServiceId, float | None]
    serving: frozenset[ServiceKey]
    addresses: Mapping[Address, VipAddress]
    services: Mapping[ServiceKey, VirtualService]
    destinations: Mapping[DestinationKey, Destination]
    order: Mapping[ServiceKey, tuple[DestinationKey, ...]]
    """The destinations of each service, in their order."""
    routes: Mapping[Address, Route]
    verdicts: Mapping[Address, Verdict]
    backends: Mapping[DestinationKey, BackendVerdict]
    wakes: tuple[float, ...]
    """When a weight next changes by the mere passing of time."""
    cached: bool
    """Its flows can do without their connection entries (``kernel_settings``)."""
    troubled: bool
    """The other nodes' reports count, if there are any."""
    until: float
    """Until when it stands if nothing that it was made of changes; ``NEVER``: it is made anew by every decision."""


REMEMBERED = ("rows", "gates", "up_since", "unproven", "troubles", "followed", "serving")
"""What the next decision about the group is made of."""


@dataclass(frozen=True, slots=True)
class GroupParts:
    """What the steps of a decision have made of one group."""

    judged: Collection[Judgement]
    votes: Collection[PeerVote]
    gates: Collection[GateStep]
    pools: Collection[tuple[Judgement, Pool]]
    rows: Wanted
    up_since: Mapping[DestinationKey, float]
    routes: Mapping[Address, Route]
    steady: bool
    """Nothing besides the group's own checks, memory and services, which are those of the last decision, had a part in
    it, and no step has failed."""


def result(parts: GroupParts, before: GroupResult | None) -> GroupResult:
    """The result of one group. ``before``: of the last decision."""
    rows = parts.rows
    destinations = {key: row for (table, key), (row, _) in rows.items() if table == "destinations"}
    services = {key: row for (table, key), (row, _) in rows.items() if table == "services"}
    order: dict[ServiceKey, list[DestinationKey]] = {}
    for key in destinations:
        order.setdefault(key.service, []).append(key)
    made = GroupResult(
        rows=rows,
        gates={item.verdict.vip: item.gate for item in parts.gates},
        up_since=parts.up_since,
        unproven={key: since for item in parts.judged for key, since in item.unproven.items()},
        troubles={vote.case.vip: vote.case.trouble for vote in parts.votes if vote.case.trouble},
        followed={name: item.since for vote in parts.votes for name, item in vote.followed.items()},
        serving=frozenset(item.verdict.key for item in parts.judged if item.verdict.open or item.verdict.proving),
        addresses={key: row for (table, key), (row, _) in rows.items() if table == "addresses"},
        services=services,
        destinations=destinations,
        order={key: tuple(names) for key, names in order.items()},
        routes=parts.routes,
        verdicts={item.verdict.vip: item.verdict for item in parts.gates},
        backends={key: verdict for _, pool in parts.pools for key, verdict in pool.backends.items()},
        wakes=tuple(wake for _, pool in parts.pools for wake in pool.wakes),
        cached=kernel_settings.need_no_entries(services.values(), destinations.values()),
        troubled=any(_depends_on_peers(vote.case) for vote in parts.votes),
        until=NEVER,
    )
    if before is None:
        return made
    made = _shared(before, made)
    return replace(made, until=min(made.wakes, default=ALWAYS) - EARLY) if _stands(parts, before, made) else made


def _depends_on_peers(case: Case) -> bool:
    """May the other nodes' reports change the gate of this VIP, or the weights of a service that is dead here?"""
    return case.trouble is not None and (case.own != "unable" or bool(case.trouble.dead))


def _shared(before: GroupResult, made: GroupResult) -> GroupResult:
    """The same result, of the objects of the one before as far as they are equal."""
    tables: dict[str, Any] = {}
    for field in fields(made):
        old, new = getattr(before, field.name), getattr(made, field.name)
        if isinstance(new, Mapping):
            tables[field.name] = shared(old, new)
        elif old == new:
            tables[field.name] = old
    return replace(made, **tables)


def _stands(parts: GroupParts, before: GroupResult, made: GroupResult) -> bool:
    """Would it be the same at any moment before ``wakes``, with the memory that it leaves?"""
    return (
        parts.steady
        and all(getattr(before, name) is getattr(made, name) for name in REMEMBERED)
        and not made.followed
        and not any(item.verdict.proving or item.proving for item in parts.judged)
        and not any(vote.opinion.wake is not None or vote.case.guarded for vote in parts.votes if vote.case.trouble)
        and not any(item.wake is not None or item.gate.penalty for item in parts.gates)
    )
