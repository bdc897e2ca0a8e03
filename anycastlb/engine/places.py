"""Bound how many probes are under way, so that backends which hang cannot take every place.

A probe holds a socket until it is answered or its time is over. Those that were not answered in time at the last try
share half of the places; together with those that were never tried, three quarters. The rest is always free for checks
that are answered, which need a place for milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import ceil
from typing import Literal

Habit = Literal["answered", "untried", "hanging"]
"""How a check's last probe ended."""
SHARES: dict[Habit, float] = {"hanging": 0.5, "untried": 0.75, "answered": 1.0}
"""The share of the places that checks of this habit and the ones before it may take together."""
BOUNDS: dict[Habit, tuple[Habit, ...]] = {habit: tuple(SHARES)[n:] for n, habit in enumerate(SHARES)}
"""The shares that a check of each habit counts in."""


class Places:
    """``limit``: places in all. ``taken`` and ``waiting``: probes under way, and those that wait for a place."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0
        self._free = {habit: ceil(limit * share) for habit, share in SHARES.items()}
        """Places left to checks of this habit and the ones before it together."""
        self._queues: dict[Habit, deque[Callable[[], None]]] = {habit: deque() for habit in reversed(SHARES)}

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    def enter(self, habit: Habit, act: Callable[[], None]) -> bool:
        """Take a place now, if there is one. Else return False, and call ``act`` once a place has been taken for it."""
        if not self._queues[habit] and self._take(habit):
            return True
        self._queues[habit].append(act)
        return False

    def leave(self, habit: Habit) -> None:
        """Give a place back that was taken with this habit. The next one who waits takes it."""
        for bound in BOUNDS[habit]:
            self._free[bound] += 1
        self.taken -= 1
        if not any(self._queues.values()):
            return
        for waiting, queue in self._queues.items():
            if queue and self._take(waiting):
                queue.popleft()()
                return

    def give_up(self, habit: Habit, act: Callable[[], None]) -> None:
        """Wait for a place no longer."""
        self._queues[habit].remove(act)

    @asynccontextmanager
    async def take(self, habit: Habit) -> AsyncIterator[None]:
        """Wait for a place, and hold it inside the block."""
        taken = asyncio.Event()
        if not self.enter(habit, taken.set):
            try:
                await taken.wait()
            except asyncio.CancelledError:
                if taken.is_set():
                    self.leave(habit)
                else:
                    self.give_up(habit, taken.set)
                raise
        try:
            yield
        finally:
            self.leave(habit)

    def _take(self, habit: Habit) -> bool:
        free = self._free
        for bound in BOUNDS[habit]:
            if not free[bound]:
                return False
        for bound in BOUNDS[habit]:
            free[bound] -= 1
        self.taken += 1
        return True
