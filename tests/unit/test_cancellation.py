"""A task that is cancelled ends, whatever the library does that it waits in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

import anycastlb
from anycastlb.adapters.system.cancellation import cancellable

PRODUCT = Path(anycastlb.__file__).parent


async def lost() -> int:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return 1
    return 2


async def turned() -> int:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError as exc:
        raise OSError("no answer") from exc
    return 2


@pytest.mark.parametrize("library", [lost, turned])
async def test_a_cancellation_that_is_lost_counts(library: Callable[[], Coroutine[None, None, int]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(cancellable(library()))
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


async def test_a_time_out_is_one_and_what_is_not_cancelled_returns() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await cancellable(lost())
    assert await cancellable(asyncio.sleep(0, 3)) == 3


def test_nothing_waits_in_dnspython_or_by_wait_for_without_it() -> None:
    waits = re.compile(r"await (?!cancellable\().*(resolver\.resolve\(|asyncquery\.|wait_for\()")
    found = {
        str(path.relative_to(PRODUCT)): line.strip()
        for path in PRODUCT.rglob("*.py")
        for line in path.read_text().splitlines()
        if waits.search(line)
    }
    assert not found
