"""The daemon, with a watch on its event loop: ``python -m tests.bench.observed REPORT run --config FILE``.

On SIGUSR2 it writes to REPORT how long the loop was blocked at the longest since the last time, in milliseconds.
"""

from __future__ import annotations

import asyncio
import selectors
import signal
import sys
import time
from pathlib import Path
from typing import Any

from anycastlb.cli import main


class Watched(selectors.EpollSelector):
    """Knows the longest time between two calls of ``select``."""

    longest = 0.0
    _woke: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._woke is not None:
            Watched.longest = max(Watched.longest, time.monotonic() - self._woke)
        ready = super().select(timeout)
        self._woke = time.monotonic()
        return ready


class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(Watched())


def report(*_: Any) -> None:
    Path(f"{REPORT}.new").write_text(f"{Watched.longest * 1e3:.1f}")
    Path(f"{REPORT}.new").rename(REPORT)
    Watched.longest = 0.0


if __name__ == "__main__":
    REPORT = sys.argv.pop(1)
    signal.signal(signal.SIGUSR2, report)
    asyncio.set_event_loop_policy(Policy())
    sys.exit(main())
