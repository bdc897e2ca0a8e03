"""Run one check of any type as a coroutine, probe after probe."""

from __future__ import annotations

import asyncio

from anycastlb.core.model import Check
from anycastlb.engine.attempt import Attempt, attempt
from anycastlb.engine.probing import Probing
from anycastlb.engine.schedule import Schedule
from anycastlb.engine.verdicts import Course


async def repeat(check: Check, probing: Probing) -> None:
    """Probe for ever; ends when cancelled."""
    schedule, course = Schedule(check, probing.chance, probing.clock()), Course(check)
    while True:
        await asyncio.sleep(schedule.due - probing.clock())
        ended = await _probe(course, probing)
        schedule.advance(course.state, ended, probing.clock())
        if schedule.may_be_stirred(course.state):
            await _wait(course, probing, schedule)


async def _probe(course: Course, probing: Probing) -> Attempt | None:
    """Run one probe and fold what it proves; None if this node could not send it."""
    check, probe_path = course.check, None
    if check.via is not None:
        marked = asyncio.Event()
        while not probing.ready(check, marked.set):
            await marked.wait()
            marked.clear()
        probe_path = probing.path(course, check.via)
        if probe_path is None:
            return None
    async with probing.places.take(course.habit):
        ended = await attempt(probing.types, check, probe_path, probing.clock)
    probing.verdicts.conclude(course, ended)
    return ended


async def _wait(course: Course, probing: Probing, schedule: Schedule) -> None:
    """Wait until the target is due, or until another one of its kind is answered again."""
    stirred = asyncio.Event()
    cancel = probing.verdicts.on_stir(course, stirred.set)
    try:
        async with asyncio.timeout(schedule.due - probing.clock()):
            await stirred.wait()
    except TimeoutError:
        return
    finally:
        cancel()
    schedule.stir(probing.clock())
