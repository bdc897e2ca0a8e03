"""Prove to the BGP bridge and the service manager that this node decides, and stop when it does not.

A proof is given at the end of every cycle, and meanwhile, as long as neither the process was frozen nor the last
decision is too old to vouch for. A cycle in which much time has passed after its decision may have been frozen while it
wrote, and what it decided may be wrong by now: the next cycle gives the proof in its place.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from anycastlb.adapters.system.clock import Clock
from anycastlb.core.decision.decide import TICK
from anycastlb.core.model import DriverError, Reason
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine
from anycastlb.engine.sight import Sight
from anycastlb.engine.standstill import Standstill


class Heartbeat:
    """``started`` is set once something could be decided: nothing is proven before."""

    def __init__(self, inbox: Inbox, machine: Machine, sight: Sight, clock: Clock) -> None:
        self._inbox, self._sight = inbox, sight
        self._announcer, self._pulse = machine.announcer, machine.pulse
        self._clock, self._wall = clock.monotonic, clock.wall
        self._standstill = Standstill(inbox, machine.pulse.hold, clock)
        self.started = False
        self._decided_at = self._decided_wall = 0.0
        """When the decision of this cycle was made, by both clocks."""
        self._postponed = False
        """The cycle before this one has left the proof to it."""
        self._pulse.at = self._clock()

    def decided(self) -> None:
        """A decision was made now."""
        self._decided_at, self._decided_wall = self._clock(), self._wall()

    def beat_after_a_cycle(self) -> None:
        """Prove life, or have the machine looked at again at once, and leave it to that cycle.

        Only once in a row: a machine that is merely too slow must not lose its routes for that. The service manager
        hears in any case that this process runs.
        """
        self._postponed = not self._postponed and self._outdated()
        if not self._postponed:
            self.beat()
            return
        self._inbox.wake()
        self._pulse.notify()

    def absence(self) -> Reason | None:
        """Why no route can be announced or changed now; None if it can."""
        return self._standstill.reason() or self._announcer.absence()

    def beat_in_a_look(self) -> None:
        """Prove life as soon as a blind node has read its kernel, if its last decision still vouches for it."""
        if not self._outdated():
            self.beat()

    def _outdated(self) -> bool:
        """Is the last decision too old to vouch for?"""
        passed = self._clock() - self._decided_at, self._wall() - self._decided_wall
        return max(map(abs, passed)) > self._pulse.silence

    def beat(self) -> None:
        """Prove life, unless nothing was decided yet, or nothing could be for too long (``Sight.stuck_since``)."""
        now, since = self._clock(), self._sight.stuck_since
        stuck = since is not None and now - since > self._pulse.silence
        waits = self._standstill.reason() is not None
        if not self.started or stuck:
            return
        if waits:
            self._pulse.notify()
            return
        self._pulse.at = now
        with suppress(DriverError):
            self._announcer.beat()
        self._pulse.notify()

    async def wait(self, until: float) -> None:
        """Until that moment, or until something has changed; proving life meanwhile."""
        while not self._inbox.dirty.is_set() and (left := until - self._clock()) > 0:
            try:
                async with asyncio.timeout(max(min(left, self._pulse.period), TICK)):
                    await self._inbox.dirty.wait()
            except TimeoutError:
                if self._late():
                    self._inbox.wake()
                    return
                self.beat()

    async def beat_through_a_look(self) -> None:
        """Prove life while a look takes long: a slow look is no blind one. The caller cancels it when the look ends."""
        until = self._clock() + self._pulse.silence
        while self._clock() + self._pulse.period <= until:
            await asyncio.sleep(self._pulse.period)
            if self._late():
                return
            self.beat()

    def _late(self) -> bool:
        """Has this process been frozen or the machine suspended? Then nothing is proven before the next decision.

        The monotonic clock stands still during a suspend, so that only the wall clock shows it.
        """
        now, silence = self._clock(), self._pulse.silence
        suspended = abs(self._wall() - now - self._inbox.inputs.wall) > silence
        return self._sight.stuck_since is None and (suspended or now - self._pulse.at > silence)
