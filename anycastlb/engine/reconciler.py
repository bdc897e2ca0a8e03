"""The only writer: wait, observe, decide, diff, apply, publish a snapshot; for ever.

Level-triggered: a wake-up says only *look again*. Every cycle decides the whole and applies the difference to what the
machine is known to be, so a lost event costs a moment and never correctness. The whole machine is looked at every
``resync`` seconds, and whenever it may not be as it was left (docs/decisions/0014-incremental-brain.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision.basis import refusals
from anycastlb.core.decision.comparison import UNCOMPARED, Comparison
from anycastlb.core.decision.containment import internal_error
from anycastlb.core.decision.decide import adopt
from anycastlb.core.decision.proof import Made
from anycastlb.core.decision.quarantine import compare_around, decide_around
from anycastlb.core.decision.recollection import recalled
from anycastlb.core.decision.remembered import FROM_SCRATCH, Remembered
from anycastlb.core.events import Event
from anycastlb.core.model import NAMES, Change, Decision, Failure, Inputs, Memory, Snapshot, State
from anycastlb.engine.cycle_events import cycle_events
from anycastlb.engine.heartbeat import Heartbeat
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.looks import Looks
from anycastlb.engine.machine import Machine
from anycastlb.engine.observation import Observation
from anycastlb.engine.sight import Sight
from anycastlb.engine.writer import OUTDATED, UNKNOWN, Writer, applied, attempted, lasting, possible

RETRIES = (0.2, 0.5, 1.0)
"""Seconds to the next looks after one that failed, or whose picture of the machine was wrong."""
MANY = 100
"""Changes or events up to so many are worked on in one go: some milliseconds."""
QUIET, REPEATS = 0.5, 2
"""After so many seconds without news a decision of which much does not stand yet is made again, so often."""
GIVE_UP = 10.0
"""Seconds without a kernel that can be read after which a stop ends, if nothing else is left to do."""
T = TypeVar("T")


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
        self._inbox, self._machine, self._journal = inbox, machine, journal
        self._resync, self._on_cycle = resync, on_cycle
        self._clock, self._wall, self._offload = clock.monotonic, clock.wall, clock.offload
        self._sight = Sight(frozenset(table for driver in machine.drivers for table in driver.tables), journal)
        self._heartbeat = Heartbeat(inbox, machine, self._sight, clock)
        self._looks = Looks(inbox, machine, resync, clock)
        self._writer = Writer(machine.all_drivers)
        self._memory: Memory | None = None
        self._remembered = FROM_SCRATCH
        """The last decision, with what the next one need not make anew."""
        self._compared = UNCOMPARED
        """What differed in the last cycle, before it was applied."""
        self._decided = -1
        """The inbox's version the last decision was made from."""
        self._repeat_at: float | None = None
        """When the decision is made again though nothing has changed: what is seen to stand costs the next one nothing.

        Else the first change after a start would cost as much as the start."""
        self._repeated = 0
        self.made: Made | None = None
        """The last decision that was made, for its proof."""
        self._corrected: tuple[Made, Decision] | None = None
        """A decision that was wrong, and the right one."""
        self._retries = 0
        """Cycles in a row that must be followed by another soon."""
        self._unknown = 0
        """Cycles in a row of which it is not known what some writes have done."""
        self.snapshot = Snapshot(inputs=inbox.inputs)

    async def run(self) -> None:
        """Cycle until ``inputs.stopping`` has left nothing behind; then return."""
        while True:
            self._inbox.dirty.clear()
            started = self._clock()
            try:
                await self.cycle()
            except Exception as exc:
                self._failed(exc, started)
            if self.snapshot.inputs.stopping and self._left_nothing():
                return
            await self._wait()

    def _left_nothing(self) -> bool:
        """Has a stop left nothing behind?"""
        snapshot = self.snapshot
        if self._sight.blind_since is not None:
            return self._given_up(snapshot, self._sight.blind_since)
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
        why = self._sight.unread["kernel"]
        reason = (
            f"stopped without a kernel that can be read ({why}): the routes are withdrawn, but "
            "addresses, services and settings may be left; the next start takes them over"
        )
        self._journal.emit(Event("observe", "kernel", reason=reason, after="unread", level="error"))
        return True

    async def cycle(self) -> None:
        """One look at everything, and what follows from it."""
        started = self._clock()
        seen = await self._look()
        self._sight.looked(seen.errors, started)
        blind, actual, errors = self._sight.blind, seen.state, seen.errors
        unseen = blind and self._memory is None
        if unseen and not self._inbox.inputs.stopping:
            return  # nothing is known yet that anything could be decided from
        if not blind:
            await self._looks.idle(actual, self._memory)
            await self._looks.traffic(self._memory, started)
        self._looks.originals()
        self._looks.clock()
        self._looks.routes(actual)
        inputs = self._inbox.inputs
        decision, compared = await self._decide(inputs, actual, started)
        absence = self._machine.announcer.absence()
        tried = attempted(compared.changes, absence)
        if (again := await self._looks.before_writing(actual, tried)) is not None:
            actual, errors = again.state, {**errors, **again.errors}
            blind = blind or bool(again.errors)
            compared = await self._compare(actual, decision)
        if unseen:  # what the kernel serves is adopted once it can be read
            self._memory, self._remembered, self.made = None, FROM_SCRATCH, None
        changes = possible(compared.changes, errors, blind)
        tried, unannounced = attempted(changes, absence), self._writer.unannounced(changes, absence)
        outcomes = (*compared.failures, *await self._writer.apply(tried, decision), *unannounced)
        failures = tuple(outcome for outcome in outcomes if not outcome.pending)
        finished = self._writer.finished(actual, changes, outcomes)
        previous = self.snapshot
        await self._emit(await self._beside(tried, cycle_events, inputs.node, previous, decision, finished, failures))
        ended = self._clock()
        reached = await self._beside(tried, applied, actual, tried, outcomes)
        unfinished = outcomes or errors or any(change.table in NAMES for change in changes)
        self.snapshot = Snapshot(
            inputs=inputs,
            actual=reached,
            decision=decision,
            plan=finished,
            failures=failures,
            pending=compare_around(compared, reached, decision.desired).changes if unfinished else (),
            speaker=self._looks.speaker(),
            registrars=tuple(driver.registrar() for driver in self._machine.record_drivers),
            at=previous.at if blind else ended,
            at_wall=previous.at_wall if blind else self._wall(),
            cycle=previous.cycle + 1,
        )
        if not blind:
            self._judge(failures)
        self._inbox.stale.update(failure.change.table for failure in failures)
        self._looks.originals()
        self._looks.routes(self.snapshot.actual)
        self._sight.decided()
        self._heartbeat.beat_after_a_cycle()
        self._on_cycle(self.snapshot, ended - started)

    def _failed(self, exc: Exception, started: float) -> None:
        """What cannot be contained has ended a cycle: the last decision stays, and no proof of life is given."""
        self._remembered, self._compared = FROM_SCRATCH, UNCOMPARED  # nothing that may be at fault is kept
        self._sight.failed(internal_error("this node", exc).text, started)

    async def _beside(self, changes: Sequence[Change], function: Callable[..., T], *args: Any) -> T:
        """What follows from these changes; in a thread if they are many, for other tasks must not wait for it."""
        return await self._offload(function, *args) if len(changes) > MANY else function(*args)

    async def _emit(self, events: Sequence[Event]) -> None:
        for number, event in enumerate(events, 1):
            self._journal.emit(event)
            if number % MANY == 0:
                await asyncio.sleep(0)

    async def _look(self) -> Observation:
        """Look at every table, and prove life meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(self._heartbeat.beat_through_a_look())
            known = self.snapshot.actual if self._memory is not None else None
            seen = await self._looks.tables(known, self._doubtful())
            beating.cancel()
        return seen

    def _doubtful(self) -> bool:
        """May the machine not be as it was last known? A node that stops looks at what it leaves behind."""
        return bool(self._retries or self._sight.unread) or self._sight.undecided or self._inbox.inputs.stopping

    async def _decide(self, inputs: Inputs, actual: State, now: float) -> tuple[Decision, Comparison]:
        """The decision, and what differs from it: the last one, while nothing it was made from has changed and its time
        is not over.

        They are made in a thread: it may take long, and the other tasks of this process must not wait for it.
        """
        if self._memory is None:
            connected = self._machine.announcer.speaker().connected
            known = recalled(self._machine.gate_memory.load(), inputs.wall, now)
            self._memory = adopt(actual, now, inputs.policy.marks, known, connected, inputs.catalog.services)
            self._heartbeat.started = True
        self._take_correction()
        last, version = self._remembered, self._inbox.version
        due = [moment for moment in (last.decision.wake_at, self._repeat_at) if moment is not None]
        if last is not FROM_SCRATCH and version == self._decided and all(now < moment for moment in due):
            self._heartbeat.decided()
            return last.decision, await self._compare(actual, last.decision)
        self._repeated = self._repeated + 1 if version == self._decided else 0
        self._repeat_at = None
        memory, compared = self._memory, self._compared

        def decide() -> tuple[Remembered, Comparison]:
            made = decide_around(last, inputs, memory, now)
            self._heartbeat.decided()
            return made, compare_around(compared, actual, made.decision.desired)

        made, self._compared = await self._offload(decide)
        if self._repeated < REPEATS and made.usable(inputs, made.decision.memory) and made.passing > MANY:
            self._repeat_at = now + QUIET
        self._remembered, self._memory, self._decided = made, made.decision.memory, version
        self.made = Made(inputs, memory, now, made.decision)
        return made.decision, self._compared

    def correct(self, wrong: Made, right: Decision) -> None:
        """A decision was wrong: decide the next one from scratch, soon."""
        self._corrected = wrong, right
        self._inbox.wake(())

    def _take_correction(self) -> None:
        """Keep nothing of what may be at fault; go on from the right decision, if no other was made since."""
        if self._corrected is not None:
            wrong, right = self._corrected
            self._corrected = None
            self._remembered, self._compared = FROM_SCRATCH, UNCOMPARED
            if wrong is self.made:
                self._memory = right.memory

    async def _compare(self, actual: State, decision: Decision) -> Comparison:
        """What differs now; in a thread too, unless it is what differed before."""
        last = self._compared
        if actual is not last.actual or decision.desired is not last.desired:
            self._compared = await self._offload(compare_around, last, actual, decision.desired)
        return self._compared

    def _judge(self, failures: Sequence[Failure]) -> None:
        """Which failures are refusals, that a decision depends on, and which only ask for another look, soon."""
        passing = OUTDATED if self._unknown >= len(RETRIES) else OUTDATED | UNKNOWN
        refused = refusals(lasting(failures, passing))
        self._unknown = self._unknown + 1 if any(f.reason.code in UNKNOWN for f in failures) else 0
        self._retries = self._retries + 1 if any(f.reason.code in OUTDATED | UNKNOWN for f in failures) else 0
        if refused != self._inbox.inputs.failures:
            self._inbox.put(failures=refused)

    async def _wait(self) -> None:
        """Until something changed, the decision expires or the next look is due."""
        until = min(self._clock() + self._pause(), self._looks.due)
        for moment in (self.snapshot.decision.wake_at, self._repeat_at):
            if moment is not None and self._sight.stuck_since is None:
                until = min(until, moment)
        await self._heartbeat.wait(until)

    def _pause(self) -> float:
        """Seconds to the next look, if nothing happens before."""
        if self._sight.blind:
            return RETRIES[min(self._sight.blind_looks, len(RETRIES)) - 1]
        if self._sight.undecided:
            return RETRIES[-1]
        if 0 < self._retries <= len(RETRIES):
            return min(RETRIES[self._retries - 1], self._resync)
        return self._resync


def anything_left(state: State) -> bool:
    """Is anything of ours in this state of the machine, but settings and names?"""
    return bool(state.addresses or state.services or state.destinations or state.routes)
