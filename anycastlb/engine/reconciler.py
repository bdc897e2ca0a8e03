"""The only writer: wait, observe, decide, diff, apply, publish a snapshot; for ever.

Level-triggered: a wake-up says only *look again*. Every cycle looks at the whole machine, decides the whole, and
applies the difference, so a lost event costs a moment and never correctness.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Any

from anycastlb.adapters.drivers import Driver
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision import node_drain, plan
from anycastlb.core.decision.containment import internal_error
from anycastlb.core.decision.decide import adopt, decide, refusals
from anycastlb.core.decision.recollection import recalled
from anycastlb.core.events import Event, Level
from anycastlb.core.model import (
    NAMES,
    NO_REASON,
    Address,
    Change,
    Decision,
    DestinationKey,
    DriverError,
    Failure,
    Inputs,
    Memory,
    NodeDrain,
    Reason,
    Rows,
    Snapshot,
    State,
    Table,
    Verdict,
)
from anycastlb.engine.machine import Machine

PULSE = 1.0
"""Seconds between two proofs of life to the BGP bridge and the service manager, at most."""

STEP = 0.5
"""Seconds by which the wall clock must have gone astray before a decision learns of it."""
UNDRAINED = Reason("undrained", "it is drained no more, and may announce again")
READABLE = 100
"""Changes of one plan that are told one by one."""

EARLY = 30.0
"""Seconds after the start in which routes that are not there may only not have been seen yet."""


class Inbox:
    """Where the writers of ``Inputs`` put their field, and the reconciler's one wake-up."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.dirty = asyncio.Event()
        self.version = 0
        """Grows with every put that may change a decision."""

    def put(self, wake: bool = True, **fields: Any) -> None:
        """Replace fields of the inputs; ``wake=False`` for what changes no decision."""
        self.inputs = replace(self.inputs, **fields)
        if wake:
            self.version += 1
            self.dirty.set()

    def wake(self) -> None:
        self.dirty.set()


