"""Compare what is with what should be, again and again: only what differs from the last comparison is looked at.

``compare_again`` finds the changes that ``plan.compare`` finds, in the same order. A row is compared if it is another
object than in the last comparison, on one side or the other, or if the last comparison has found it different. The
destinations of a service are compared as a whole, since their order counts, unless nothing but weights has changed.

Pure. Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from anycastlb.core.decision import plan
from anycastlb.core.decision.containment import Containment
from anycastlb.core.delta import delta
from anycastlb.core.model import ALL_TABLES, Change, Failure, Reason, ServiceKey, State, Table


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two states, and the changes that turn one into the other."""

    actual: State
    desired: State
    changes: tuple[Change, ...]
    failures: tuple[Failure, ...]
    """Of each service whose destinations could not be compared: they stay as they are."""
    left_out: Mapping[Any, Reason] = field(default_factory=dict)
    """The VIPs with which the comparison failed, and why (``quarantine``)."""
    rest: Comparison | None = None
    """The comparison without them."""


UNCOMPARED = Comparison(State(), State(), (), ())


def compare_again(last: Comparison, actual: State, desired: State) -> Comparison:
    """The comparison of two states; ``last`` is of two that differ little from them."""
    if actual is last.actual and desired is last.desired:
        return last
    if last.failures:
        last = UNCOMPARED
    contained = Containment()
    changes = [change for table in ALL_TABLES for change in _changes(table, last, actual, desired, contained)]
    return Comparison(actual, desired, plan.ordered(changes, contained), plan.faults_of(contained, desired))


def _changes(table: Table, last: Comparison, actual: State, desired: State, contained: Containment) -> Iterable[Change]:
    old, new = actual.rows(table), desired.rows(table)
    one, two = delta(last.actual.rows(table), old), delta(last.desired.rows(table), new)
    before = [change for change in last.changes if change.table == table]
    if not one.keys and not two.keys:
        return before
    aligned = table != "destinations" and one.aligned and two.aligned
    edited = _edited(table, before, old, new, {*one.keys, *two.keys}) if aligned else None
    if edited is not None:
        return edited
    if table != "destinations" and not (old and new):
        return plan.row_changes(table, old, new)  # all of them: HAProxy has died, or is back
    doubtful = {*one.keys, *two.keys, *(change.key for change in before)}
    if table != "destinations":
        return _row_changes(table, old, new, doubtful)
    moved = any(change.moved or change.verb != "update" for change in before)
    if one.aligned and two.aligned and not moved:
        return _row_changes(table, old, new, doubtful)
    services = {key.service for key in doubtful}
    return plan.destination_changes(_of_services(old, services), _of_services(new, services), contained)


def _edited(
    table: Table, before: list[Change], old: Mapping[Any, Any], new: Mapping[Any, Any], keys: Collection[Any]
) -> list[Change] | None:
    """The changes of before where only these rows may differ otherwise; None if there are others in between.

    They may be as many as there are VIPs, for as long as nobody announces one.
    """
    made = {change.key: change for change in plan.row_changes(table, _these(old, keys), _these(new, keys))}
    known = {change.key: change for change in before if change.key in keys}
    if not made:
        return [change for change in before if change.key not in known]
    if made.keys() != known.keys():
        return None
    return [made.get(change.key, change) for change in before]


def _row_changes(
    table: Table, old: Mapping[Any, Any], new: Mapping[Any, Any], keys: Collection[Any]
) -> Iterable[Change]:
    """The changes of these rows, in the order in which the tables have them.

    To find that order, each key of both tables is hashed, so it is not looked for before there are two changes.
    """
    changes = list(plan.row_changes(table, _these(old, keys), _these(new, keys)))
    return changes if len(changes) < 2 else plan.row_changes(table, _only(old, keys), _only(new, keys))


def _these(rows: Mapping[Any, Any], keys: Collection[Any]) -> Mapping[Any, Any]:
    """These rows, in whatever order."""
    return {key: rows[key] for key in keys if key in rows}


def _only(rows: Mapping[Any, Any], keys: Collection[Any]) -> Mapping[Any, Any]:
    """These rows, in their order."""
    return {key: row for key, row in rows.items() if key in keys}


def _of_services(rows: Mapping[Any, Any], services: Collection[ServiceKey]) -> Mapping[Any, Any]:
    return {key: row for key, row in rows.items() if key.service in services}
