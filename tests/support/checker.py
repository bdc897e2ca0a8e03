"""A real checker process, and what it has reported."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from anycastlb.adapters.checks import TYPES
from anycastlb.adapters.system.clock import SYSTEM
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, Health
from anycastlb.engine.checker.processes import CheckerProcesses
from anycastlb.engine.checker.protocol import Bounds
from anycastlb.engine.observer import NOBODY
from anycastlb.settings import ChecksSettings

CHECK = Check("http", ip_address("127.0.0.1"), 80, TYPES["http"].params(), 0.2, 0.5, 1, 2)


class Scene:
    def __init__(self, limit: int = 1, **settings: Any) -> None:
        self.states: list[Health] = []
        self.journal = Journal()
        self.checker = CheckerProcesses(
            Bounds(ChecksSettings(**settings)),
            limit,
            lambda health, turned: self.states.append(health),
            self.journal,
            SYSTEM,
            NOBODY,
        )

    async def until(self, check: Check, up: bool | None) -> None:
        while not self.states or check not in self.states[-1] or self.states[-1][check].up is not up:
            await asyncio.sleep(0.01)

    async def fresh(self, check: Check) -> None:
        """Another result of the check has come."""
        now = time.monotonic()
        while not (state := self.states[-1].get(check)) or state.last is None or state.last.at < now:
            await asyncio.sleep(0.01)

    async def process(self) -> int:
        """The first process that there is."""
        while not (found := self.processes()):
            await asyncio.sleep(0.01)
        return found[0]

    def processes(self) -> list[int]:
        kept = []
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            with suppress(OSError):  # it may have just ended
                if b"anycastlb.engine.checker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    kept.append(int(child))
        return kept

    def complaints(self) -> list[str]:
        return [record.event.reason for record in self.journal.records() if record.event.subject == "checker process"]


@asynccontextmanager
async def scene(*checks: Check, limit: int = 1, **settings: Any) -> AsyncIterator[Scene]:
    made = Scene(limit, **settings)
    async with asyncio.timeout(600), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.checker.run())
        made.checker.want(checks)
        yield made
        running.cancel()
