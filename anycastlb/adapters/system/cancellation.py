"""Be cancelled although a library loses it.

``asyncio.wait_for`` of Python 3.11 loses a cancellation that comes in the same turn of the loop as what it waits for
(python/cpython#86296, mended in 3.12). dnspython waits with it, so that a task could go on for ever after it was ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def cancellable(awaitable: Awaitable[T]) -> T:
    """What it returns or raises; ``CancelledError`` if this task was cancelled meanwhile, whatever became of that."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await awaitable
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
