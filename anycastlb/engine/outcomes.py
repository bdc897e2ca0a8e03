"""What of a plan may be tried, and what has become of what was tried. Pure."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from anycastlb.core.delta import Edited, in_one_piece
from anycastlb.core.model import NAMES, Change, Failure, Reason, Rows, State, Table

OUTDATED = frozenset({"exists", "missing", "service_missing"})
"""Codes of failures that say only that the machine is not as it was seen: nothing has been refused."""
UNKNOWN = frozenset({"driver_failed", "answer_lost"})
"""Codes of failures after which nobody knows what was written. They are refusals once they have lasted."""
Keyed: TypeAlias = Mapping[tuple[Table, Any], Change]
"""Changes by the rows that they write."""


def announces(change: Change) -> bool:
    """Does it announce a route, or announce it otherwise?"""
    return change.table == "routes" and change.new is not None


def attempted(changes: Sequence[Change], absence: Reason | None) -> tuple[Change, ...]:
    """Those that are tried while no route can be announced for the reason ``absence``; None: all."""
    return tuple(changes) if absence is None else tuple(change for change in changes if not announces(change))


def possible(changes: Sequence[Change], errors: Container[Table], blind: bool) -> tuple[Change, ...]:
    """What may be written although not everything could be read: nothing to a table that was not read, and with a
    kernel that cannot be read nothing that brings traffic here. A route that must go is always withdrawn."""
    if not errors:
        return tuple(changes)
    return tuple(
        change
        for change in changes
        if (change.table == "routes" and change.new is None)
        or (
            change.table not in errors
            and (not blind or change.table in NAMES or (change.table == "routes" and change.old is not None))
        )
    )


def finished(actual: State, changes: Sequence[Change], before: Keyed, pending: Keyed) -> tuple[Change, ...]:
    """The changes of this plan that were done or refused, and those of earlier ones that are done by now.

    ``before`` and ``pending``: what was under way before this plan, and what is now.
    """
    if not before and not pending:
        return tuple(changes)
    asked = {(change.table, change.key) for change in changes}
    done = [
        change
        for (table, key), change in before.items()
        if (table, key) not in asked and actual.rows(table).get(key) == change.new
    ]
    return (*done, *(change for change in changes if (change.table, change.key) not in pending))


def applied(actual: State, changes: Iterable[Change], failures: Iterable[Failure]) -> State:
    """The machine after the plan: what was seen, and what was written since, without another look."""
    failed = {id(failure.change) for failure in failures}
    done: dict[Table, list[Change]] = {}
    for change in changes:
        if change.table not in NAMES and id(change) not in failed:
            done.setdefault(change.table, []).append(change)
    tables: dict[str, Rows] = {str(table): _written(actual.rows(table), some) for table, some in done.items()}
    return replace(actual, **tables) if tables else actual


def _written(rows: Rows, changes: Sequence[Change]) -> Rows:
    if all(change.new is not None and not change.moved and change.key in rows for change in changes):
        return Edited(rows, {change.key: change.new for change in changes})
    written = dict(in_one_piece(rows))
    for change in changes:
        if change.new is None or change.moved:
            written.pop(change.key, None)  # moved: it becomes the newest
        if change.new is not None:
            written[change.key] = change.new
    return written


def lasting(failures: Sequence[Failure], passing: Collection[str]) -> list[Failure]:
    """The failures whose reason will not pass by itself. A destination fails with its service."""
    lasting = [failure for failure in failures if failure.reason.code not in passing]
    services = {failure.change.key for failure in lasting if failure.change.table == "services"}
    return lasting + [
        failure
        for failure in failures
        if failure.reason.code == "service_missing" and failure.change.key.service in services
    ]
