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

from anycastlb.core.decision import peer_reports, weights
from anycastlb.core.decision.basis import Basis, refused
from anycastlb.core.decision.delta import delta, same_keys
from anycastlb.core.decision.group_result import GroupResult
from anycastlb.core.decision.handover import Successor, vips_of
from anycastlb.core.decision.remembered import FROM_SCRATCH, Remembered
from anycastlb.core.decision.rows import RowId
from anycastlb.core.decision.vip_groups import Grouping, VipGroup, group_vips
from anycastlb.core.model import Address, Check, CheckState, DestinationKey, Health, Inputs, Memory, ServiceKey


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

    def groups(self) -> Iterator[tuple[Address, VipGroup, GroupResult | None]]:
        """The groups to be decided anew, each with its last result if that was made of the same services."""
        for name in self.anew:
            yield name, self.grouping.groups[name], self.last.results.get(name) if name not in self.changed else None


def scope_of(last: Remembered, inputs: Inputs, memory: Memory, now: float) -> Scope:
    """What must be made anew of the decision that follows ``last``."""
    last = last if last.usable(inputs, memory) else FROM_SCRATCH
    grouping = group_vips(inputs.catalog.services, last.grouping)
    changed = dict.fromkeys(_regrouped(last, grouping))
    by_check = _checks_of(last, grouping, changed) if changed else last.by_check
    doubtful = list(_rows_in_doubt(last, memory, changed))
    refusals = refused(inputs)
    basis = Basis(inputs, memory, now, refusals, _replaced(doubtful, memory, grouping, changed), grouping.vips)
    concerned = frozenset(grouping.name_of(key) for key in (*refusals, *basis.replaced, *_leaving_keys(memory)))
    if last is FROM_SCRATCH:
        anew = tuple(grouping.groups)
    else:
        names = {*changed, *concerned, *_due(last, basis), *_rechecked(last, inputs, by_check)}
        anew = tuple(name for name in grouping.groups if name in names) if names else ()
    return Scope(last, basis, grouping, changed, by_check, doubtful, anew, concerned)


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
    groups = [group for name in changed if (group := grouping.groups.get(name))]
    wanted = {
        (service.key(vip), backend.address, backend.port)
        for group in groups
        for service, vip in group.places
        for backend in service.members(vip)
    }
    successors: set[Successor] = set()
    for (table, key), (row, _) in doubtful:
        if table == "destinations" and row.weight and (key.service, key.address, key.port) not in wanted:
            successors |= _successors(key.service, grouping, memory)
    for (table, key), item in memory.leaving.items():
        if table == "destinations" and item.serves and item.row.weight:
            group = grouping.group_of(key)
            if group is None or not group.wants(key):
                successors |= _successors(key.service, grouping, memory)
    return frozenset(successors)


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


def _rechecked(last: Remembered, inputs: Inputs, by_check: Mapping[Check, tuple[Address, ...]]) -> Iterator[Address]:
    """The groups of which a check says something else than before."""
    return (name for check in _turned(last.inputs.health, inputs.health) for name in by_check.get(check, ()))


def _checks_of(last: Remembered, grouping: Grouping, changed: Iterable[Address]) -> Mapping[Check, tuple[Address, ...]]:
    """By check: the groups whose backends have it."""
    known = dict(last.by_check)
    for name in changed:
        old, new = last.grouping.groups.get(name), grouping.groups.get(name)
        before, after = set(old.checks if old else ()), set(new.checks if new else ())
        for check in before - after:
            rest = tuple(other for other in known[check] if other != name)
            if rest:
                known[check] = rest
            else:
                del known[check]
        for check in after - before:
            known[check] = (*known.get(check, ()), name)
    return known


def _turned(old: Health, new: Health) -> Iterable[Check]:
    """The checks of which a decision may think otherwise than the last one."""
    if old is new:
        return ()
    if same_keys(old, new):
        pairs = zip(new, old.values(), new.values(), strict=True)
        return [check for check, before, after in pairs if before is not after and not alike(before, after)]
    both = {check for check in old.keys() & new.keys() if alike(old[check], new[check])}
    return [check for check in (*old, *new) if check not in both]


def alike(one: CheckState, other: CheckState) -> bool:
    """Do two states of a check say the same to a decision? Evidence that confirms a check that is up does not count."""
    if one.last is None or other.last is None:
        return one == other
    return (
        one.up is other.up
        and one.since == other.since
        and one.asks == other.asks
        and one.last.detail == other.last.detail
        and (one.up is True or one.last == other.last)
        and (one.record == other.record or weights.earned(*one.record) == weights.earned(*other.record))
    )


def _leaving_keys(memory: Memory) -> Iterator[ServiceKey | DestinationKey | Address]:
    """What is concerned by rows that are leaving: their own groups, and those of the VIPs whose flows they have."""
    for table, key in memory.leaving:
        yield key
        if table != "addresses":
            yield from vips_of(key.service if table == "destinations" else key, memory.fwmarks)
