"""Which groups of VIPs must be decided anew; in doubt they are.

A group is decided anew when its services have changed, when a check of its backends says something else, when a row of
it is refused or leaves, when the other nodes' reports count for it, and when its result would change by itself.

Pure. Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from anycastlb.core.decision import peer_reports
from anycastlb.core.decision.basis import Basis, refused
from anycastlb.core.decision.containment import Containment
from anycastlb.core.decision.group_result import GroupResult
from anycastlb.core.decision.handover import Successor, vips_of
from anycastlb.core.decision.health import turned
from anycastlb.core.decision.http.tier import Tier, http_tier
from anycastlb.core.decision.remembered import FROM_SCRATCH, Remembered
from anycastlb.core.decision.rows import RowId
from anycastlb.core.decision.vip_groups import Grouping, VipGroup, group_vips
from anycastlb.core.delta import delta
from anycastlb.core.model import Address, Check, DestinationKey, Inputs, Memory, ServiceKey


@dataclass(frozen=True, slots=True)
class Scope:
    """What a decision makes anew, and what it takes all else from."""

    last: Remembered
    """The last decision, as far as it may be used."""
    basis: Basis
    grouping: Grouping
    changed: Collection[Address]
    """The groups whose services are not those of the last decision, by name; also those that are gone."""
    by_check: Mapping[Check, tuple[Address, ...]]
    """The groups whose backends have this check."""
    doubtful: Sequence[tuple[RowId, Any]]
    """The rows of memory that nobody may ask for any more."""
    anew: tuple[Address, ...]
    """The groups to be decided anew, in their order."""
    unsteady: frozenset[Address | None]
    """The groups with rows that are refused, replaced or leaving."""
    http: Tier
    """The HTTP tier, which is decided before the groups are."""

    def groups(self) -> Iterator[tuple[Address, VipGroup, GroupResult | None]]:
        """The groups to be decided anew, each with its last result."""
        for name in self.anew:
            yield name, self.grouping.groups[name], self.last.results.get(name)

    def steady(self, name: Address) -> bool:
        """Does nothing but its own services, checks and memory have a part in this group, and are these services those
        of the last decision?"""
        return name not in self.unsteady and name not in self.changed


def scope_of(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> Scope:
    """What must be made anew of the decision that follows ``last``."""
    last = last if last.usable(inputs, memory) else FROM_SCRATCH
    refusals, contained = refused(inputs), Containment()
    http = http_tier(last.http, inputs, memory, refusals, now, contained)
    grouping = group_vips(http.services, last.grouping)
    changed = dict.fromkeys(_regrouped(last, grouping))
    by_check = _checks_of(last, grouping, changed) if changed else last.by_check
    doubtful = list(_rows_in_doubt(last, memory, changed))
    replaced = _replaced(doubtful, memory, grouping, changed)
    basis = Basis(inputs, memory, now, refusals, replaced, grouping.vips, http.listening, contained)
    concerned = frozenset(grouping.name_of(key) for key in (*refusals, *basis.replaced, *_leaving_keys(memory)))
    if last is FROM_SCRATCH:
        anew = tuple(grouping.groups)
    else:
        heard = map(grouping.name_of, _listeners(last, http, inputs))
        names = {*changed, *concerned, *heard, *_due(last, basis), *_rechecked(last, inputs, by_check)}
        anew = grouping.in_order(names)
    return Scope(last, basis, grouping, changed, by_check, doubtful, anew, concerned, http)


def _regrouped(last: Remembered, grouping: Grouping) -> tuple[Address, ...]:
    """The groups whose services are not those of the last decision; also those that are gone."""
    old, new = last.grouping.groups, grouping.groups
    return tuple(name for name in delta(old, new).keys if old.get(name) is not new.get(name))


def _rows_in_doubt(last: Remembered, memory: Memory, changed: Iterable[Address]) -> Iterator[tuple[RowId, Any]]:
    """The rows of memory that nobody may ask for any more: those of groups that have changed."""
    if last is FROM_SCRATCH:
        return iter(memory.rows.items())
    return chain.from_iterable(last.results[name].rows.items() for name in changed if name in last.results)


def _replaced(
    doubtful: Iterable[tuple[RowId, Any]], memory: Memory, grouping: Grouping, changed: Iterable[Address]
) -> frozenset[Successor]:
    """The services and VIPs whose old backends, taken out by an edit, still get flows."""
    successors: set[Successor] = set()
    weighted = [key for (table, key), (row, _) in doubtful if table == "destinations" and row.weight]
    wanted = _endpoints(grouping, changed) if weighted else frozenset()
    for key in weighted:
        if (key.service, key.address, key.port) not in wanted:
            successors |= _successors(key.service, grouping, memory)
    for (table, key), item in memory.leaving.items():
        if table == "destinations" and item.serves and item.row.weight:
            group = grouping.group_of(key)
            if group is None or not group.wants(key):
                successors |= _successors(key.service, grouping, memory)
    return frozenset(successors)


def _endpoints(grouping: Grouping, names: Iterable[Address]) -> frozenset[tuple[ServiceKey, Address, int]]:
    """The backends that the services of these groups name, drained ones included."""
    groups = [group for name in names if (group := grouping.groups.get(name))]
    places = [(service, vip, service.key(vip)) for group in groups for service, vip in group.places]
    return frozenset((key, one.address, one.port) for service, vip, key in places for one in service.members(vip))


def _successors(key: ServiceKey, grouping: Grouping, memory: Memory) -> frozenset[Successor]:
    group = grouping.group_of(key)
    if group is not None and key in group.staffed:
        return frozenset({key})
    return frozenset(vips_of(key, memory.fwmarks))


def _due(last: Remembered, basis: Basis) -> Iterator[Address]:
    """The groups whose results end now, or for which the other nodes' reports count."""
    inputs = basis.inputs
    peers = bool(peer_reports.statuses(inputs.cluster)) or inputs.policy.max_withdrawals is not None
    return (name for name, result in last.results.items() if result.until <= basis.now or (result.troubled and peers))


