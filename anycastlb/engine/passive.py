"""Ask HAProxy about once a second how requests have ended, as long as a pool has ``max_fails``; else ask nothing.

What follows from the numbers is decided in ``core.decision.http.passive``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from anycastlb.adapters.system.clock import Clock
from anycastlb.core.decision.http import passive
from anycastlb.core.decision.http.passive import NOTHING_KNOWN, PassiveRecord
from anycastlb.core.model import EMPTY, Catalog, HttpConfig, PassiveFailures, Service, Snapshot, Tries
from anycastlb.engine.inbox import Inbox

INTERVAL = 1.0
"""Seconds from one question to the next, at least."""
AFTER_FAULT = 60.0
"""The same after a fault of ours, which would come again."""
SHARE, LONGEST = 0.05, 5.0
"""Of its time that this node and HAProxy spend with questions and answers, at most: 10,000 servers are megabytes. But
a HAProxy that was slow to answer is asked again after so many seconds."""
ENGINE = "config"
CountTries = Callable[[Sequence[str]], Awaitable[Mapping[str, Tries] | None]]
"""Counts the requests that each server of these sections of HAProxy was tried with, by pool; None while it is away."""


class PassiveWatch:
    """The writer of ``Inputs.passive``. ``snapshot`` says which sections HAProxy has."""

    def __init__(self, count: CountTries, inbox: Inbox, snapshot: Callable[[], Snapshot], clock: Clock) -> None:
        self._count, self._inbox, self._snapshot = count, inbox, snapshot
        self._clock, self._offload = clock.monotonic, clock.offload
        self._catalog: Catalog | None = None
        self._pools: Mapping[str, Service] = {}
        """Those of ``_catalog`` that count."""
        self._records: Mapping[str, PassiveRecord] = {}

    async def run(self) -> None:
        """Question after question, until cancelled. A fault of ours in one of them stops nothing else."""
        while True:
            began, pause = self._clock(), INTERVAL
            try:
                await self.ask()
            except Exception:
                logging.getLogger("anycastlb").exception("the requests to pools could not be counted")
                pause = AFTER_FAULT
            await asyncio.sleep(max(pause, min(LONGEST, (self._clock() - began) / SHARE)))

    async def ask(self) -> None:
        """Ask once, if anybody wants to know."""
        catalog = self._inbox.inputs.catalog
        if catalog is not self._catalog:
            self._catalog = catalog
            self._pools = {pool.name: pool for pool in catalog.pools if passive.counts(pool)}
        if not self._pools and not self._records:
            return
        sections = self._sections()
        counted = await self._count(sections) if sections else {}
        if counted is None:
            return
        self._records = await self._offload(_taken, self._pools, self._records, counted, self._clock())
        failures: PassiveFailures = {name: one.failures for name, one in self._records.items() if one.failures}
        if failures != self._inbox.inputs.passive:
            self._inbox.put(passive=failures)

    def _sections(self) -> list[str]:
        row = self._snapshot().decision.desired.http_engine.get(ENGINE)
        config: HttpConfig | None = row.config if row is not None else None
        return [section.name for section in config.sections if section.pool in self._pools] if config else []


def _taken(
    pools: Mapping[str, Service], records: Mapping[str, PassiveRecord], counted: Mapping[str, Tries], now: float
) -> Mapping[str, PassiveRecord]:
    """The records of these pools. A thousand take a tenth of a second: beside the event loop."""
    return {
        name: passive.take(pool, records.get(name, NOTHING_KNOWN), counted.get(name, EMPTY), now)
        for name, pool in pools.items()
    }
