"""The address driver on a real kernel: what is ours carries our mark, what is not stays as it is."""

from __future__ import annotations

import asyncio
import os
from ipaddress import ip_address

import pytest

from anycastlb.adapters.drivers.addresses import AddressDriver
from anycastlb.core.model import Change, DriverError, VipAddress
from tests.lab.harm import no_descriptors
from tests.support.netns import run

VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
ROW = VipAddress()
pytestmark = pytest.mark.usefixtures("netns")


def put(*vips: str) -> list[Change]:
    return [Change("addresses", ip_address(vip), None, ROW) for vip in vips]


def take(*vips: str) -> list[Change]:
    return [Change("addresses", ip_address(vip), ROW, None) for vip in vips]


async def test_a_vip_is_a_labelled_host_address_usable_at_once() -> None:
    assert not await AddressDriver().apply(put("192.0.2.10", "2001:db8::10"))
    shown = run("ip", "-o", "address", "show", "dev", "lo", "label", "lo:alb")
    assert "192.0.2.10/32" in shown
    shown = run("ip", "-o", "-6", "address", "show", "dev", "lo", "to", "2001:db8::10")
    assert "2001:db8::10/128" in shown
    assert "nodad" in shown and "tentative" not in shown
    assert (await AddressDriver().observe())["addresses"] == {VIP4: ROW, VIP6: ROW}


@pytest.mark.parametrize("vip", ["192.0.2.10", "2001:db8::10"])
async def test_an_address_without_our_mark_is_left_alone(vip: str) -> None:
    width = ip_address(vip).max_prefixlen
    run("ip", "address", "add", f"{vip}/{width}", "dev", "lo")
    driver = AddressDriver()
    before = run("ip", "address", "show", "dev", "lo")
    assert (await driver.observe())["addresses"] == {}
    (failure,) = await driver.apply(put(vip))
    assert "without our mark" in failure.reason.text
    mend = failure.reason.text.split("remove it: ")[1]
    (failure,) = await driver.apply(take(vip))
    assert "nothing was deleted" in failure.reason.text
    assert run("ip", "address", "show", "dev", "lo") == before
    run(*mend.split())
    assert not await driver.apply(put(vip))


async def test_only_host_addresses_on_our_interface_are_ours() -> None:
    run("ip", "link", "add", "other", "type", "dummy")
    assert not await AddressDriver("other").apply([Change("addresses", VIP4, None, VipAddress("other"))])
    assert (await AddressDriver().observe())["addresses"] == {}
    assert (await AddressDriver("other").observe())["addresses"] == {VIP4: VipAddress("other")}


async def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(DriverError, match="no interface nosuch"):
        await AddressDriver("nosuch").observe()
    with pytest.raises(DriverError, match="no interface nosuch"):
        await AddressDriver("nosuch").apply(put("192.0.2.10"))


async def test_a_process_that_can_open_nothing_more_takes_no_interface_for_gone() -> None:
    with no_descriptors(os.getpid), pytest.raises(DriverError, match="Too many open files"):
        await AddressDriver().observe()


async def test_ipv6_disabled_says_how_to_enable_it() -> None:
    run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1")
    (failure,) = await AddressDriver().apply(put("2001:db8::10", "192.0.2.10"))
    assert failure.change.key == VIP6
    assert "sysctl -w net/ipv6/conf/lo/disable_ipv6=0" in failure.reason.text
    assert set((await AddressDriver().observe())["addresses"]) == {VIP4}


async def test_a_thousand_addresses() -> None:
    vips = [f"10.1.{n // 250}.{n % 250}" for n in range(1000)]
    driver, changes = AddressDriver(), put(*vips)
    assert not await driver.apply(changes)
    seen = (await driver.observe())["addresses"]
    assert set(seen) == {ip_address(vip) for vip in vips}
    assert {id(vip) for vip in seen} == {id(change.key) for change in changes}, "so that they are compared by identity"
    assert (await driver.observe())["addresses"] is seen
    assert not await driver.apply(take(*vips))
    assert (await driver.observe())["addresses"] == {} and len(seen) == len(vips)


@pytest.mark.parametrize("family", [4, 6])
async def test_watching_wakes_when_a_vip_is_deleted_by_hand(family: int) -> None:
    vip = VIP4 if family == 4 else VIP6
    driver = AddressDriver()
    await driver.apply(put(str(vip)))
    woken = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(driver.watch(woken.set))
        await _quiet(woken)  # the kernel tells of a new IPv6 address a second time, once it is checked for duplicates
        run("ip", "link", "add", "other", "type", "dummy")
        run("ip", "address", "add", "10.7.7.7/32", "dev", "other")
        await asyncio.sleep(0.1)
        assert not woken.is_set()
        run("ip", "address", "del", f"{vip}/{vip.max_prefixlen}", "dev", "lo")
        async with asyncio.timeout(600):
            await woken.wait()
        watching.cancel()


async def _quiet(woken: asyncio.Event, still: float = 0.3) -> None:
    """Until nothing has woken for ``still`` seconds."""
    async with asyncio.timeout(600):
        while True:
            woken.clear()
            await asyncio.sleep(still)
            if not woken.is_set():
                return


async def test_watching_survives_lost_notifications() -> None:
    woken = asyncio.Event()
    driver = AddressDriver()
    async with asyncio.TaskGroup() as group, asyncio.timeout(600):
        watching = group.create_task(driver.watch(woken.set))
        await asyncio.sleep(0.1)
        lines = [f"address {verb} 10.5.{n // 200}.{n % 200}/32 dev lo" for verb in ("add", "del") for n in range(2000)]
        run("ip", "-batch", "-", stdin="\n".join(lines))  # the loop is blocked meanwhile: the buffer overruns
        await woken.wait()
        await _quiet(woken)
        assert not watching.done()
        run("ip", "address", "add", "10.6.6.6/32", "dev", "lo")
        await woken.wait()
        watching.cancel()


async def test_a_process_that_can_open_nothing_more_goes_on_with_what_it_has() -> None:
    driver = AddressDriver()
    assert not await driver.apply(put("192.0.2.10"))
    with no_descriptors(os.getpid):
        assert (await driver.observe())["addresses"] == {VIP4: ROW}
        assert not await driver.apply(take("192.0.2.10"))
    assert (await driver.observe())["addresses"] == {}


async def test_an_interface_that_comes_back_is_seen_again() -> None:
    run("ip", "link", "add", "other", "type", "dummy")
    driver = AddressDriver("other")
    row = VipAddress("other")
    assert not await driver.apply([Change("addresses", VIP4, None, row)])
    run("ip", "link", "del", "other")
    with pytest.raises(DriverError, match="no interface other"):
        await driver.observe()
    run("ip", "link", "add", "other", "type", "dummy")
    assert not await driver.apply([Change("addresses", VIP4, None, row)])
    assert (await driver.observe())["addresses"] == {VIP4: row}