def _listeners(last: Remembered, http: Tier, inputs: Inputs) -> Iterator[Address]:
    """The VIPs of the gateways of which something else is said than before."""
    before, now = last.http.listening, http.listening
    for gateway in inputs.catalog.gateways if now is not before else ():
        if now.get(gateway.name) is not before.get(gateway.name):
            yield from gateway.vips


def _rechecked(last: Remembered, inputs: Inputs, by_check: Mapping[Check, tuple[Address, ...]]) -> Iterator[Address]:
    """The groups of which a check says something else than before."""
    return (name for check in turned(last.inputs.health, inputs.health) for name in by_check.get(check, ()))


def _checks_of(last: Remembered, grouping: Grouping, changed: Iterable[Address]) -> Mapping[Check, tuple[Address, ...]]:
    """By check: the groups whose backends have it."""
    groups = [(name, last.grouping.groups.get(name), grouping.groups.get(name)) for name in changed]
    checks = [(name, set(old.checks if old else ()), set(new.checks if new else ())) for name, old, new in groups]
    if all(before == after for _, before, after in checks):
        return last.by_check
    known = dict(last.by_check)
    for name, before, after in checks:
        alone = (name,)
        for check in before - after:
            rest = tuple(other for other in known[check] if other != name)
            if rest:
                known[check] = rest
            else:
                del known[check]
        for check in after - before:
            known[check] = (*known[check], name) if check in known else alone
    return known


def _leaving_keys(memory: Memory) -> Iterator[ServiceKey | DestinationKey | Address]:
    """What is concerned by rows that are leaving: their own groups, and those of the VIPs whose flows they have."""
    for table, key in memory.leaving:
        yield key
        if table != "addresses":
            yield from vips_of(key.service if table == "destinations" else key, memory.fwmarks)
