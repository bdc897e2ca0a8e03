"""Run the wanted checks, and no others.

The wanted checks are a set of values: a check that stays in the set keeps running undisturbed, whatever else is
reloaded. Each check has its own times (``engine.schedule``); a slow target delays only itself (``engine.places``).
Plain checks run on the lean engine (``engine.lean_check``), all others as coroutines (``engine.coroutine_check``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from anycastlb.adapters.checks.probe.lean import Poller
from anycastlb.core.model import Check, ForwardPath
from anycastlb.engine import unchecked
from anycastlb.engine.coroutine_check import repeat
from anycastlb.engine.lean_check import LeanCheck
from anycastlb.engine.probing import Probing
from anycastlb.engine.verdicts import Course

AGAIN = 1.0
"""Seconds after which a check is run again that a fault of ours has ended."""
SLICE = 100
"""Checks that are started in one go, so that nobody else in the loop waits long."""


class Running(Protocol):
    """A check that is being run."""

    def cancel(self) -> object: ...


class Runner:
    """``probing.verdicts`` takes what the checks find."""

    def __init__(self, probing: Probing) -> None:
        self._probing = probing
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
        """Run for ever; ends all checks when cancelled."""
        poller = Poller()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(poller.run())
                while True:
                    await self._resettle.wait()
                    self._resettle.clear()
                    for check in self._running.keys() - self._wanted:
                        self._running.pop(check).cancel()
                        self._probing.verdicts.forget(check)
                    new = sorted(self._wanted - self._running.keys(), key=str)
                    for number, check in enumerate(new, 1):
                        self._running[check] = self._started(check, tasks, poller)
                        if number % SLICE == 0:
                            await asyncio.sleep(0)
        finally:
            for running in self._running.values():
                running.cancel()
            poller.close()

    def _started(self, check: Check, tasks: asyncio.TaskGroup, poller: Poller) -> Running:
        """The check is run from now on. A fault of ours in one check ends no other: it fails, and is run again."""
        try:
            if check.type == unchecked.TYPE:
                return unchecked.Unchecked(check, self._probing.verdicts, unchecked.known(self._probing.clock()))
            if exchange := self._probing.types[check.type].lean(check):
                return LeanCheck(check, exchange, self._probing, poller)
            return tasks.create_task(self._repeat(check))
        except Exception as exc:
            self._fail(check, exc)
            return asyncio.get_running_loop().call_later(AGAIN, self._start_again, check)

    async def _repeat(self, check: Check) -> None:
        while True:
            try:
                await repeat(check, self._probing)
            except Exception as exc:
                self._fail(check, exc)
            await asyncio.sleep(AGAIN)

    def _fail(self, check: Check, exc: Exception) -> None:
        verdicts = self._probing.verdicts
        try:
            verdicts.miss(Course(check), f"internal error in the check: {type(exc).__name__}: {exc}")
        except Exception:  # not even that can be told
            verdicts.broken(check, exc)

    def _start_again(self, check: Check) -> None:
        del self._running[check]
        self._resettle.set()
