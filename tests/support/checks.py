"""A check, run as the prober runs it: as a coroutine, and on the lean engine if it can.

On a machine that is busy with other things this process may itself be so late that a failure proves nothing
(docs/decisions/0015). Such a check is run again, as the prober does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from anycastlb.adapters.checks import TYPES, CheckType, Exchange, Found
from anycastlb.adapters.checks.probe.lean import LeanProbe, Poller
from anycastlb.core.model import Check, Result
from anycastlb.engine.attempt import Attempt, attempt, conclude
from tests.support.waiting import begun

TRIES = 50
"""How often a check is run again."""
lean = False
"""Does the lean engine run the checks that it can run?"""


async def run(check: Check, types: Mapping[str, CheckType] = TYPES) -> Result:
    """What a check finds."""
    return (await proven(lambda: once(check, types))).result


async def proven(attempted: Callable[[], Awaitable[Attempt]]) -> Attempt:
    """The first attempt for which this process was not late."""
    for _ in range(TRIES):
        ended = await attempted()
        if ended.outcome != "late":
            return ended
    raise AssertionError(f"this process was late {TRIES} times in turn: {ended.result.detail}")


async def once(check: Check, types: Mapping[str, CheckType] = TYPES) -> Attempt:
    """What one attempt comes to."""
    if lean and (exchange := types[check.type].lean(check)):
        return await lean_attempt(check, exchange)
    return await attempt(types, check, None, time.monotonic)


async def lean_attempt(check: Check, exchange: Exchange, poller: Poller | None = None) -> Attempt:
    """With a poller of its own, unless one is given, which runs."""
    if poller is None:
        poller = Poller()
        try:
            async with begun(poller.run()):
                return await lean_attempt(check, exchange, poller)
        finally:
            poller.close()
    ended: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()

    def conclusion(outcome: Found | Exception) -> None:
        ended.set_result(conclude(check, outcome, probe.started, probe.ended, probe.lost, probe.fair))

    probe = LeanProbe(poller, check, exchange, conclusion)
    poller.call_at(0.0, lambda: probe.begin(None))
    return await ended
