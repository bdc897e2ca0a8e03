"""Measure how late this process runs, and give those it waits for the time that it lost itself.

Theory of operation. A time-out is evidence against a target only if somebody looked. An event loop that is blocked, or
a process that gets no processor, was stopped, or sleeps with its machine, does not look: an answer may lie in the
socket unread, or the request may have been sent too late to be answered in time. While anybody waits, a timer of
``PERIOD`` runs in the loop. As much as it fires later than it was due, nobody looked: that time is *lost*. Time during
which the machine was suspended is lost too; only CLOCK_BOOTTIME counts it.

A ``Deadline`` is over when its target has had its time without the lost time, and when the loop has once more read
what lay in its sockets by then. It gives back at most ``EXTENSION`` times the time-out: what has not come by then is
not known.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from weakref import WeakKeyDictionary

PERIOD = 0.02
"""Seconds between two looks at the clock."""
PROMPT = 0.005
"""A timer that fires so few seconds after it was due is on time: it is how exact timers are."""
EXTENSION = 10.0
"""How many times its time-out a deadline is put off at most."""


def suspended() -> float:
    """Seconds that this machine has been suspended since it was booted.

    The clocks are read again if this process did not run between them: that would count as time asleep.
    """
    while True:
        before, booted, after = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic()
        if after - before < PROMPT:
            return booted - before


class Lateness:
    """How late one event loop runs. It is measured only while somebody waits; at other times it costs nothing."""

    def __init__(self) -> None:
        self._watchers = 0
        self._lost = 0.0
        self._due = 0.0
        self._suspended = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lost(self) -> float:
        """Seconds lost so far, those of a timer that is overdue right now among them. It counts on while watched."""
        return self._lost + self._overdue()

    def watch(self) -> None:
        """Measure until ``unwatch`` is called as often as this."""
        self._watchers += 1
        if self._watchers == 1:
            self._suspended = suspended()
            self._schedule()

    def unwatch(self) -> None:
        self._watchers -= 1
        if not self._watchers and self._timer is not None:
            self._lost = self.lost
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + PERIOD
        self._timer = loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._lost = self.lost
        self._suspended = suspended()
        self._schedule()

    def _overdue(self) -> float:
        if self._timer is None:
            return 0.0
        late, slept = asyncio.get_running_loop().time() - self._due, suspended() - self._suspended
        return (late if late > PROMPT else 0.0) + (slept if slept > PROMPT else 0.0)


_OF: WeakKeyDictionary[asyncio.AbstractEventLoop, Lateness] = WeakKeyDictionary()


def lateness() -> Lateness:
    """That of the running event loop."""
    loop = asyncio.get_running_loop()
    if (known := _OF.get(loop)) is None:
        known = _OF[loop] = Lateness()
    return known


class Deadline:
    """``asyncio.timeout`` for one who waits for a target: time that the loop lost does not count against the target.

    ``async with Deadline(1.0) as deadline``; it raises TimeoutError. Afterwards it knows ``lost`` and ``fair``.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.lost = 0.0
        """Seconds lost inside the block."""
        self.fair = True
        """Did the target have all its time? False if more was lost than is given back."""

    async def __aenter__(self) -> Deadline:
        self._loop = asyncio.get_running_loop()
        self._lateness = lateness()
        self._lateness.watch()
        self._before = self._lateness.lost
        self._started = self._loop.time()
        self._looked = False
        self._limit = asyncio.timeout(None)
        await self._limit.__aenter__()
        self._timer: asyncio.Handle = self._loop.call_at(self._started + self._seconds, self._over)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._measure()
        self._lateness.unwatch()
        await self._limit.__aexit__(kind, error, trace)

    def _measure(self) -> None:
        self.lost = self._lateness.lost - self._before
        self.fair = self.lost <= EXTENSION * self._seconds

    def _over(self) -> None:
        self._measure()
        end = self._started + self._seconds + min(self.lost, EXTENSION * self._seconds)
        if end > self._loop.time():
            self._looked = False
            self._timer = self._loop.call_at(end, self._over)
        elif not self._looked:  # what lies in the sockets by now is read in this turn of the loop
            self._looked = True
            self._timer = self._loop.call_soon(self._over)
        else:
            self._limit.reschedule(self._loop.time())
