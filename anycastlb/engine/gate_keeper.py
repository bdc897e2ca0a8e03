"""Have what must outlive the daemon written: soon after it changes, and at most once a second.

It is written beside the cycle, in a thread, so that a slow disk delays no withdrawal and no proof of life.
"""

from __future__ import annotations

import asyncio

from anycastlb.adapters.gate_memory import GateMemory
from anycastlb.adapters.system.clock import Clock
from anycastlb.core.decision.recollection import Recorder, alike
from anycastlb.core.model import Recollection, Snapshot

PAUSE = 1.0
"""Seconds between two writes, at least."""
REFRESH = 600.0
"""Seconds after which what has not changed is written again, so that its age says how long the daemon has been gone."""


class GateKeeper:
    """``observe`` is told of every cycle; ``run`` writes."""

    def __init__(self, memory: GateMemory, clock: Clock) -> None:
        self._memory, self._clock, self._offload = memory, clock.monotonic, clock.offload
        self._recorder = Recorder()
        self._seen: Snapshot | None = None
        self._latest: Recollection | None = None
        self._written: Recollection | None = None
        self._written_at = 0.0
        self._news = asyncio.Event()

    def observe(self, snapshot: Snapshot) -> None:
        """A node that stops closes its gates, which says nothing of them."""
        decision = snapshot.decision
        due = self._clock() - self._written_at >= REFRESH
        if snapshot.inputs.stopping or (self._is_known(snapshot) and not due):
            return
        self._seen = snapshot
        self._latest = self._recorder.record(snapshot.inputs, decision.memory, decision.verdicts, self._clock())
        if due or self._written is None or not alike(self._latest, self._written):
            self._news.set()

    def _is_known(self, snapshot: Snapshot) -> bool:
        """Was the same seen before of all that is remembered?"""
        if self._seen is None:
            return False
        seen, now = self._seen.decision, snapshot.decision
        return (
            seen.verdicts is now.verdicts
            and seen.memory.gates is now.memory.gates
            and seen.memory.serving is now.memory.serving
            and self._seen.inputs.wall == snapshot.inputs.wall
        )

    async def run(self) -> None:
        """Write for ever, in the node's task group."""
        while True:
            await self._news.wait()
            self._news.clear()
            if (latest := self._latest) is not None:
                self._written, self._written_at = latest, self._clock()
                await self._offload(self._memory.save, latest)
            await asyncio.sleep(PAUSE)
