"""Looks at slices of a real kernel: whatever another program changes shows, whatever we write ourselves does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from typing import Any

import pytest

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision import plan
from anycastlb.core.model import (
    Backend,
    Catalog,
    Change,
    Check,
    CheckState,
    Destination,
    DestinationKey,
    Feed,
    Inputs,
    Policy,
    Result,
    Service,
    ServiceKey,
    State,
    VirtualService,
)
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine
from anycastlb.engine.patrol import SLICE, Patrol
from anycastlb.engine.reconciler import Reconciler
from tests.support.netns import run
from tests.support.world import MemoryAnnouncer

RANGES = [ip_network("192.0.2.0/24")]
MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
WEB = ServiceKey("tcp", IPv4Address("192.0.2.10"), 80)
OTHER = ServiceKey("tcp", IPv4Address("192.0.2.11"), 80)
UP = Destination("dr", 10, 10)
REALS = [DestinationKey(WEB, IPv4Address("10.0.0.1") + n, 80) for n in range(3)]
WANTED = State(services={WEB: MH, OTHER: MH}, destinations=dict.fromkeys(REALS, UP))
TCP, FIRST = "-t 192.0.2.10:80", "-r 10.0.0.1:80"


@pytest.fixture
def driver(netns: None) -> Iterator[IpvsDriver]:
    opened = IpvsDriver(RANGES)
    yield opened
    opened.close()


async def look(driver: IpvsDriver) -> State:
    return State(**{str(table): rows for table, rows in (await driver.observe()).items()})


async def write(driver: IpvsDriver, old: State, new: State) -> None:
    assert not await driver.apply(plan.diff(old, new))


async def differs(driver: IpvsDriver) -> tuple[bool, bool]:
    return await driver.services_differ(None), await driver.destinations_differ([WEB, OTHER])


async def test_what_we_have_written_is_known_without_a_look(driver: IpvsDriver) -> None:
    await write(driver, await look(driver), WANTED)
    assert await differs(driver) == (False, False)
    down = {REALS[0]: replace(UP, weight=0), REALS[1]: replace(UP, weight=5, last_weight=5)}
    steps: Sequence[State] = (
        replace(WANTED, destinations={**WANTED.destinations, **down}),
        replace(WANTED, destinations={REALS[2]: UP, REALS[0]: UP}),
        replace(WANTED, services={OTHER: MH}, destinations={}),
        WANTED,
    )
    known = WANTED
    for wanted in steps:
        await write(driver, known, wanted)
        known = wanted
        assert await differs(driver) == (False, False)
        assert await differs(driver) == (False, False)
        assert await look(driver) == wanted
        assert await look(driver) == wanted


async def test_a_look_that_finds_nothing_new_gives_the_same_tables(driver: IpvsDriver) -> None:
    await write(driver, await look(driver), WANTED)
    first = await driver.observe()
    again = await driver.observe()
    assert all(again[table] is first[table] for table in driver.tables)


@pytest.mark.parametrize(
    "edit",
    [
        f"-e {TCP} {FIRST} -g -w 11",
        f"-e {TCP} {FIRST} -g -w 10 -x 5 -y 2",
        f"-e {TCP} {FIRST} -i -w 10",
        f"-d {TCP} {FIRST}",
        f"-a {TCP} -r 10.0.0.9:80 -g -w 10",
    ],
)
async def test_an_edited_destination_differs(driver: IpvsDriver, edit: str) -> None:
    await write(driver, await look(driver), WANTED)
    assert await differs(driver) == (False, False)
    run("ipvsadm", *edit.split())
    assert await differs(driver) == (False, True)
    assert await differs(driver) == (False, True), "it stays different until somebody looks"
    assert not await driver.destinations_differ([OTHER])
    await look(driver)
    assert await differs(driver) == (False, False)


@pytest.mark.parametrize("edit", [f"-E {TCP} -s rr", f"-E {TCP} -s mh -b mh-port", "-A -t 192.0.2.12:80 -s rr"])
async def test_an_edited_service_differs(driver: IpvsDriver, edit: str) -> None:
    await write(driver, await look(driver), WANTED)
    run("ipvsadm", *edit.split())
    assert await differs(driver) == (True, False)
    assert await driver.services_differ([WEB]) == edit.startswith("-E")
    assert not await driver.services_differ([OTHER])


async def test_a_deleted_service_differs(driver: IpvsDriver) -> None:
    await write(driver, await look(driver), WANTED)
    run("ipvsadm", "-D", *TCP.split())
    assert await differs(driver) == (True, True)
    assert await driver.services_differ([WEB])


async def test_what_somebody_else_has_in_the_kernel_does_not_count(driver: IpvsDriver) -> None:
    await write(driver, await look(driver), WANTED)
    run("ipvsadm", "-A", "-t", "203.0.113.1:80", "-s", "rr")
    assert await differs(driver) == (False, False)


async def test_after_a_failure_nothing_is_known(driver: IpvsDriver) -> None:
    await write(driver, await look(driver), WANTED)
    (failure,) = await driver.apply([Change("destinations", REALS[0], None, UP)])
    assert failure.reason.code == "exists"
    assert await driver.services_differ(None)
    assert await driver.destinations_differ([WEB])
    assert await look(driver) == WANTED
    assert await differs(driver) == (False, False)


async def test_counters_are_no_difference_and_are_read_anew(driver: IpvsDriver) -> None:
    run("ip", "address", "add", "192.0.2.10/32", "dev", "lo")
    nat = State(services={WEB: VirtualService("rr")}, destinations={REALS[0]: Destination("nat", 1, 1)})
    await write(driver, await look(driver), nat)
    first = await driver.statistics()
    assert first[REALS[0]].connections == 0 and set(first) == {WEB, REALS[0]}
    run("ip", "route", "add", "10.0.0.1/32", "dev", "lo")
    connecting = await asyncio.create_subprocess_shell(
        "exec 3<>/dev/tcp/192.0.2.10/80", executable="/bin/bash", stderr=asyncio.subprocess.DEVNULL
    )
    while not (await driver.statistics())[WEB].packets_in:  # the kernel adds up its counters every two seconds
        await asyncio.sleep(0.1)
    assert await driver.services_differ(None) is False
    assert await driver.destinations_differ([WEB]) is False
    counted = await driver.statistics()
    assert counted[REALS[0]].connections == 1
    assert counted == await IpvsDriver(RANGES).statistics()
    if connecting.returncode is None:
        connecting.kill()
    await connecting.wait()


# ---------------------------------------------------------------- with the engine


def backend(number: int, weight: int = 100) -> Backend:
    address = IPv4Address("10.0.0.1") + number
    return Backend(f"b{number}", address, 80, Check("none", address, 80, (), 2.0, 1.0, 2, 3), weight)


def catalog(*weights: int) -> Catalog:
    backends = tuple(backend(n, weight) for n, weight in enumerate(weights))
    return Catalog((Service("web", (WEB.address,), "tcp", 80, MH, backends),), index=1)


class Scene:
    """A reconciler on a real kernel, whose services are looked at in slices."""

    def __init__(self, driver: IpvsDriver) -> None:
        self.inbox = Inbox(Inputs(Policy("lb1")))
        self.journal = Journal()
        addresses = MemoryDriver(("addresses",))
        machine = Machine((addresses, driver), MemoryAnnouncer(), inspected=driver)
        self.reconciler = Reconciler(self.inbox, machine, self.journal, 5.0)

    async def put(self, *weights: int) -> None:
        wanted = catalog(*weights)
        up = CheckState(True, since=0.0, last=Result(True, "", 0.001, time.monotonic()))
        health = dict.fromkeys((backend.check for backend in wanted.services[0].backends), up)
        self.inbox.put(catalog=wanted, feed=Feed(True, loaded=True), health=health)
        await self.reconciler.cycle()

    def weights(self) -> list[int]:
        rows = self.reconciler.snapshot.actual.destinations
        return [rows[key].weight for key in sorted(rows, key=str)]


async def in_the_kernel() -> list[int]:
    fresh = IpvsDriver(RANGES)
    rows = (await fresh.observe())["destinations"]
    fresh.close()
    return [rows[key].weight for key in sorted(rows, key=str)]


async def test_a_service_that_is_about_to_be_changed_is_looked_at_first(driver: IpvsDriver) -> None:
    scene = Scene(driver)
    for _ in range(3):
        await scene.put(100, 100, 100)
    full = scene.weights()
    assert full[0] and await in_the_kernel() == full
    run("ipvsadm", "-e", *TCP.split(), *FIRST.split(), "-g", "-w", "77")
    run("ipvsadm", "-d", *TCP.split(), "-r", "10.0.0.3:80")
    await scene.put(100, 50, 100)
    wanted = scene.weights()
    assert wanted == await in_the_kernel(), "the foreign edits are gone with the change itself"
    assert wanted[0] == wanted[2] != wanted[1]
    assert not scene.reconciler.snapshot.failures
    assert not [record for record in scene.journal.records() if record.event.kind == "failure"]


async def test_a_change_of_a_service_that_nobody_has_touched_takes_no_look(driver: IpvsDriver) -> None:
    scene = Scene(driver)
    for _ in range(3):
        await scene.put(100, 100, 100)
    looks: list[Any] = []
    observed = driver.observe

    async def observe() -> Any:
        looks.append(1)
        return await observed()

    driver.observe = observe  # type: ignore[method-assign]
    await scene.put(100, 50, 100)
    assert scene.weights() == await in_the_kernel()
    assert not looks


async def test_the_patrol_wakes_where_another_program_has_edited(driver: IpvsDriver) -> None:
    keys = [ServiceKey("tcp", IPv4Address("192.0.2.1") + n, 80) for n in range(2 * SLICE + 1)]
    services = State(services=dict.fromkeys(keys, MH))
    await write(driver, await look(driver), services)
    await driver.observe()
    inbox = Inbox(Inputs(Policy("lb1")))
    inbox.stale.clear()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(Patrol(driver, inbox, lambda: keys, resync=0.5).run())
        await asyncio.sleep(1.0)
        assert not inbox.dirty.is_set()
        run("ipvsadm", "-a", "-t", f"{keys[-1].address}:80", "-r", "10.0.0.1:80", "-g", "-w", "10")
        await inbox.dirty.wait()
        running.cancel()
    assert inbox.stale == set(driver.tables)
