"""Compare what is with what should be, again and again: only what differs from the last comparison is looked at.

``compare_again`` finds the changes that ``plan.compare`` finds, in the same order. A row is compared if it is another
object than in the last comparison, on one side or the other, or if the last comparison has found it different. The
destinations of a service are compared as a whole, since their order counts, unless nothing but weights has changed.

Pure. Decision record: docs/decisions/0014-incremental-brain.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from anycastlb.core.decision import plan
from anycastlb.core.decision.containment import Containment
from anycastlb.core.decision.delta import delta
from anycastlb.core.model import TABLES, Change, Failure, ServiceKey, State, Table


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two states, and the changes that turn one into the other."""

    actual: State
    desired: State
    changes: tuple[Change, ...]
    failures: tuple[Failure, ...]
    """Of each service whose destinations could not be compared: they stay as they are."""


UNCOMPARED = Comparison(State(), State(), (), ())


def compare_again(last: Comparison, actual: State, desired: State) -> Comparison:
    """The comparison of two states; ``last`` is of two that differ little from them."""
    if actual is last.actual and desired is last.desired:
        return last
    if last.failures:
        last = UNCOMPARED
    contained = Containment()
    changes = [change for table in TABLES for change in _changes(table, last, actual, desired, contained)]
    return Comparison(actual, desired, plan.ordered(changes, contained), plan.faults_of(contained, desired))


def _changes(table: Table, last: Comparison, actual: State, desired: State, contained: Containment) -> Iterable[Change]:
    old, new = actual.rows(table), desired.rows(table)
    one, two = delta(last.actual.rows(table), old), delta(last.desired.rows(table), new)
    before = [change for change in last.changes if change.table == table]
    if not one.keys and not two.keys:
        return before
    doubtful = {*one.keys, *two.keys, *(change.key for change in before)}
    if table != "destinations":
        return plan.row_changes(table, _only(old, doubtful), _only(new, doubtful))
    moved = any(change.moved or change.verb != "update" for change in before)
    if one.aligned and two.aligned and not moved:
        return plan.row_changes(table, _only(old, doubtful), _only(new, doubtful))
    services = {key.service for key in doubtful}
    return plan.destination_changes(_of_services(old, services), _of_services(new, services), contained)


def _only(rows: Mapping[Any, Any], keys: Collection[Any]) -> Mapping[Any, Any]:
    """These rows, in their order."""
    if len(keys) == 1:
        return {key: rows[key] for key in keys if key in rows}
    return {key: row for key, row in rows.items() if key in keys}


def _of_services(rows: Mapping[Any, Any], services: Collection[ServiceKey]) -> Mapping[Any, Any]:
    return {key: row for key, row in rows.items() if key.service in services}
