"""Waiting in real time, judged by what happens and never by how long it took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

PATIENCE = 300.0
"""Seconds after which a test gives up: far more than the slowest machine needs, an emulated one included."""


async def eventually(holds: Callable[[], object]) -> None:
    """Wait until that holds."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError("it did not come true") from None


@asynccontextmanager
async def begun(work: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Future[Any]]:
    """``work`` runs during the block, and must not have ended before the block does; then it is broken off."""
    running = asyncio.ensure_future(work)  # noqa: TID251
    try:
        yield running
        assert not running.done(), f"it should still wait, and gave {running}"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
