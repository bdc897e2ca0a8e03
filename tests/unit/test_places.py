"""Places for probes: who hangs takes no place from who is answered."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.adapters.checks import CheckType, Down, Found, tcp
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, Health, ProbePath
from anycastlb.engine.places import Habit, Places
from anycastlb.engine.prober import Prober

pytestmark = pytest.mark.virtual_time
CHECK = Check("tcp", ip_address("10.1.0.1"), 80, "", 1.0, 0.5, 2, 3)


async def fill(places: Places, habit: Habit, count: int) -> list[asyncio.Task[None]]:
    async def hold() -> None:
        async with places.take(habit):
            await asyncio.sleep(3600)

    tasks = [asyncio.ensure_future(hold()) for _ in range(count)]  # noqa: TID251
    await asyncio.sleep(0)
    return tasks


async def test_each_habit_has_its_share_and_gives_it_back() -> None:
    places = Places(100)
    tasks = await fill(places, "hanging", 80)
    assert (places.taken, places.waiting) == (50, 30)
    tasks += await fill(places, "untried", 80)
    assert (places.taken, places.waiting) == (75, 85)
    tasks += await fill(places, "answered", 80)
    assert (places.taken, places.waiting) == (100, 140)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (places.taken, places.waiting) == (0, 0)
    assert len(await fill(places, "hanging", 50)) == places.taken == 50, "whoever was cancelled has left its place"


async def detection(hanging: int, timeout: float) -> float:
    """Seconds until the death of a backend is noticed beside so many that hang."""
    loop, dead = asyncio.get_running_loop(), set[int]()
    states: list[Health] = []

    async def probe(check: Check, probe_path: ProbePath | None) -> Found:
        if check.port == 443:
            await asyncio.sleep(3600)
        await asyncio.sleep(0.001)
        if int(check.address) in dead:
            raise Down("refused")
        return Found("fine")

    prober = Prober(
        {"tcp": CheckType(tcp.Params, probe)}, lambda health, turned: states.append(health), Journal(), Clock(loop.time)
    )
    good = [replace(CHECK, address=ip_address("10.1.0.0") + n) for n in range(20)]
    bad = [replace(CHECK, address=ip_address("10.2.0.0") + n, port=443, timeout=timeout) for n in range(hanging)]
    running = asyncio.ensure_future(prober.run())  # noqa: TID251
    prober.want(good)
    await asyncio.sleep(5)
    prober.want(good + bad)
    worst = 0.0
    for victim, later in ((good[0], 0), (good[1], 20)):
        await asyncio.sleep(later)  # while all that hang are tried for the first time, and for the third or fourth
        dead.add(int(victim.address))
        died = loop.time()
        while states[-1][victim].up:
            await asyncio.sleep(0.01)
        worst = max(worst, loop.time() - died)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return worst


@pytest.mark.parametrize(("hanging", "timeout"), [(0, 5.0), (1100, 5.0), (3000, 5.0)])
async def test_backends_that_hang_delay_no_other_check(hanging: int, timeout: float) -> None:
    promised = CHECK.interval * CHECK.fall + CHECK.timeout
    assert await detection(hanging, timeout) <= promised
