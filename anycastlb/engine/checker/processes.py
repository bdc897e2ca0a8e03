"""The checks of a node in checker processes: one, and more of them where one has its hands full and there are cores."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Set
from functools import partial

from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, ForwardPath
from anycastlb.engine import unchecked
from anycastlb.engine.checker.protocol import Bounds
from anycastlb.engine.checker.supervisor import CheckerProcess, slices
from anycastlb.engine.observer import Observer
from anycastlb.engine.prober import MakeChecking
from anycastlb.engine.verdicts import Publish, Verdicts, publish_changes

FULL = 4000.0
"""Checks a second that one process is given while another one may be started: plain TCP takes half a core for them."""
MAX_PROCESSES = 8
"""However many cores there are."""


class CheckerProcesses:
    """``Checking`` in processes of its own. A check stays with the process that it was given to.

    A process is started with its first check. A new check goes to the first process that has room for it, so that a
    second one is started only when the first is full; when all are full, it goes to the one that has least to do.
    """

    def __init__(
        self,
        bounds: Bounds,
        limit: int,
        publish: Publish,
        journal: Journal,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._publish = publish
        self._verdicts = Verdicts(journal, clock, observer)
        self._processes = [CheckerProcess(bounds, self._verdicts, journal, clock) for _ in range(limit)]
        self._shares: list[set[Check]] = [set() for _ in range(limit)]
        self._rates = [0.0] * limit
        """Checks a second of each process."""
        self._places: dict[Check, int] = {}
        self._wanted: Set[Check] = frozenset()
        self._resettle, self._at_rest = asyncio.Event(), asyncio.Event()
        self._at_rest.set()

    @property
    def running(self) -> int:
        return sum(process.running for process in self._processes)

    @property
    def load(self) -> tuple[int, int, int]:
        loads = [process.load for process, share in zip(self._processes, self._shares, strict=True) if share]
        taken, waiting, places = zip(*(loads or [self._processes[0].load]), strict=True)
        return sum(taken), sum(waiting), sum(places)

    def want(self, checks: Iterable[Check]) -> None:
        self._wanted = frozenset(checks)
        self._at_rest.clear()
        self._resettle.set()

    def mark(self, marks: Mapping[ForwardPath, int | str]) -> None:
        for process in self._processes:
            process.mark(marks)

    async def settled(self) -> None:
        await self._at_rest.wait()
        for process in self._processes:
            await process.settled()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._share_out())
            for process in self._processes:
                tasks.create_task(process.run())
            await publish_changes(self._verdicts, self._publish)

    async def _share_out(self) -> None:
        """Give each check that is wanted to a process, for ever."""
        while True:
            await self._resettle.wait()
            self._resettle.clear()
            changed = set[int]()
            async for checks in slices(self._places.keys() - self._wanted):
                changed.update(map(self._remove, checks))
            async for checks in slices(self._wanted - self._places.keys()):
                changed.update(map(self._place, checks))
            for number in changed:
                self._processes[number].want(self._shares[number])
            if not self._resettle.is_set():
                self._wanted = self._places.keys()  # which it equals: nobody need keep both
                self._at_rest.set()

    def _remove(self, check: Check) -> int:
        number = self._places.pop(check)
        self._shares[number].discard(check)
        self._rates[number] = self._rates[number] - _rate(check) if self._shares[number] else 0.0
        return number

    def _place(self, check: Check) -> int:
        rate = _rate(check)
        least = min(range(len(self._rates)), key=self._rates.__getitem__)
        number = next((n for n, taken in enumerate(self._rates) if taken + rate <= FULL), least)
        self._places[check] = number
        self._shares[number].add(check)
        self._rates[number] += rate
        return number


def _rate(check: Check) -> float:
    """Checks a second that a process has to make for it."""
    return 0.0 if check.type == unchecked.TYPE else 1 / check.interval


def in_own_processes(bounds: Bounds) -> MakeChecking:
    """How a real node runs its checks. The daemon needs a core as well, and the machine has other things to do."""
    return partial(CheckerProcesses, bounds, min(MAX_PROCESSES, max(1, len(os.sched_getaffinity(0)) // 2)))
