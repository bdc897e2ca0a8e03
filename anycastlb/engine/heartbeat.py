"""Prove to the BGP bridge and the service manager that this node decides, and stop when it does not.

A proof is given at the end of every cycle, and meanwhile, as long as neither the process was frozen nor the last
decision is too old to vouch for.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from anycastlb.adapters.system.clock import Clock
from anycastlb.core.model import DriverError
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine
from anycastlb.engine.sight import Sight


class Heartbeat:
    """``started`` is set once something could be decided: nothing is proven before."""

    def __init__(self, inbox: Inbox, machine: Machine, sight: Sight, clock: Clock) -> None:
        self._inbox, self._sight = inbox, sight
        self._announcer, self._pulse = machine.announcer, machine.pulse
        self._clock, self._wall = clock.monotonic, clock.wall
        self.started = False
        self._pulse.at = self._clock()

    def beat(self) -> None:
        """Prove life, unless nothing was decided yet, or nothing could be for too long (``Sight.stuck_since``)."""
        now, since = self._clock(), self._sight.stuck_since
        stuck = since is not None and now - since > self._pulse.silence
        if not self.started or stuck:
            return
        self._pulse.at = now
        with suppress(DriverError):
            self._announcer.beat()
        self._pulse.notify()

    async def wait(self, until: float) -> None:
        """Until that moment, or until something has changed; proving life meanwhile."""
        while not self._inbox.dirty.is_set() and (left := until - self._clock()) > 0:
            try:
                async with asyncio.timeout(min(left, self._pulse.period)):
                    await self._inbox.dirty.wait()
            except TimeoutError:
                if self._late():
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
