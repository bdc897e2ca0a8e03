"""Another program edits IPVS services of its own while ours are looked at: its dumps skip rows, and no route goes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

from anycastlb import settings
from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.core.model import Change, Rows, ServiceKey, State, VirtualService
from anycastlb.engine.observation import observe
from tests.support.waiting import eventually
from tests.support.world import World

OURS = FOREIGN = 300
LOOKS, SHORT = 60, 10
"""How many looks there must be, and how many of them incomplete."""
MANY = 2000
"""Looks after which one should have been incomplete."""
RANGE = ip_network("10.128.0.0/9")


@contextmanager
def other_program() -> Iterator[None]:
    argv = [sys.executable, "-m", "tests.support.foreign_ipvs", str(FOREIGN)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline(), "it ended at once"
        yield
    finally:
        process.kill()
        process.wait()


class CountingDriver(IpvsDriver):
    """Counts its looks, those that were without some of the services that exist, and the rows they were without."""

    def __init__(self) -> None:
        super().__init__([RANGE])
        self.looks = self.short = self.skipped = 0

    @property
    def enough(self) -> bool:
        """Has it looked often enough, and seen that a look can skip rows?"""
        assert self.short or self.looks < MANY, "this kernel's dumps skip nothing: the scene proves nothing"
        return self.looks >= LOOKS and self.short >= SHORT

    async def observe(self):  # type: ignore[no-untyped-def]
        tables = await super().observe()
        self.looks += 1
        skipped = OURS - len(tables["services"])
        self.short += skipped > 0
        self.skipped += skipped
        return tables


async def test_what_a_dump_skips_is_not_lost(netns: None) -> None:
    driver = CountingDriver()
    services: Rows = {ServiceKey("tcp", ip_address("10.128.0.0") + n, 80): VirtualService("rr") for n in range(OURS)}
    assert not await driver.apply([Change("services", key, None, row) for key, row in services.items()])
    known, lost = State(services=services), 0
    with other_program():
        while not driver.enough:
            seen = await observe([driver], known)
            lost += OURS - len(seen.state.services)
    print(f"{driver.looks} looks, {driver.short} incomplete; rows skipped: {driver.skipped}; twice in a row: {lost}")
    assert lost <= max(2, driver.skipped / 10), "believed only if two looks in a row skip the same row"
    driver.close()


async def test_no_route_is_withdrawn_while_another_program_edits_its_services(netns: None, tmp_path: Path) -> None:
    """The whole node with the real driver; addresses, routes and backends are fakes."""
    world = World(str(tmp_path))
    world.settings = settings.parse(
        f'[node]\nname = "lb1"\nvip_ranges = ["{RANGE}"]\nresync = "1s"\nstate_dir = "{tmp_path}"\n'
    )
    driver = CountingDriver()
    driver.open()
    world.kernel, world.more_drivers = MemoryDriver(("addresses",)), (driver,)
    document = {
        "port": 80,
        "scheduler": "rr",
        "check": {"type": "none"},
        "backends": {"a": {"address": "10.1.0.1"}, "b": {"address": "10.1.0.2"}},
    }
    for n in range(OURS):
        world.put(f"services/s{n}", {"vip": str(ip_address("10.128.0.0") + n), **document})
    async with world.node() as node:
        await eventually(lambda: len(world.announced) == OURS)
        world.forget()
        with other_program():
            while not driver.enough:
                node.inbox.wake()
                await asyncio.sleep(0.05)
        print(f"{driver.looks} looks, {driver.short} of them incomplete; routes written: {len(world.router.writes)}")
        assert world.router.writes == []
        assert not [r for r in node.journal.records() if r.event.kind == "gate" and r.event.after == "closed"]
    driver.close()
