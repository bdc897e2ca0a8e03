"""Follow something in Consul with blocking queries. All that is followed so keeps Consul's rules in this one place.

The rules (Consul, "Blocking queries"), and where they are kept: the index always comes from the latest plain read, so
one that went backwards is dropped by itself; it is never below 1 (``number``); a query that returns without news (its
time is up) leads to a plain read too; reads keep a distance (``SPACING``). After a change of leader an answer can lack
what exists (hashicorp/consul#4103): a loss is read again with ``?consistent`` before it is reported.

It knows no endpoint and sends no request: what to wait for and what to read are its user's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from anycastlb.core.model import SourceError

T = TypeVar("T")
SPACING = 0.05
"""Seconds between reads: the first change is read at once, those that follow it together."""


class BlockingQuery(Generic[T]):
    """Something in Consul, read whole as it changes.

    ``look(consistent)`` is a plain read; ``wait(seen)`` returns once a blocking query says that there may be news since
    ``seen``; ``same`` and ``lost`` compare an older read with a newer one. All may raise ``SourceError``.
    """

    def __init__(
        self,
        look: Callable[[bool], Awaitable[T]],
        wait: Callable[[T], Awaitable[None]],
        same: Callable[[T, T], bool],
        lost: Callable[[T, T], bool],
    ) -> None:
        self.reads = 0
        """Plain reads so far."""
        self._look, self._wait, self._same, self._lost = look, wait, same, lost
        self._next_read = 0.0

    async def read(self, after: T | None) -> T:
        """What differs from ``after``, once it does; None: what is there now, read consistently."""
        if after is None:
            return await self._read(consistent=True)
        seen = after
        while True:
            await self._keep_distance()
            await self._wait(seen)
            latest = await self._read()
            if self._lost(after, latest):
                latest = await self._read(consistent=True)
            if not self._same(after, latest):
                return latest
            seen = latest

    async def _read(self, consistent: bool = False) -> T:
        if not consistent:
            await self._keep_distance()
        self._next_read = time.monotonic() + SPACING
        self.reads += 1
        return await self._look(consistent)

    async def _keep_distance(self) -> None:
        """Before a wait too: what has changed since the last read ends it at once, and what that read brings comes into
        force meanwhile."""
        if (left := self._next_read - time.monotonic()) > 0:
            await asyncio.sleep(left)


def number(index: object) -> int:
    """A usable index: with one below 1 a query would not block. Raises ``SourceError``."""
    try:
        return max(1, int(str(index)))
    except ValueError:
        raise SourceError(f"Consul answered with the index {index!r:.50}; expected a number") from None
