"""How long an event loop is kept by one step of one task, in seconds of the processor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

STALL = 0.05
"""Seconds of the processor that one item of a case may take at a time."""


class Stalls:
    """``suspects``: the requests that were under way when the loop was kept for too long."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.suspects: set[int] = set()
        self._under_way: set[int] = set()

    @contextmanager
    def during(self, number: int) -> Iterator[None]:
        self._under_way.add(number)
        try:
            yield
        finally:
            self._under_way.discard(number)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Every step of every task of this thread is measured meanwhile."""
        real = asyncio.Handle._run

        def measured(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            real(handle)
            took = time.thread_time() - began
            self.longest = max(self.longest, took)
            if took > STALL:
                self.suspects |= self._under_way

        asyncio.Handle._run = measured  # type: ignore[method-assign]
        try:
            yield
        finally:
            asyncio.Handle._run = real  # type: ignore[method-assign]
