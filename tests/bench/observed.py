"""The daemon, with a watch on its event loop: ``python -m tests.bench.observed REPORT run --config FILE``.

On SIGUSR2 it writes to REPORT how long the loop was blocked at the longest since the last time, in milliseconds.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time

from anycastlb.cli import main
from tests.bench.reported import Longest


class Watched(selectors.EpollSelector):
    """Notes the time between two calls of ``select``."""

    _woke: float | None = None

    def __init__(self, longest: Longest) -> None:
        super().__init__()
        self._longest = longest

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._woke is not None:
            self._longest.note(time.monotonic() - self._woke)
        ready = super().select(timeout)
        self._woke = time.monotonic()
        return ready


class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(Watched(LONGEST))


if __name__ == "__main__":
    LONGEST = Longest(sys.argv.pop(1))
    asyncio.set_event_loop_policy(Policy())
    sys.exit(main())
