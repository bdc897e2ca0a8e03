"""The only writer: wait, look, decide, compare, write, publish a snapshot; for ever.

Level-triggered: a wake-up says only *look again*. Every cycle decides the whole and applies the difference to what the
machine is known to be, so a lost event costs a moment and never correctness. The whole machine is looked at every
``resync`` seconds, and whenever it may not be as it was left (docs/decisions/0014-incremental-brain.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision.comparison import Comparison
from anycastlb.core.decision.containment import internal_error
from anycastlb.core.decision.quarantine import compare_around
from anycastlb.core.model import Change, Decision, Inputs, Reason, Snapshot, Table
from anycastlb.engine.beside import MANY, beside
from anycastlb.engine.cycle_events import cycle_events
from anycastlb.engine.decider import Decider
from anycastlb.engine.heartbeat import Heartbeat
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.looks import Looks
from anycastlb.engine.machine import Machine
from anycastlb.engine.observation import Observation
from anycastlb.engine.outcomes import attempted
from anycastlb.engine.retries import Retries
from anycastlb.engine.sight import Sight
from anycastlb.engine.stopping import Stopping
from anycastlb.engine.writer import Writer, Written


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
        self._inbox, self._machine, self._journal, self._on_cycle = inbox, machine, journal, on_cycle
        self._clock, self._wall, self._offload = clock.monotonic, clock.wall, clock.offload
        self._sight = Sight(frozenset(table for driver in machine.drivers for table in driver.tables), journal)
        self._heartbeat = Heartbeat(inbox, machine, self._sight, clock)
        self._looks = Looks(inbox, machine, resync, clock)
        self.decider = Decider(inbox, machine, self._heartbeat, clock)
        self._writer = Writer(machine.all_drivers, clock.offload)
        self._retries = Retries(self._sight, resync)
        self._stopping = Stopping(inbox, self._sight, journal, clock)
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
            if self._stopping.over(self.snapshot):
                return
            await self._wait()

    async def cycle(self) -> None:
        """One look at everything, and what follows from it."""
        started = self._clock()
        seen = await self._look(started)
        unseen = seen.blind and self.decider.memory is None
        if unseen and not self._inbox.inputs.stopping:
            return  # nothing is known yet that anything could be decided from
        await self._look_beside_the_tables(seen, started)
        inputs = self._inbox.inputs
        decision = await self.decider.decide(inputs, seen.state, started)
        absence = self._heartbeat.absence()
        seen, compared = await self._look_before_writing(seen, decision, absence)
        if not seen.blind and self._looks.haproxy(seen.state, decision.desired.http_engine):  # it has just died
            inputs = self._inbox.inputs
            decision = await self.decider.decide(inputs, seen.state, started)
            compared = await self.decider.compare(seen.state, decision)
        if unseen:  # what the kernel serves is adopted once it can be read
            self.decider.forget()
        written = await self._writer.write(seen, compared, decision, absence)
        await self._report(inputs, decision, written)
        ended = self._clock()
        at = None if seen.blind else ended
        self.snapshot = await self._made_snapshot(inputs, decision, compared, written, at)
        self._judge(seen, written)
        self._looks.originals()
        self._looks.routes(written.reached)
        self._heartbeat.beat_after_a_cycle()
        self._on_cycle(self.snapshot, ended - started)

    # ------------------------------------------------------------ the steps of a cycle, in their order

    async def _look(self, started: float) -> Observation:
        """Look at every table, and prove life meanwhile, if that may take long."""
        known = self.snapshot.actual if self.decider.memory is not None else None
        if self._looks.known_as_they_are(known, self._doubtful()):
            seen = await self._looks.tables(known, self._read_once)
        else:
            async with asyncio.TaskGroup() as tasks:
                beating = tasks.create_task(self._heartbeat.beat_through_a_look())
                seen = await self._looks.tables(known, self._read_once)
                beating.cancel()
        self._sight.looked(seen.errors, started)
        return replace(seen, blind=self._sight.blind)

    def _read_once(self, errors: Mapping[Table, str]) -> None:
        """The kernel can be read: that is known before a second look has confirmed which rows are lost."""
        if self._sight.blind:
            self._sight.read_once(errors)
            self._heartbeat.beat_in_a_look()

    def _doubtful(self) -> bool:
        """May the machine not be as it was last known? A node that stops looks at what it leaves behind."""
        unsure = self._retries.due or self._sight.unread or self._sight.undecided
        return bool(unsure) or self._inbox.inputs.stopping

    async def _look_beside_the_tables(self, seen: Observation, now: float) -> None:
        """What else a decision depends on is put into the inbox."""
        if not seen.blind:
            await self._looks.idle(seen.state, self.decider.memory)
            await self._looks.traffic(self.decider.memory, now)
            self._looks.haproxy(seen.state, self.snapshot.decision.desired.http_engine)
        self._looks.originals()
        self._looks.clock()
        self._looks.routes(seen.state)

    async def _look_before_writing(
        self, seen: Observation, decision: Decision, absence: Reason | None
    ) -> tuple[Observation, Comparison]:
        """What differs from the decision, by a fresh look at what is about to be changed."""
        compared = await self.decider.compare(seen.state, decision)
        again = await self._looks.before_writing(seen.state, attempted(compared.changes, absence))
        if again is None:
            return seen, compared
        errors = {**seen.errors, **again.errors}
        seen = Observation(again.tables, again.state, errors, seen.blind or bool(again.errors))
        return seen, await self.decider.compare(seen.state, decision)

    async def _report(self, inputs: Inputs, decision: Decision, written: Written) -> None:
        """Emit the events of this cycle."""
        args = inputs.node, self.snapshot, decision, written.finished, written.failures
        for number, event in enumerate(await beside(self._offload, written.tried, cycle_events, *args), 1):
            self._journal.emit(event)
            if number % MANY == 0:
                await asyncio.sleep(0)

    async def _made_snapshot(
        self, inputs: Inputs, decision: Decision, compared: Comparison, written: Written, seen_at: float | None
    ) -> Snapshot:
        """``seen_at``: None where the kernel could not be read, so that the snapshot is as old as the last one."""
        left: tuple[Change, ...] = ()
        if not written.complete:
            args = compared, written.reached, decision.desired
            left = (await beside(self._offload, written.tried, compare_around, *args)).changes
        return Snapshot(
            inputs=inputs,
            actual=written.reached,
            decision=decision,
            plan=written.finished,
            failures=written.failures,
            pending=left,
            speaker=self._looks.speaker(),
            registrars=tuple(driver.registrar() for driver in self._machine.record_drivers),
            at=self.snapshot.at if seen_at is None else seen_at,
            at_wall=self.snapshot.at_wall if seen_at is None else self._wall(),
            cycle=self.snapshot.cycle + 1,
        )

    def _judge(self, seen: Observation, written: Written) -> None:
        """Let the next decision know of what was refused, and the next look of what failed."""
        if not seen.blind:
            refused = self._retries.judge(written.failures)
            if refused != self._inbox.inputs.failures:
                self._inbox.put(failures=refused)
        self._inbox.stale.update(failure.change.table for failure in written.failures)
        self._sight.decided()

    # ------------------------------------------------------------ between two cycles

    def _failed(self, exc: Exception, started: float) -> None:
        """What cannot be contained has ended a cycle: the last decision stays, and no proof of life is given."""
        self.decider.start_over()
        self._sight.failed(internal_error("this node", exc).text, started)

    async def _wait(self) -> None:
        """Until something changed, the decision expires or the next look is due."""
        until = min(self._clock() + self._retries.pause(), self._looks.due)
        for moment in (self.snapshot.decision.wake_at, self.decider.repeat_at):
            if moment is not None and self._sight.stuck_since is None:
                until = min(until, moment)
        await self._heartbeat.wait(until)
