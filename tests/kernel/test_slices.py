"""Looks at slices of a real kernel: whatever another program changes shows, whatever we write ourselves does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision import plan
from anycastlb.core.model import (
    Address,
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


FOUR, SIX = IPv4Address("10.0.0.1"), IPv6Address("2001:db8:1::1")
KINDS: dict[ServiceKey, tuple[VirtualService, list[Address]]] = {
    WEB: (MH, [FOUR, FOUR + 1]),
    ServiceKey("udp", IPv4Address("192.0.2.10"), 53): (VirtualService("wrr", one_packet=True), [FOUR]),
    ServiceKey("sctp", IPv4Address("192.0.2.10"), 80): (VirtualService("rr", persistence=60), [FOUR]),
    ServiceKey("tcp", IPv6Address("2001:db8::10"), 80): (VirtualService("rr"), [SIX]),
    ServiceKey("fwmark", IPv4Address("0.0.0.0"), 10): (VirtualService("rr"), [FOUR]),
    ServiceKey("fwmark", IPv6Address("::"), 10): (VirtualService("rr"), [SIX]),
    OTHER: (MH, []),
}


async def settled(driver: IpvsDriver, keys: Sequence[ServiceKey]) -> None:
    """Every one of them is looked at once, and then looks as it did."""
    assert list(await driver.suspects(keys)) == list(keys)
    assert not await driver.destinations_differ(keys)
    assert not await driver.suspects(keys)


async def test_a_service_of_any_kind_is_known_again_at_a_glance(netns: None) -> None:
    driver = IpvsDriver([*RANGES, ip_network("2001:db8::/64")], [(10, 10)])
    rows = {
        DestinationKey(key, real, 80 if key.protocol == "fwmark" else key.port): UP
        for key, (_, reals) in KINDS.items()
        for real in reals
    }
    wanted = State(services={key: virtual for key, (virtual, _) in KINDS.items()}, destinations=rows)
    await write(driver, await look(driver), wanted)
    await settled(driver, list(KINDS))
    run("ipvsadm", "-e", "-f", "10", "-6", "-r", "[2001:db8:1::1]:80", "-g", "-w", "11")
    of_the_mark = [key for key in KINDS if key.protocol == "fwmark"]
    assert list(await driver.suspects(list(KINDS))) == of_the_mark, "the kernel shows both under one name"
    assert not await driver.destinations_differ(of_the_mark[:1])
    assert await driver.destinations_differ(of_the_mark[1:])
    driver.close()


@pytest.mark.parametrize(
    "edit",
    [
        f"-e {TCP} {FIRST} -g -w 11",
        f"-e {TCP} {FIRST} -i -w 10",
        f"-d {TCP} {FIRST}",
        f"-a {TCP} -r 10.0.0.9:80 -g -w 10",
        f"-D {TCP}",
    ],
)
async def test_an_edited_service_is_a_suspect_until_it_is_as_it_was(driver: IpvsDriver, edit: str) -> None:
    await write(driver, await look(driver), WANTED)
    await settled(driver, [WEB, OTHER])
    run("ipvsadm", *edit.split())
    assert await driver.suspects([WEB, OTHER]) == [WEB]
    assert await driver.destinations_differ([WEB])
    assert await driver.suspects([WEB, OTHER]) == [WEB], "it stays one until somebody has put it right"
    await write(driver, await look(driver), WANTED)
    assert WEB in await driver.suspects([WEB, OTHER])
    assert not await driver.destinations_differ([WEB, OTHER])
    assert not await driver.suspects([WEB, OTHER])


async def test_what_we_write_is_looked_at_once_more(driver: IpvsDriver) -> None:
    await write(driver, await look(driver), WANTED)
    await settled(driver, [WEB, OTHER])
    less = replace(WANTED, destinations={**WANTED.destinations, REALS[0]: replace(UP, weight=5, last_weight=5)})
    await write(driver, WANTED, less)
    assert await driver.suspects([WEB, OTHER]) == [WEB]
    assert not await driver.destinations_differ([WEB])
    assert not await driver.suspects([WEB, OTHER])


async def test_what_the_text_does_not_show_is_always_looked_at(driver: IpvsDriver) -> None:
    bounded = replace(WANTED, destinations={**WANTED.destinations, REALS[0]: replace(UP, upper=9)})
    await write(driver, await look(driver), bounded)
    assert not await driver.destinations_differ([WEB, OTHER])
    assert await driver.suspects([WEB, OTHER]) == [WEB, OTHER]
    assert not await driver.destinations_differ([WEB, OTHER])
    assert await driver.suspects([WEB, OTHER]) == [WEB]


async def test_where_the_kernel_shows_no_text_every_service_is_a_suspect(driver: IpvsDriver) -> None:
    await write(driver, await look(driver), WANTED)
    await settled(driver, [WEB, OTHER])
    driver.close()
    assert await driver.suspects([WEB, OTHER]) == [WEB, OTHER]


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
    await settled(driver, [WEB])
    first = await driver.statistics()
    assert first[REALS[0]].connections == 0 and set(first) == {WEB, REALS[0]}
    run("ip", "route", "add", "10.0.0.1/32", "dev", "lo")
    connecting = await asyncio.create_subprocess_shell(
        "exec 3<>/dev/tcp/192.0.2.10/80", executable="/bin/bash", stderr=asyncio.subprocess.DEVNULL
    )
    while not (await driver.statistics())[WEB].packets_in:  # the kernel adds up its counters every two seconds
        await asyncio.sleep(0.1)
    assert await driver.suspects([WEB]) == []
    assert await driver.services_differ(None) is False
    assert await driver.destinations_differ([WEB]) is False
    counted = await driver.statistics()
    assert counted[REALS[0]].connections == 1
    assert counted == await IpvsDriver(RANGES).statistics()
    if connecting.returncode is None:
        connecting.kill()
    await connecting.wait()


async def test_counters_of_services_without_traffic_follow_what_is_written(driver: IpvsDriver) -> None:
    await write(driver, await look(driver), WANTED)
    await look(driver)
    for _ in range(2):
        assert set(await driver.statistics()) == {WEB, OTHER, *REALS}
    less = replace(WANTED, destinations={REALS[0]: UP, REALS[2]: replace(UP, weight=5, last_weight=5)})
    await write(driver, WANTED, less)
    for _ in range(2):
        assert set(await driver.statistics()) == {WEB, OTHER, REALS[0], REALS[2]}
        assert not await driver.destinations_differ([WEB, OTHER])
    await write(driver, less, WANTED)
    assert set(await driver.statistics()) == {WEB, OTHER, *REALS}


async def test_counters_follow_what_a_look_has_found_of_another_programs_edit(driver: IpvsDriver) -> None:
    await write(driver, await look(driver), WANTED)
    await look(driver)
    await driver.statistics()
    run("ipvsadm", "-d", *TCP.split(), *FIRST.split())
    assert await driver.destinations_differ([WEB])
    await look(driver)
    assert set(await driver.statistics()) == {WEB, OTHER, *REALS[1:]}


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
