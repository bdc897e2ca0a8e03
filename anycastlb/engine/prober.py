"""Run the right checks, and publish their folded results.

The wanted checks are a set of values: a check that stays in the set keeps running undisturbed, whatever else is
reloaded. Each check has its own times (``engine.schedule``); a slow target delays only itself (``engine.places``).
Plain checks run on the lean engine (``engine.lean_check``), all others as coroutines (``engine.coroutine_check``). What
a probe proves is said by ``engine.attempt``, and what follows from it by ``engine.verdicts``. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from anycastlb.adapters.checks import CheckType
from anycastlb.adapters.checks.probe.lean import Poller
from anycastlb.adapters.checks.probe.path import find_path
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, ForwardPath, Health
from anycastlb.engine.coroutine_check import repeat
from anycastlb.engine.lean_check import LeanCheck
from anycastlb.engine.observer import NOBODY, Observer
from anycastlb.engine.probing import FindPath, Probing
from anycastlb.engine.verdicts import Verdicts


class Running(Protocol):
    """A check that is being run."""

    def cancel(self) -> object: ...


class Prober:
    """``publish(health, turned)`` is called with all states: at once if a verdict turned, else once a second.

    ``probe_path(via, mark)`` finds how a probe through IPVS goes now; it may raise OSError.
    """

    def __init__(
        self,
        types: Mapping[str, CheckType],
        publish: Callable[[Health, bool], None],
        journal: Journal,
        clock: Clock = SYSTEM,
        probe_path: FindPath = find_path,
        observer: Observer = NOBODY,
    ) -> None:
        self._publish = publish
        self._verdicts = Verdicts(journal, clock, observer)
        self._probing = Probing(types, self._verdicts, clock, probe_path, observer)
        self._running: dict[Check, Running] = {}
        self._wanted: frozenset[Check] = frozenset()
        self._resettle = asyncio.Event()

    @property
    def running(self) -> int:
        """How many checks are running."""
        return len(self._running)

    @property
    def load(self) -> tuple[int, int, int]:
        """Probes under way, probes that wait for a place among them, and how many places there are."""
        places = self._probing.places
        return places.taken, places.waiting, places.limit

    def want(self, checks: Iterable[Check]) -> None:
        """Run these checks from now on, and stop all others."""
        wanted = frozenset(checks)
        if wanted != self._wanted:
            self._wanted = wanted
            self._resettle.set()

    def mark(self, marks: Mapping[ForwardPath, int | str]) -> None:
        """Take the firewall mark of each forward path, or why it has none. A path that is missing is not known yet."""
        self._probing.mark(marks)

    async def run(self) -> None:
        """Run for ever, in the daemon's task group; ends all checks when cancelled."""
        poller = Poller()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(poller.run())
                tasks.create_task(self._publish_changes())
                while True:
                    await self._resettle.wait()
                    self._resettle.clear()
                    for check in self._running.keys() - self._wanted:
                        self._running.pop(check).cancel()
                        self._verdicts.forget(check)
                    for check in sorted(self._wanted - self._running.keys(), key=str):
                        self._running[check] = self._started(check, tasks, poller)
        finally:
            for running in self._running.values():
                running.cancel()
            poller.close()

    def _started(self, check: Check, tasks: asyncio.TaskGroup, poller: Poller) -> Running:
        if exchange := self._probing.types[check.type].lean(check):
            return LeanCheck(check, exchange, self._probing, poller)
        return tasks.create_task(repeat(check, self._probing), name=f"check {check}")

    async def _publish_changes(self) -> None:
        """Publish: a turned verdict at once (many in one go), mere fresh evidence every second."""
        verdicts = self._verdicts
        while True:
            try:
                async with asyncio.timeout(1.0):
                    await verdicts.turned.wait()
            except TimeoutError:
                if not verdicts.fresh:
                    continue
            turned = verdicts.turned.is_set()
            verdicts.turned.clear()
            verdicts.fresh = False
            self._publish(MappingProxyType(dict(verdicts.states)), turned)
