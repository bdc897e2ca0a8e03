"""Do checks leave anything behind? Runs many of one case and looks at what the process holds after each third.

The checks go through the prober, as in the daemon, against a good server and bad ones. Used by the contract suite for
some thousands of checks of each case, and by ``python -m tests.soak`` for as many as wanted.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from anycastlb.core.model import Check
from tests.contract.cases import Case
from tests.support.checks import once, run
from tests.support.servers import BAD

ABREAST = 25
BADS = {
    "tcp": ("refused", "closing", "garbage", "silent", "half-closing"),
    "udp": ("refused", "garbage", "black-holed"),
}
SHORT = 0.03
"""Time-out against the servers that never answer, in seconds."""


@dataclass(frozen=True)
class Footprint:
    """What the process holds."""

    files: int
    tasks: int
    blocks: int
    """Memory blocks of the interpreter."""
    resident: int
    """KiB."""

    def __str__(self) -> str:
        return f"{self.files} files, {self.tasks} tasks, {self.blocks} blocks, {self.resident} KiB"


async def footprint() -> Footprint:
    before = -1
    for _ in range(20):  # servers that are still closing
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        if files == before:
            break
        before = files
        await asyncio.sleep(0.05)
    gc.collect()
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Footprint(
        files, len(asyncio.all_tasks()), sys.getallocatedblocks(), pages * os.sysconf("SC_PAGE_SIZE") // 1024
    )


def grown(prints: Sequence[Footprint], checks: int) -> list[str]:
    """What grew from the first third to the last; ``checks`` are those of a third.

    One socket or task left behind by any check is found. Memory that checks leave behind grows in every third: what
    grows in one of them only is somebody's cache.
    """
    first, last = prints[0], prints[-1]
    thirds = list(pairwise(prints))
    kept = []
    if last.files > first.files:
        kept.append(f"open files from {first.files} to {last.files}")
    if last.tasks > first.tasks:
        kept.append(f"tasks from {first.tasks} to {last.tasks}")
    if min(after.blocks - before.blocks for before, after in thirds) > 150 + checks // 5:
        kept.append(f"memory blocks from {first.blocks} to {last.blocks}")
    if min(after.resident - before.resident for before, after in thirds) > 4096 + 2 * checks // 5:
        kept.append(f"resident memory from {first.resident} to {last.resident} KiB")
    return kept


async def soak(case: Case, checks: int) -> list[Footprint]:
    """Runs ``checks`` checks after a warm-up, half of them good; what the process held after each third."""
    async with AsyncExitStack() as stack:
        patience = 4 * SHORT if case.unheard else 5.0  # what hears nothing waits for nothing
        good = case.check(await stack.enter_async_context(case.good("127.0.0.1")), timeout=patience)
        turns: list[Check] = []
        for name in BADS[case.transport]:
            port = await stack.enter_async_context(BAD[case.transport][name]("127.0.0.1", case.tls and case.tls()))
            turns += [good, case.check(port, timeout=SHORT)]

        async def some(count: int) -> None:
            left = iter(range(count))

            async def worker() -> None:
                for number in left:
                    check = turns[number % len(turns)]
                    if check is good:
                        result = await run(check)
                        assert result.ok, f"{case.name}: {result.detail}"
                    else:
                        await once(check)  # with so many abreast a busy machine may be late for every one

            await asyncio.gather(*(worker() for _ in range(ABREAST)))

        await some(max(100, checks // 6))
        prints = []
        for _ in range(3):
            await some(checks // 3)
            prints.append(await footprint())
        return prints
