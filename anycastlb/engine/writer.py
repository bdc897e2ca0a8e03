"""Write what differs through the drivers, and know what has become of each change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from anycastlb.adapters.drivers import Driver
from anycastlb.adapters.system.clock import Offload
from anycastlb.core.decision import plan
from anycastlb.core.decision.comparison import Comparison
from anycastlb.core.decision.containment import Containment
from anycastlb.core.decision.failed_changes import FailedChanges
from anycastlb.core.model import NAMES, Change, Decision, DriverError, Failure, Reason, State, Table
from anycastlb.engine.beside import beside
from anycastlb.engine.observation import Observation
from anycastlb.engine.outcomes import Keyed, announces, applied, attempted, finished, possible

SLICE = 500
"""Changes that are sorted in one go; then other tasks have their turn."""


@dataclass(frozen=True, slots=True)
class Written:
    """What has become of a plan."""

    tried: tuple[Change, ...]
    finished: tuple[Change, ...]
    """The changes that were done or refused, those of earlier plans that are done by now included."""
    failures: tuple[Failure, ...]
    """What was refused."""
    reached: State
    """The machine after it: what was seen, and what was written since."""
    complete: bool
    """All that differs was tried, and is done."""


class Writer:
    """``write`` carries out one plan after the other."""

    def __init__(self, drivers: Sequence[Driver], offload: Offload) -> None:
        self._offload = offload
        self._by_table: Mapping[Table, Driver] = {table: driver for driver in drivers for table in driver.tables}
        self._pending: Keyed = {}
        """Changes of the last plan that were under way when it ended."""
        self._unannounced: tuple[Failure, ...] = ()

    async def write(
        self, seen: Observation, compared: Comparison, decision: Decision, absence: Reason | None
    ) -> Written:
        """Make the machine as it was decided, as far as it could be seen.

        ``absence``: why no route can be announced now; None if it can.
        """
        changes = possible(compared.changes, seen.errors, seen.blind)
        tried, unannounced = attempted(changes, absence), self._unannounceable(changes, absence)
        outcomes = (*compared.failures, *await self._apply(tried, decision), *unannounced)
        before, self._pending = self._pending, {(o.change.table, o.change.key): o.change for o in outcomes if o.pending}
        return Written(
            tried=tried,
            finished=await beside(self._offload, changes, finished, seen.state, changes, before, self._pending),
            failures=tuple(outcome for outcome in outcomes if not outcome.pending),
            reached=await beside(self._offload, tried, applied, seen.state, tried, outcomes),
            complete=not (outcomes or seen.errors or any(change.table in NAMES for change in changes)),
        )

    async def _apply(self, changes: Sequence[Change], decision: Decision) -> tuple[Failure, ...]:
        """Every change in the order of the plan, but none that builds on one that failed; and what was not done."""
        failures: list[Failure] = []
        memory, desired = decision.memory, decision.desired
        failed = FailedChanges(
            decision.verdicts,
            memory.fwmarks,
            desired=desired.destinations,
            leaving=memory.leaving,
            sites=desired.http_sites,
        )
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

    def _unannounceable(self, changes: Sequence[Change], absence: Reason | None) -> tuple[Failure, ...]:
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
