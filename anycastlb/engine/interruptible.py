"""Wait for one thing at a time, with a limit, so that it can be broken off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Interruptible:
    def __init__(self) -> None:
        self._alarm: asyncio.Timeout | None = None

    async def run(self, work: Coroutine[Any, Any, T], seconds: float | None) -> T | None:
        """Run ``work``. Returns None if it was broken off: by ``interrupt``, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds) as alarm:
                self._alarm = alarm
                return await work
        except TimeoutError:
            if not alarm.expired():
                raise
            return None
        finally:
            self._alarm = None

    def interrupt(self) -> None:
        """Break off what runs, if anything does."""
        if self._alarm is not None and not self._alarm.expired():
            self._alarm.reschedule(asyncio.get_running_loop().time())
