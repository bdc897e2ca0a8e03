"""What the last decision leaves behind beside its memory, so that the next one need not make everything anew.

``Memory`` is a part of what is decided: why a backend counts as up, since when a gate waits. What stands here is only
a short cut. With an empty one (``FROM_SCRATCH``) the same code decides everything from scratch, and the outcome is
equal (a law). Which groups must be decided anew is decided here, and in doubt they are.

Pure. Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from anycastlb.core.decision import peer_health, weights
from anycastlb.core.decision.delta import delta, same_keys
from anycastlb.core.decision.group_result import GroupResult
from anycastlb.core.decision.handover import Successor, vips_of
from anycastlb.core.decision.rows import RowId, Tables
from anycastlb.core.decision.vip_groups import NO_GROUPS, Grouping
from anycastlb.core.model import (
    Address,
    Check,
    CheckState,
    Decision,
    Destination,
    DestinationKey,
    Health,
    Inputs,
    Memory,
    ServiceKey,
    VirtualService,
)

ProbeRows: TypeAlias = tuple[Mapping[ServiceKey, VirtualService], Mapping[DestinationKey, Destination]]


@dataclass(frozen=True, slots=True)
class Remembered:
    """A decision, and what it was put together from."""

    decision: Decision
    inputs: Inputs
    grouping: Grouping
    results: Mapping[Address, GroupResult]
    """One for each group, in their order."""
    by_check: Mapping[Check, tuple[Address, ...]]
    """The groups whose backends have this check."""
    tables: Tables
    """The kernel's tables of all groups together, without what is leaving."""
    up_since: Mapping[DestinationKey, float]
    """Since when the backends of all groups have been up."""
    probe_rows: ProbeRows
    """The IPVS services and destinations of probes."""

    def usable(self, inputs: Inputs, memory: Memory) -> bool:
        """May any of it be used? Not while the node leaves, which concerns every group."""
        return (
            self.decision.memory is memory
            and self.inputs.policy is inputs.policy
            and not any(now.stopping or now.node in now.catalog.drained for now in (self.inputs, inputs))
            and memory.node_drain is None
        )


FROM_SCRATCH = Remembered(Decision(), Inputs(), NO_GROUPS, {}, {}, Tables(), {}, ({}, {}))


def regrouped(last: Remembered, grouping: Grouping) -> tuple[Address, ...]:
    """The groups whose services are not those of the last decision; also those that are gone."""
    old, new = last.grouping.groups, grouping.groups
    return tuple(name for name in delta(old, new).keys if old.get(name) is not new.get(name))


def rows_in_doubt(last: Remembered, memory: Memory, changed: Iterable[Address]) -> Iterator[tuple[RowId, Any]]:
    """The rows of memory that nobody may ask for any more: those of groups that have changed."""
    if last is FROM_SCRATCH:
        return iter(memory.rows.items())
    return chain.from_iterable(last.results[name].rows.items() for name in changed if name in last.results)


def rows_given_up(
    old: Mapping[Address, GroupResult], new: Mapping[Address, GroupResult], anew: Iterable[Address]
) -> Iterator[tuple[RowId, Any]]:
    """The rows that groups which were decided anew no longer ask for."""
    for name in anew:
        if name in old and (before := old[name].rows) is not new[name].rows:
            yield from ((row_id, row) for row_id, row in before.items() if row_id not in new[name].rows)


def replaced(
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


def to_decide(
    last: Remembered,
    inputs: Inputs,
    memory: Memory,
    now: float,
    grouping: Grouping,
    changed: Iterable[Address],
    by_check: Mapping[Check, tuple[Address, ...]],
    concerned: Iterable[Any],
) -> tuple[Address, ...]:
    """The groups to be decided anew, in their order. ``concerned``: keys of rows that are refused or leaving."""
    if last is FROM_SCRATCH:
        return tuple(grouping.groups)
    peers = bool(peer_health.statuses(inputs.cluster)) or inputs.policy.max_withdrawals is not None
    names = {name for name, found in last.results.items() if found.until <= now or (found.troubled and peers)}
    names.update(changed)
    names.update(name for key in concerned if (name := grouping.name_of(key)) is not None)
    for check in _turned(last.inputs.health, inputs.health):
        names.update(by_check.get(check, ()))
    return tuple(name for name in grouping.groups if name in names) if names else ()


def checks_of(last: Remembered, grouping: Grouping, changed: Iterable[Address]) -> Mapping[Check, tuple[Address, ...]]:
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


def leaving_keys(memory: Memory) -> Iterator[ServiceKey | DestinationKey | Address]:
    """What is concerned by rows that are leaving: their own groups, and those of the VIPs whose flows they have."""
    for table, key in memory.leaving:
        yield key
        if table != "addresses":
            yield from vips_of(key.service if table == "destinations" else key, memory.fwmarks)
