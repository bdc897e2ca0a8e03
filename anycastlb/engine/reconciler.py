"""The only writer: wait, observe, decide, diff, apply, publish a snapshot; for ever.

Level-triggered: a wake-up says only *look again*. Every cycle looks at the whole machine, decides the whole, and
applies the difference, so a lost event costs a moment and never correctness.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Any

from anycastlb.adapters.drivers import Driver
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision import node_drain, plan, sessions
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
    Snapshot,
    Speaker,
    State,
    Table,
    Verdict,
)
from anycastlb.engine.machine import Machine
from anycastlb.engine.observation import Observation, observe

STEP = 0.5
"""Seconds that the wall clock must have jumped before a decision learns of it."""
UNDRAINED = Reason("undrained", "it is drained no more, and may announce again")
READABLE = 100
"""Up to so many changes of one plan have an event each."""

RETRIES = (0.2, 0.5, 1.0)
"""Seconds to the next looks after one that failed, or whose picture of the machine was wrong."""
OUTDATED = frozenset({"exists", "missing", "service_missing"})
"""Codes of failures that say only that the machine is not as it was seen: nothing has been refused."""
UNKNOWN = frozenset({"driver_failed", "answer_lost"})
"""Codes of failures after which nobody knows what was written. They are refusals once they have lasted."""
GIVE_UP = 10.0
"""Seconds without a kernel that can be read after which a stop ends, if nothing else is left to do."""

EARLY = 30.0
"""Seconds after the start in which a route that is missing may only not have been reported yet."""


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
        self._pending: Mapping[tuple[Table, Any], Change] = {}
        """Changes of the last plan that were under way when it ended."""
        self._in_kernel = frozenset(table for driver in machine.drivers for table in driver.tables)
        self._unseen: Mapping[str, str] = {}
        """What could not be read at the last look (``kernel``, or a table outside of it), and why."""
        self._blind_since: float | None = None
        """When the first of the looks began that could not read the kernel."""
        self._undecided: tuple[float, str] | None = None
        """Since when a fault of ours keeps this node from deciding, and what it is."""
        self._blind_looks = 0
        self._retries = 0
        """Cycles in a row that must be followed by another soon."""
        self.snapshot = Snapshot(inputs=inbox.inputs)
        self._pulse.at = self._clock()

    async def run(self) -> None:
        """Cycle until ``inputs.stopping`` has left nothing behind; then return."""
        while True:
            self._inbox.dirty.clear()
            await self.cycle()
            if self.snapshot.inputs.stopping and self._left_nothing():
                return
            await self._wait()

    def _left_nothing(self) -> bool:
        """Has a stop left nothing behind?"""
        snapshot = self.snapshot
        if self._blind_since is not None:
            return self._given_up(snapshot, self._blind_since)
        if anything_left(snapshot.actual):
            return False
        if snapshot.inputs.emptied or not self._inbox.inputs.originals:
            return True
        if not self._inbox.inputs.emptied:
            self._inbox.put(emptied=True)  # the settings are given back last
        return False

    def _given_up(self, snapshot: Snapshot, since: float) -> bool:
        """Everything has been done but what needs a kernel that can be read; and nobody can say when it will be."""
        if anything_left(snapshot.decision.desired) or snapshot.actual.routes or self._clock() - since < GIVE_UP:
            return False
        reason = (
            f"stopped without a kernel that can be read ({self._unseen['kernel']}): the routes are withdrawn, but "
            "addresses, services and settings may be left; the next start takes them over"
        )
        self._journal.emit(Event("observe", "kernel", reason=reason, after="unread", level="error"))
        return True

    async def cycle(self) -> None:
        """One look at everything, and what follows from it."""
        started = self._clock()
        seen = await self._look()
        self._note_unseen(seen.errors, started)
        blind, actual = self._blind_since is not None, seen.state
        if blind and self._memory is None and not self._inbox.inputs.stopping:
            return  # nothing is known yet that anything could be decided from
        if not blind:
            await self._look_for_idle(actual)
            await self._look_at_traffic(started)
        self._recall()
        self._look_at_the_clock()
        self._look_at_routes(actual)
        inputs = self._inbox.inputs
        try:
            decision = self._decide(actual, started)
            compared, faults = plan.compare(actual, decision.desired)
        except Exception as exc:  # what cannot be contained: the last decision stays, and no proof of life is given
            self._note_undecided(internal_error("this node", exc).text, started)
            return
        self._undecided = None
        changes = _possible(compared, seen.errors, blind)
        outcomes = (*faults, *await self._apply(changes, decision))
        failures = tuple(outcome for outcome in outcomes if not outcome.pending)
        finished = self._finished(actual, changes, outcomes)
        self._tell(decision, finished, failures)
        ended = self._clock()
        previous = self.snapshot
        reached = _applied(actual, changes, outcomes)
        unfinished = outcomes or seen.errors or any(change.table in NAMES for change in changes)
        self.snapshot = Snapshot(
            inputs=inputs,
            actual=reached,
            decision=decision,
            plan=finished,
            failures=failures,
            pending=plan.diff(reached, decision.desired) if unfinished else (),
            speaker=self._speaker(),
            registrars=tuple(driver.registrar() for driver in self._record_drivers),
            at=previous.at if blind else ended,
            at_wall=previous.at_wall if blind else self._wall(),
            cycle=previous.cycle + 1,
        )
        if not blind:
            self._judge(failures)
        self._recall()
        self._look_at_routes(self.snapshot.actual)
        self._beat()
        self._on_cycle(self.snapshot, ended - started)

    def _judge(self, failures: Sequence[Failure]) -> None:
        """Which failures are refusals, that a decision depends on, and which only ask for another look, soon."""
        passing = OUTDATED if self._retries >= len(RETRIES) else OUTDATED | UNKNOWN
        refused = refusals(_lasting(failures, passing))
        self._retries = self._retries + 1 if any(f.reason.code in OUTDATED | UNKNOWN for f in failures) else 0
        if refused != self._inbox.inputs.failures:
            self._inbox.put(failures=refused)

    async def _look_for_idle(self, actual: State) -> None:
        """Which leaving backends, in the kernel at weight 0 already, have no connection left."""
        leaving = self._memory.leaving if self._memory else {}
        waiting = [key for table, key in leaving if table == "destinations" and _at_rest(actual, key)]
        try:
            idle = await self._unused(waiting) if waiting else frozenset()
        except DriverError:
            return  # the next look asks again; the drain time does not depend on it
        if idle != self._inbox.inputs.idle:
            self._inbox.put(idle=idle)

    def _recall(self) -> None:
        """What the drivers have remembered of settings, or struck out."""
        with suppress(DriverError):
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
        """Names follow the routes that reach a router."""
        inputs = self._inbox.inputs
        if not (inputs.policy.naming.dns or inputs.policy.naming.consul):
            return
        speaker = self._speaker()
        announced: frozenset[Address] | None = sessions.carried(actual.routes, speaker)
        if self._clock() < self._early and not speaker.connected:
            announced = announced or None
        if announced != inputs.announced:
            self._inbox.put(announced=announced)

    def _speaker(self) -> Speaker:
        try:
            return self._announcer.speaker()
        except DriverError:
            return self.snapshot.speaker

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

    async def _look(self) -> Observation:
        """Observe, and prove life while it takes long: a slow look is no blind one."""
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(self._beat_for(self._pulse.silence))
            seen = await self.observe()
            beating.cancel()
        return seen

    async def observe(self) -> Observation:
        """What is there now of everything that is ours."""
        seen = await observe(self._drivers, self.snapshot.actual if self._memory is not None else None)
        names = {table: rows for table in NAMES if (rows := seen.tables.get(table)) is not None}
        if names != self._inbox.inputs.names:
            self._inbox.put(names=names)
        return seen

    async def _apply(self, changes: Sequence[Change], decision: Decision) -> tuple[Failure, ...]:
        failures: list[Failure] = []
        failed = plan.Failed(decision.verdicts, decision.memory.fwmarks)
        for (driver, _), run in groupby(changes, key=lambda c: (self._by_table[c.table], plan.tears_down(c))):
            ready: list[Change] = []
            outcomes: list[Failure] = []
            for change in run:
                if outcome := failed.blocks(change):
                    outcomes.append(outcome)
                    failed.add(outcomes[-1:])
                else:
                    ready.append(change)
            try:
                outcomes += await driver.apply(ready) if ready else ()
            except DriverError as exc:
                outcomes += [Failure(change, Reason("driver_failed", str(exc))) for change in ready]
            failed.add(outcomes)
            failures += outcomes
        return tuple(failures)

    def _finished(self, actual: State, changes: Sequence[Change], outcomes: Sequence[Failure]) -> tuple[Change, ...]:
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

    async def _wait(self) -> None:
        """Until something changed, the decision expires or the next look is due; proving life meanwhile."""
        until = self._clock() + self._pause()
        wake_at = self.snapshot.decision.wake_at
        if wake_at is not None and self._stuck_since is None:
            until = min(until, wake_at)
        while not self._inbox.dirty.is_set() and (left := until - self._clock()) > 0:
            try:
                async with asyncio.timeout(min(left, self._pulse.period)):
                    await self._inbox.dirty.wait()
            except TimeoutError:
                if self._late():
                    return
                self._beat()

    def _pause(self) -> float:
        """Seconds to the next look, if nothing happens before."""
        if self._blind_since is not None:
            return RETRIES[min(self._blind_looks, len(RETRIES)) - 1]
        if self._undecided is not None:
            return RETRIES[-1]
        if 0 < self._retries <= len(RETRIES):
            return min(RETRIES[self._retries - 1], self._resync)
        return self._resync

    async def _beat_for(self, seconds: float) -> None:
        until = self._clock() + seconds
        while self._clock() + self._pulse.period <= until:
            await asyncio.sleep(self._pulse.period)
            if self._late():
                return
            self._beat()

    def _late(self) -> bool:
        """Has this process been frozen or the machine suspended? Then nothing is proven before the next decision.

        The monotonic clock stands still during a suspend, so that only the wall clock shows it.
        """
        now, silence = self._clock(), self._pulse.silence
        suspended = abs(self._wall() - now - self._inbox.inputs.wall) > silence
        return self._stuck_since is None and (suspended or now - self._pulse.at > silence)

    def _beat(self) -> None:
        """Prove life, unless nothing was decided yet, or nothing could be for too long (``_stuck_since``)."""
        now = self._clock()
        stuck = self._stuck_since is not None and now - self._stuck_since > self._pulse.silence
        if self._memory is None or stuck:
            return
        self._pulse.at = now
        with suppress(DriverError):
            self._announcer.beat()
        self._pulse.notify()

    @property
    def _stuck_since(self) -> float | None:
        """Since when this node can no longer decide from what is there; None while it can."""
        since = [self._blind_since, self._undecided[0] if self._undecided else None]
        return min((moment for moment in since if moment is not None), default=None)

    def _note_undecided(self, reason: str, started: float) -> None:
        """Report once what keeps this node from deciding."""
        if self._undecided is None or self._undecided[1] != reason:
            self._journal.emit(Event("observe", "kernel", reason=reason, level="error"))
        self._undecided = (self._undecided[0] if self._undecided else started), reason

    def _note_unseen(self, errors: Mapping[Table, str], started: float) -> None:
        """Report what cannot be read, once, and that it can be read again."""
        before = self._unseen
        self._unseen = {"kernel" if table in self._in_kernel else table: text for table, text in errors.items()}
        for subject, reason in self._unseen.items():
            if reason != before.get(subject):
                self._journal.emit(Event("observe", subject, reason=reason, after="unread", level="error"))
        for subject in before.keys() - self._unseen.keys():
            self._journal.emit(Event("observe", subject, reason="it can be read again", before="unread", after="read"))
        if "kernel" not in self._unseen:
            self._blind_since, self._blind_looks = None, 0
            return
        self._blind_looks += 1
        if self._blind_since is None:
            self._blind_since = started

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
                level: Level = "warning" if why.code in OUTDATED else "error"
                self._journal.emit(Event("failure", str(failure.change), why.text, level=level, code=why.code))


def _possible(changes: Sequence[Change], errors: Container[Table], blind: bool) -> tuple[Change, ...]:
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


def _lasting(failures: Sequence[Failure], passing: Collection[str]) -> list[Failure]:
    """The failures whose reason will not pass by itself. A destination fails with its service."""
    lasting = [failure for failure in failures if failure.reason.code not in passing]
    services = {failure.change.key for failure in lasting if failure.change.table == "services"}
    return lasting + [
        failure
        for failure in failures
        if failure.reason.code == "service_missing" and failure.change.key.service in services
    ]


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


def anything_left(state: State) -> bool:
    """Is anything of ours in this state of the machine, but settings and names?"""
    return bool(state.addresses or state.services or state.destinations or state.routes)
