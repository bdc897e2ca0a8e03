"""What a node takes from the process that it runs in: time, chance, and threads for work that blocks."""

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


@dataclass(frozen=True)
class Clock:
    """Tests in virtual time pass their own clock, with chance drawn from a seed: a story is then a function of it."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds that never go back; the clock of every decision."""
    wall: Callable[[], float] = time.time
    """Seconds since 1970, as the machine's operator set them."""
    chance: Callable[[], float] = random.random
    """A number of at least 0 and less than 1, for jitter."""
    offload: Offload = asyncio.to_thread


SYSTEM = Clock()
"""The clock of this machine."""
