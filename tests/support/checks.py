"""A check, run once: as a coroutine, and on the lean engine if it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from anycastlb.adapters.checks import TYPES, CheckType, Exchange, Found
from anycastlb.adapters.checks.probe.lean import LeanProbe, Poller
from anycastlb.core.model import Check, Result
from anycastlb.engine.attempt import Attempt, attempt, conclude

lean = False
"""Does the lean engine run the checks that it can run?"""


async def run(check: Check, types: Mapping[str, CheckType] = TYPES) -> Result:
    """One check as the prober runs it."""
    if lean and (exchange := types[check.type].lean(check)):
        return (await lean_attempt(check, exchange)).result
    return (await attempt(types, check, None, time.monotonic)).result


async def lean_attempt(check: Check, exchange: Exchange) -> Attempt:
    poller, ended = Poller(), asyncio.get_running_loop().create_future()

    def conclusion(outcome: Found | Exception) -> None:
        ended.set_result(conclude(check, outcome, probe.started, probe.ended, probe.lost, probe.fair))

    probe = LeanProbe(poller, check, exchange, conclusion)
    poller.call_at(0.0, lambda: probe.begin(None))
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(poller.run())
            result: Attempt = await ended
            running.cancel()
        return result
    finally:
        poller.close()
