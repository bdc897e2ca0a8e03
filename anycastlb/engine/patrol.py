"""Look at the kernel's services within each ``resync``: at all of them at a glance, and in slices at those that do not
look as they did.

A slice is compared with what is known: what was last seen, and written since. Nothing is decided here: where they
differ, the reconciler is woken, looks at the whole, and puts it right. So a look that finds nothing new costs little,
and delays no cycle (docs/decisions/0018-looks-in-slices.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from anycastlb.adapters.drivers import Inspected
from anycastlb.core.model import DriverError, ServiceKey
from anycastlb.engine.inbox import Inbox

SLICE = 100
"""Services in a slice, at least: some milliseconds of work, which a change may have to wait for."""
SHORTEST = 0.1
"""Seconds from one slice to the next, at least."""
SHARE = 0.9
"""Of ``resync``, that a round takes: what follows from it has to be done within ``resync`` too."""


class Patrol:
    """``services``: those that this node has in the kernel, as far as it knows."""

    def __init__(
        self, driver: Inspected, inbox: Inbox, services: Callable[[], Sequence[ServiceKey]], resync: float
    ) -> None:
        self._driver, self._inbox, self._services = driver, inbox, services
        self._period = resync * SHARE

    async def run(self) -> None:
        """Round after round, until cancelled."""
        pause = self._period
        while True:
            await asyncio.sleep(pause)
            await self._inspect(None)
            services = await self._driver.suspects(self._services())
            size = max(SLICE, int(len(services) * SHORTEST / self._period) + 1)
            slices = [services[at : at + size] for at in range(0, len(services), size)]
            pause = self._period / (1 + len(slices))
            for part in slices:
                await asyncio.sleep(pause)
                await self._inspect(part)

    async def _inspect(self, part: Sequence[ServiceKey] | None) -> None:
        """Compare these services, or (None) the list of all; wake the reconciler if they are not as they are known."""
        try:
            differs = await (
                self._driver.services_differ(None) if part is None else self._driver.destinations_differ(part)
            )
        except DriverError:
            differs = True  # the look that follows reports it
        if differs:
            self._inbox.wake(self._driver.tables)
