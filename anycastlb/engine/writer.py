"""Apply a plan through the drivers, and know what has become of each of its changes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from anycastlb.adapters.drivers import Driver
from anycastlb.core.decision import plan
from anycastlb.core.decision.containment import Containment
from anycastlb.core.decision.failed_changes import FailedChanges
from anycastlb.core.model import NAMES, Change, Decision, DriverError, Failure, Reason, State, Table

OUTDATED = frozenset({"exists", "missing", "service_missing"})
"""Codes of failures that say only that the machine is not as it was seen: nothing has been refused."""
UNKNOWN = frozenset({"driver_failed", "answer_lost"})
"""Codes of failures after which nobody knows what was written. They are refusals once they have lasted."""
SLICE = 500
"""Changes that are sorted in one go; then other tasks have their turn."""


class Writer:
    """``apply`` carries a plan out; ``finished`` says which changes are done, those of earlier plans included."""

    def __init__(self, drivers: Sequence[Driver]) -> None:
        self._by_table: Mapping[Table, Driver] = {table: driver for driver in drivers for table in driver.tables}
        self._pending: Mapping[tuple[Table, Any], Change] = {}
        """Changes of the last plan that were under way when it ended."""
        self._unannounced: tuple[Failure, ...] = ()

    async def apply(self, changes: Sequence[Change], decision: Decision) -> tuple[Failure, ...]:
        """Every change in the order of the plan, but none that builds on one that failed; and what was not done."""
        failures: list[Failure] = []
        memory, wanted = decision.memory, decision.desired.destinations
        failed = FailedChanges(decision.verdicts, memory.fwmarks, desired=wanted, leaving=memory.leaving)
        for (driver, _), run in groupby(changes, key=lambda c: (self._by_table[c.table], _tears_down(c))):
            ready: list[Change] = []
            outcomes: list[Failure] = []
            for number, change in enumerate(run, 1):
                if number % SLICE == 0:
                    await asyncio.sleep(0)
                if outcome := _blocked(failed, change):
                    outcomes.append(outcome)
                    _note(failed, outcomes[-1:])
                else:
                    ready.append(change)
            try:
                outcomes += _own(await driver.apply(ready), ready) if ready else ()
            except DriverError as exc:
                outcomes += [Failure(change, Reason("driver_failed", str(exc))) for change in ready]
            _note(failed, outcomes)
            failures += outcomes
        return tuple(failures)

    def unannounced(self, changes: Sequence[Change], absence: Reason | None) -> tuple[Failure, ...]:
        """The routes that nobody can announce for the reason ``absence``, as failures.

        They may be as many as there are VIPs, in every cycle until the bridge is back: those of the last cycle are the
        same objects.
        """
        known = {id(failure.change): failure for failure in self._unannounced if failure.reason == absence}
        self._unannounced = (
            tuple(known.get(id(change)) or Failure(change, absence) for change in changes if announces(change))
            if absence is not None
            else ()
        )
        return self._unannounced

    def finished(self, actual: State, changes: Sequence[Change], outcomes: Sequence[Failure]) -> tuple[Change, ...]:
        """The changes of this plan that were done or refused, and those of earlier ones that are done by now."""
        before, self._pending = self._pending, {(o.change.table, o.change.key): o.change for o in outcomes if o.pending}
        if not before and not self._pending:
            return tuple(changes)
        asked = {(change.table, change.key) for change in changes}
        done = [
            change
            for (table, key), change in before.items()
            if (table, key) not in asked and actual.rows(table).get(key) == change.new
        ]
        return (*done, *(change for change in changes if (change.table, change.key) not in self._pending))


def _tears_down(change: Change) -> bool | None:
    """None if that cannot be told: the plan has its changes in order, so that it is not tried before its turn."""
    return Containment().of(change.key, plan.tears_down, change)


def _blocked(failed: FailedChanges, change: Change) -> Failure | None:
    """What becomes of a change that must not be tried. Of one about which a fault of ours leaves that open, too; but a
    route that must go is always withdrawn."""
    contained = Containment()
    outcome = contained.of(change.key, failed.blocks, change)
    fault = contained.faults.get(change.key)
    if fault is None or (change.table == "routes" and change.new is None):
        return outcome
    return Failure(change, fault)


def _note(failed: FailedChanges, outcomes: Sequence[Failure]) -> None:
    """Let what depends on these failures not be tried."""
    contained = Containment()
    contained.of("this plan", failed.add, outcomes)
    for why in contained.faults.values():
        failed.doubt(why)


def _own(failures: Sequence[Failure], changes: Sequence[Change]) -> list[Failure]:
    """A driver's failures, each with the very change that it was given: from here on they are told by identity."""
    given = {id(change) for change in changes}
    return [f if id(f.change) in given else replace(f, change=changes[changes.index(f.change)]) for f in failures]


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


def applied(actual: State, changes: Iterable[Change], failures: Iterable[Failure]) -> State:
    """The machine after the plan: what was seen, and what was written since, without another look."""
    failed = {id(failure.change) for failure in failures}
    tables: dict[str, dict[Any, Any]] = {}
    for change in changes:
        if change.table in NAMES or id(change) in failed:
            continue
        if change.table not in tables:
            tables[change.table] = dict(actual.rows(change.table))
        rows = tables[change.table]
        if change.new is None or change.moved:
            rows.pop(change.key, None)  # moved: it becomes the newest
        if change.new is not None:
            rows[change.key] = change.new
    return replace(actual, **tables) if tables else actual


def lasting(failures: Sequence[Failure], passing: Collection[str]) -> list[Failure]:
    """The failures whose reason will not pass by itself. A destination fails with its service."""
    lasting = [failure for failure in failures if failure.reason.code not in passing]
    services = {failure.change.key for failure in lasting if failure.change.table == "services"}
    return lasting + [
        failure
        for failure in failures
        if failure.reason.code == "service_missing" and failure.change.key.service in services
    ]
