"""Bound how many probes are under way, so that backends which hang cannot take every place.

A probe holds a socket until it is answered or its time is over. Those that were not answered in time at the last try
share half of the places; together with those that were never tried, three quarters. The rest is always free for checks
that are answered, which need a place for milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from math import ceil
from typing import Literal

Habit = Literal["answered", "untried", "hanging"]
"""How a check's last probe ended."""
SHARES: dict[Habit, float] = {"hanging": 0.5, "untried": 0.75, "answered": 1.0}
"""The share of the places that checks of this habit and the ones before it may take together."""


class Places:
    """``limit``: places in all. ``taken`` and ``waiting``: probes under way, and those that wait for a place."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken, self.waiting = limit, 0, 0
        self._bounds = {habit: asyncio.Semaphore(ceil(limit * share)) for habit, share in SHARES.items()}

    @asynccontextmanager
    async def take(self, habit: Habit) -> AsyncIterator[None]:
        """Wait for a place, and hold it inside the block."""
        async with AsyncExitStack() as held:
            self.waiting += 1
            try:
                for bound in list(SHARES)[list(SHARES).index(habit) :]:
                    await held.enter_async_context(self._bounds[bound])
            finally:
                self.waiting -= 1
            self.taken += 1
            held.callback(self._leave)
            yield

    def _leave(self) -> None:
        self.taken -= 1
