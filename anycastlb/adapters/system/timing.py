"""Clock, chance and threads in one value, which a part of the daemon is given, so that a test can replace them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Offload(Protocol):
    """Runs a blocking function elsewhere: ``asyncio.to_thread``, or in place for tests in virtual time."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Timing:
    clock: Callable[[], float] = time.monotonic
    """Seconds on the daemon's monotonic clock."""
    chance: Callable[[], float] = random.random
    """A number from 0 to 1, for jitter."""
    offload: Offload = asyncio.to_thread
