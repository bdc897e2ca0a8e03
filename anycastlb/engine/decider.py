"""Decide, and compare with the machine; again and again, each time from what the last time has left.

It holds all that outlives a cycle of a decision: its memory, and what the next one need not make anew
(docs/decisions/0014-incremental-brain.md). Decisions are made in a thread: one may take long, and the other tasks of
this process must not wait for it.
"""

from __future__ import annotations

from anycastlb.adapters.system.clock import Clock
from anycastlb.core.decision.comparison import UNCOMPARED, Comparison
from anycastlb.core.decision.decide import adopt
from anycastlb.core.decision.proof import Made
from anycastlb.core.decision.quarantine import compare_around, decide_around
from anycastlb.core.decision.recollection import recalled
from anycastlb.core.decision.remembered import FROM_SCRATCH, Remembered
from anycastlb.core.model import Decision, Inputs, Memory, State
from anycastlb.engine.heartbeat import Heartbeat
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine

LARGE = 100
"""A decision of which more groups of VIPs than this do not stand yet is made again soon."""
QUIET, REPEATS = 0.5, 2
"""After so many seconds without news it is made again, so often."""


class Decider:
    def __init__(self, inbox: Inbox, machine: Machine, heartbeat: Heartbeat, clock: Clock) -> None:
        self._inbox, self._machine, self._heartbeat = inbox, machine, heartbeat
        self._offload = clock.offload
        self.memory: Memory | None = None
        """What the decisions so far have left to the next one; None before the first."""
        self._remembered = FROM_SCRATCH
        """The last decision, with what the next one need not make anew."""
        self._compared = UNCOMPARED
        """What differed in the last cycle, before it was applied."""
        self._version = -1
        """The inbox's version the last decision was made from."""
        self.repeat_at: float | None = None
        """When the decision is made again though nothing has changed: what is seen to stand costs the next one nothing.

        Else the first change after a start would cost as much as the start."""
        self._repeated = 0
        self.made: Made | None = None
        """The last decision that was made, for its proof."""
        self._correction: tuple[Made, Decision] | None = None
        """A decision that was wrong, and the right one."""

    async def decide(self, inputs: Inputs, actual: State, now: float) -> Decision:
        """The last decision, while nothing it was made from has changed and its time is not over; else a new one."""
        self._take_correction()
        memory = self._adopted(actual, now)
        last, version = self._remembered, self._inbox.version
        due = [moment for moment in (last.decision.wake_at, self.repeat_at) if moment is not None]
        if last is not FROM_SCRATCH and version == self._version and all(now < moment for moment in due):
            self._heartbeat.decided()
            return last.decision
        self._repeated = self._repeated + 1 if version == self._version else 0
        self.repeat_at = None
        made, self._compared = await self._offload(self._make, last, inputs, actual, memory, now)
        if self._repeated < REPEATS and made.usable(inputs, made.decision.memory) and made.passing > LARGE:
            self.repeat_at = now + QUIET
        self._remembered, self.memory, self._version = made, made.decision.memory, version
        self.made = Made(inputs, memory, now, made.decision)
        return made.decision

    async def compare(self, actual: State, decision: Decision) -> Comparison:
        """What differs now; in a thread too, unless it is what differed before."""
        last = self._compared
        if actual is not last.actual or decision.desired is not last.desired:
            self._compared = await self._offload(compare_around, last, actual, decision.desired)
        return self._compared

    def correct(self, wrong: Made, right: Decision) -> None:
        """A decision was wrong: decide the next one from scratch, soon."""
        self._correction = wrong, right
        self._inbox.wake(())

    def start_over(self) -> None:
        """Keep nothing that may be at fault but the memory: the next decision is made from scratch."""
        self._remembered, self._compared = FROM_SCRATCH, UNCOMPARED

    def forget(self) -> None:
        """Adopt what the kernel serves once more, before the next decision."""
        self.memory, self._remembered, self.made = None, FROM_SCRATCH, None

    def _make(
        self, last: Remembered, inputs: Inputs, actual: State, memory: Memory, now: float
    ) -> tuple[Remembered, Comparison]:
        """A decision, and what differs from it. Runs in a thread."""
        made = decide_around(last, inputs, memory, now)
        self._heartbeat.decided()
        return made, compare_around(self._compared, actual, made.decision.desired)

    def _adopted(self, actual: State, now: float) -> Memory:
        """The memory. Before the first decision it is what the kernel serves, and what is on disk about the gates."""
        if self.memory is None:
            inputs = self._inbox.inputs
            connected = self._machine.announcer.speaker().connected
            known = recalled(self._machine.gate_memory.load(), inputs.wall, now)
            self.memory = adopt(actual, now, inputs.policy.marks, known, connected, inputs.catalog)
            self._heartbeat.started = True
        return self.memory

    def _take_correction(self) -> None:
        """Go on from the right decision, if no other was made since the wrong one."""
        if self._correction is not None:
            wrong, right = self._correction
            self._correction = None
            self.start_over()
            if wrong is self.made:
                self.memory = right.memory