class Reconciler:
    """``on_cycle(snapshot, seconds)`` is called after every full cycle; ``snapshot`` is the last one, always whole.

    ``resync``: seconds after which the machine is looked at again though nothing is known to have changed.
    """

    def __init__(
        self,
        inbox: Inbox,
        machine: Machine,
        journal: Journal,
        resync: float,
        on_cycle: Callable[[Snapshot, float], None] = lambda snapshot, seconds: None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._inbox, self._journal, self._resync, self._on_cycle = inbox, journal, resync, on_cycle
        self._announcer, self._pulse, self._record_drivers = machine.announcer, machine.pulse, machine.record_drivers
        self._drivers: Sequence[Driver] = (*machine.drivers, *machine.record_drivers, machine.announcer)
        self._by_table: Mapping[Table, Driver] = {table: d for d in self._drivers for table in d.tables}
        self._unused, self._originals, self._counters = machine.unused, machine.originals, machine.counters
        self._recollect = machine.gate_memory.load
        self._clock, self._wall = clock.monotonic, clock.wall
        self._early = self._clock() + EARLY
        self._memory: Memory | None = None
        self._decision: Decision | None = None
        self._decided = -1
        """The inbox's version the last decision was made from."""
        self._blind = ""
        self.snapshot = Snapshot(inputs=inbox.inputs)
        self._pulse.at = self._clock()

    async def run(self) -> None:
        """Cycle until ``inputs.stopping`` has left nothing behind; then return."""
        while True:
            self._inbox.dirty.clear()
            await self.cycle()
            if self.snapshot.inputs.stopping and not _left(self.snapshot):
                if self.snapshot.inputs.emptied or not self._inbox.inputs.originals:
                    return
                if not self._inbox.inputs.emptied:
                    self._inbox.put(emptied=True)  # the settings are given back last
            await self._wait()

    async def cycle(self) -> None:
        """One look at everything, and what follows from it."""
        started = self._clock()
        try:
            actual = await self.observe()
        except DriverError as exc:
            self._blinded(str(exc))  # no proof of life: a node that cannot see its kernel must lose its routes
            return
        await self._look_for_idle(actual)
        self._recall()
        self._look_at_the_clock()
        await self._look_at_traffic(started)
        self._look_at_routes(actual)
        inputs = self._inbox.inputs
        try:
            decision = self._decide(actual, started)
            changes, faults = plan.compare(actual, decision.desired)
        except Exception as exc:  # what cannot be contained: the last decision stays, and no proof of life is given
            self._blinded(internal_error("this node", exc).text)
            return
        self._blind = ""
        failures = (*faults, *await self._apply(changes, decision))
        self._tell(decision, changes, failures)
        ended = self._clock()
        previous = self.snapshot
        reached = _applied(actual, changes, failures)
        unfinished = failures or any(change.table in NAMES for change in changes)
        self.snapshot = Snapshot(
            inputs=inputs,
            actual=reached,
            decision=decision,
            plan=changes,
            failures=failures,
            pending=plan.diff(reached, decision.desired) if unfinished else (),
            speaker=self._announcer.speaker(),
            registrars=tuple(driver.registrar() for driver in self._record_drivers),
            at=ended,
            at_wall=self._wall(),
            cycle=previous.cycle + 1,
        )
        refused = refusals(failures)
        if refused != self._inbox.inputs.failures:
            self._inbox.put(failures=refused)
        self._recall()
        self._look_at_routes(self.snapshot.actual)
        self._beat()
        self._on_cycle(self.snapshot, ended - started)

    async def _look_for_idle(self, actual: State) -> None:
        """Which leaving backends, in the kernel at weight 0 already, have no connection left."""
        leaving = self._memory.leaving if self._memory else {}
        waiting = [key for table, key in leaving if table == "destinations" and _at_rest(actual, key)]
        idle = await self._unused(waiting) if waiting else frozenset()
        if idle != self._inbox.inputs.idle:
            self._inbox.put(idle=idle)

    def _recall(self) -> None:
        """What the drivers have remembered of settings, or struck out."""
        if (originals := self._originals()) != self._inbox.inputs.originals:
            self._inbox.put(originals=originals)

    def _look_at_the_clock(self) -> None:
        """Wall time, as far as decisions need it: its steps, not its drift."""
        wall = self._wall() - self._clock()
        if abs(wall - self._inbox.inputs.wall) > STEP:
            self._inbox.put(wake=False, wall=wall)

    async def _look_at_traffic(self, now: float) -> None:
        """What still comes to a node that leaves, once a second; the decision looks again by itself."""
        leaving, last = self._memory.node_drain if self._memory else None, self._inbox.inputs.traffic
        if self._counters is None or leaving is None or leaving.stage not in ("graceful", "withdrawn"):
            return
        if last is None or now - last.at >= 0.9 * node_drain.LOOK:
            with suppress(DriverError):  # the deadline does not depend on it
                traffic = node_drain.count(await self._counters(), now, self._inbox.inputs.policy.marks)
                self._inbox.put(wake=False, traffic=traffic)

    def _look_at_routes(self, actual: State) -> None:
        """Names follow the routes that are there."""
        inputs = self._inbox.inputs
        if not (inputs.policy.naming.dns or inputs.policy.naming.consul):
            return
        announced: frozenset[Address] | None = frozenset(actual.routes)
        if self._clock() < self._early and not self._announcer.speaker().connected:
            announced = announced or None
        if announced != inputs.announced:
            self._inbox.put(announced=announced)

    def _decide(self, actual: State, now: float) -> Decision:
        """The last decision, while nothing it was made from has changed and its time is not over."""
        if self._memory is None:
            wall, marks = self._inbox.inputs.wall, self._inbox.inputs.policy.marks
            known = recalled(self._recollect(), wall, now)
            self._memory = adopt(actual, now, marks, known, self._announcer.speaker().connected)
        last, version = self._decision, self._inbox.version
        if last is None or version != self._decided or (last.wake_at is not None and now >= last.wake_at):
            last = self._decision = decide(self._inbox.inputs, self._memory, now)
            self._memory, self._decided = last.memory, version
        return last

    async def observe(self) -> State:
        """Everything of ours that is there now. Raises ``DriverError``."""
        tables: dict[Table, Rows] = {}
        for driver in self._drivers:
            tables.update(await driver.observe())
        names = {table: rows for table in NAMES if (rows := tables.get(table)) is not None}
        if names != self._inbox.inputs.names:
            self._inbox.put(names=names)
        return State(**tables)

    async def _apply(self, changes: Sequence[Change], decision: Decision) -> tuple[Failure, ...]:
        failures: list[Failure] = []
        for (driver, _), run in groupby(changes, key=lambda c: (self._by_table[c.table], plan.tears_down(c))):
            ready: list[Change] = []
            for change in run:
                if reason := plan.blocked(change, failures, decision.verdicts, decision.memory.fwmarks):
                    failures.append(Failure(change, reason))
                else:
                    ready.append(change)
            if not ready:
                continue
            try:
                failures += await driver.apply(ready)
            except DriverError as exc:
                failures += [Failure(change, Reason("driver_failed", str(exc))) for change in ready]
        return tuple(failures)

    async def _wait(self) -> None:
        """Until something changed, the decision expires or the resync is due; proving life meanwhile."""
        until = self._clock() + self._resync
        if (wake_at := self.snapshot.decision.wake_at) is not None:
            until = min(until, wake_at)
        while not self._inbox.dirty.is_set() and (left := until - self._clock()) > 0:
            try:
                async with asyncio.timeout(min(left, PULSE)):
                    await self._inbox.dirty.wait()
            except TimeoutError:
                if not self._blind:
                    self._beat()

    def _beat(self) -> None:
        self._pulse.at = self._clock()
        self._announcer.beat()
        self._pulse.notify()

    def _blinded(self, reason: str) -> None:
        if reason != self._blind:
            self._blind = reason
            self._journal.emit(Event("observe", "kernel", reason=reason, level="error"))

    def _tell(self, decision: Decision, changes: Iterable[Change], failures: Iterable[Failure]) -> None:
        before, known = self.snapshot.decision.verdicts, {(f.change, f.reason) for f in self.snapshot.failures}
        failed = {failure.change for failure in failures}
        for vip, verdict in decision.verdicts.items():
            old = before.get(vip)
            if old is None or old.open != verdict.open:
                self._journal.emit(_gate_event(vip, old.open if old else None, verdict))
            if verdict.kept != (old.kept if old else ""):
                self._journal.emit(_kept_event(vip, old.kept if old else "", verdict))
        drain = self.snapshot.decision.memory.node_drain
        if event := _drain_event(self._inbox.inputs.node, drain, decision.memory.node_drain):
            self._journal.emit(event)
        for subject, fault in decision.faults.items():
            if self.snapshot.decision.faults.get(subject) != fault:
                self._journal.emit(Event("failure", subject, fault.text, level="error", code=fault.code))
        done = [change for change in changes if change not in failed and change.table not in NAMES]
        for event in _change_events(done, decision):
            self._journal.emit(event)
        for failure in failures:
            if (failure.change, failure.reason) not in known:  # a lasting failure is told once
                why = failure.reason
                self._journal.emit(Event("failure", str(failure.change), why.text, level="error", code=why.code))


def _gate_event(vip: Address, before: bool | None, after: Verdict) -> Event:
    words = {None: "", True: "open", False: "closed"}
    level: Level = "info" if after.open else "warning"
    why = after.reason
    return Event("gate", str(vip), why.text, words[before], words[after.open], level, code=why.code)


def _drain_event(node: str, before: NodeDrain | None, after: NodeDrain | None) -> Event | None:
    """How far the node has left, when that or the reason has changed."""
    if (before and (before.stage, before.reason)) == (after and (after.stage, after.reason)):
        return None
    was, now = (item.stage if item else "" for item in (before, after))
    reason = after.reason if after else UNDRAINED
    level: Level = "warning" if after and after.overdue else "info"
    return Event("drain", node, reason.text, was, now or "undrained", level, code=reason.code)


def _kept_event(vip: Address, before: str, verdict: Verdict) -> Event:
    """Told loudly where something else than this node's own health decides, and will not pass by itself."""
    levels: Mapping[str, Level] = {"last": "warning", "limit": "error"}
    level = levels.get(verdict.kept, "info")
    why = verdict.reason
    return Event("kept", str(vip), why.text, before, verdict.kept, level, code=why.code)


def _change_events(changes: Sequence[Change], decision: Decision) -> list[Event]:
    """One event a change; of a plan too large to read, one a kind."""
    if len(changes) <= READABLE:
        return [_change_event(change, decision) for change in changes]
    counts = Counter(f"{change.table}.{change.verb}" for change in changes)
    return [Event(kind, "many", after=f"{count} rows") for kind, count in counts.items()]


def _change_event(change: Change, decision: Decision) -> Event:
    reason = NO_REASON
    if change.table == "destinations" and change.key in decision.backends:
        reason = decision.backends[change.key].reason
    elif change.table == "routes" and change.key in decision.verdicts:
        reason = decision.verdicts[change.key].reason
    before = "" if change.old is None else str(change.old)
    after = "" if change.new is None else str(change.new)
    return Event(f"{change.table}.{change.verb}", str(change.key), reason.text, before, after, code=reason.code)


def _applied(actual: State, changes: Iterable[Change], failures: Iterable[Failure]) -> State:
    """The machine after the plan: what was seen, and what was written since, without another look."""
    failed = {failure.change for failure in failures}
    tables: dict[str, dict[Any, Any]] = {}
    for change in changes:
        if change in failed or change.table in NAMES:
            continue
        rows = tables.setdefault(change.table, dict(actual.rows(change.table)))
        if change.new is None:
            rows.pop(change.key, None)
        else:
            rows[change.key] = change.new
    return replace(actual, **tables) if tables else actual


def _at_rest(actual: State, key: DestinationKey) -> bool:
    row = actual.destinations.get(key)
    return row is not None and not row.weight


def _left(snapshot: Snapshot) -> bool:
    """Is anything of ours still in the machine, or failing to leave it?"""
    actual = snapshot.actual
    return bool(actual.addresses or actual.services or actual.destinations or actual.routes)
