"""Work on many rows beside the event loop: other tasks must not wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, TypeVar

from anycastlb.adapters.system.clock import Offload

T = TypeVar("T")
MANY = 100
"""So many rows are worked on in one go: some milliseconds."""


async def beside(offload: Offload, rows: Sized, function: Callable[..., T], *args: Any) -> T:
    """What the function returns for these rows; it runs in a thread if they are many."""
    return await offload(function, *args) if len(rows) > MANY else function(*args)
