"""Run checks in this process, and publish their folded results.

What a probe proves is said by ``engine.attempt``, and what follows from it by ``engine.verdicts``. Nothing is decided
here. ``engine.checker`` does the same in a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from anycastlb.adapters.checks import CheckType
from anycastlb.adapters.checks.probe.path import find_path
from anycastlb.adapters.system.clock import SYSTEM, Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, ForwardPath
from anycastlb.engine.observer import NOBODY, Observer
from anycastlb.engine.probing import FindPath, Probing
from anycastlb.engine.runner import Runner
from anycastlb.engine.verdicts import Publish, Verdicts, publish_changes


class Checking(Protocol):
    """Who runs the checks of a node."""

    @property
    def running(self) -> int:
        """How many checks are running."""

    @property
    def load(self) -> tuple[int, int, int]:
        """Probes under way, probes that wait for a place among them, and how many places there are."""

    def want(self, checks: Iterable[Check]) -> None:
        """Run these checks from now on, and stop all others."""

    def mark(self, marks: Mapping[ForwardPath, int | str]) -> None:
        """Take the firewall mark of each forward path, or why it has none. A path that is missing is not known yet."""

    async def settled(self) -> None:
        """Return when all that needs no probe is known of the checks that are wanted."""

    async def run(self) -> None:
        """Run for ever, in the daemon's task group; ends all checks when cancelled."""


MakeChecking = Callable[[Publish, Journal, Clock, Observer], Checking]


class Prober:
    """``publish(health, turned)`` is called with all states: at once if a verdict turned, else once a second.

    ``probe_path(via, mark)`` finds how a probe through IPVS goes now; it may raise OSError.
    """

    def __init__(
        self,
        types: Mapping[str, CheckType],
        publish: Publish,
        journal: Journal,
        clock: Clock = SYSTEM,
        probe_path: FindPath = find_path,
        observer: Observer = NOBODY,
    ) -> None:
        self._publish = publish
        self._verdicts = Verdicts(journal, clock, observer)
        self._runner = Runner(Probing(types, self._verdicts, clock, probe_path))

    @property
    def running(self) -> int:
        return self._runner.running

    @property
    def load(self) -> tuple[int, int, int]:
        return self._runner.load

    def want(self, checks: Iterable[Check]) -> None:
        self._runner.want(checks)

    def mark(self, marks: Mapping[ForwardPath, int | str]) -> None:
        self._runner.mark(marks)

    async def settled(self) -> None:
        """It is known as soon as it is wanted."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish_changes(self._verdicts, self._publish))
            await self._runner.run()
