"""Nodes whose tables were made by different histories must send the same flow to the same backend.

Real UDP packets go through the kernel's ``mh`` in one namespace for each history; where each flow went is read from
the kernel's connection table.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.core.decision import plan
from anycastlb.core.model import Destination, DestinationKey, ServiceKey, State, VirtualService
from tests.support.netns import fresh, run

FLOWS = range(20_000, 21_500)
VIP = "192.0.2.10"
KEY = ServiceKey("udp", ip_address(VIP), 53)
MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
UP = Destination("dr", 10, 10)
NAMES = [DestinationKey(KEY, ip_address(f"10.0.0.{n}"), 53) for n in range(1, 11)]
VICTIM = NAMES[3]


def state(**weights: tuple[int, int]) -> State:
    """Ten backends up; ``v`` is the victim's weight and last weight."""
    weight, last = weights.get("v", (10, 10))
    rows = dict.fromkeys(NAMES, UP) | {VICTIM: replace(UP, weight=weight, last_weight=last)}
    return State(services={KEY: MH}, destinations=rows)


DRAINED = state(v=(0, 10))


async def settle(driver: IpvsDriver, desired: State) -> None:
    for _ in range(2):
        actual = State(**{str(table): rows for table, rows in (await driver.observe()).items()})
        assert not await driver.apply(plan.diff(actual, desired))
    actual = State(**{str(table): rows for table, rows in (await driver.observe()).items()})
    assert plan.diff(actual, desired) == ()


async def added_drained(driver: IpvsDriver) -> None:
    await settle(driver, DRAINED)


async def drained_later(driver: IpvsDriver) -> None:
    await settle(driver, state())
    await settle(driver, DRAINED)


async def ramped_then_drained(driver: IpvsDriver) -> None:
    for weight in (1, 5, 3):
        await settle(driver, state(v=(weight, weight)))
    await settle(driver, DRAINED)


async def registered_late_and_out_of_order(driver: IpvsDriver) -> None:
    full = state().destinations
    await settle(driver, State(services={KEY: MH}, destinations={name: full[name] for name in reversed(NAMES[5:])}))
    await settle(driver, DRAINED)


async def found_after_a_restart(driver: IpvsDriver) -> None:
    """Somebody added it with weight 0, and the daemon that knew its weights is gone."""
    await settle(driver, state())
    former = IpvsDriver([ip_network("192.0.2.0/24")])
    former.open()
    await settle(former, state(v=(2, 2)))
    await settle(former, state(v=(0, 2)))
    former.close()
    await settle(driver, DRAINED)


async def deleted_by_hand(driver: IpvsDriver) -> None:
    await settle(driver, DRAINED)
    run("ipvsadm", "-d", "-u", f"{VIP}:53", "-r", "10.0.0.2:53")
    await settle(driver, DRAINED)


async def service_deleted_by_hand(driver: IpvsDriver) -> None:
    await settle(driver, DRAINED)
    run("ipvsadm", "-C")
    await settle(driver, DRAINED)


async def by_hand_with_weight_zero(driver: IpvsDriver) -> None:
    """The wrong way: it looks the same, and is not."""
    run("ipvsadm", "-A", "-u", f"{VIP}:53", "-s", "mh", "-b", "mh-port,mh-fallback")
    for name in NAMES:
        run("ipvsadm", "-a", "-u", f"{VIP}:53", "-r", f"{name.address}:53", "-w", "0" if name == VICTIM else "10")


def flows() -> dict[int, str]:
    """Send a packet from each client port; which backend each was sent to. The packets end in a dummy interface."""
    for number in FLOWS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("10.0.0.254", number))
            sender.sendto(b"x", (VIP, 53))
    by_port = {}
    for line in Path("/proc/thread-self/net/ip_vs_conn").read_text().splitlines()[1:]:
        _, client, port, _, _, backend, *_ = line.split()
        assert client == "0A0000FE"
        by_port[int(port, 16)] = str(ip_address(bytes.fromhex(backend)))
    return by_port


async def route(history: Callable[[IpvsDriver], Awaitable[None]]) -> dict[int, str]:
    """Where every flow goes on a node with this history."""
    with fresh():
        for command in (
            "link add out type dummy",
            "address add 10.0.0.254/24 dev out",
            "link set out up",
            "route add default dev out",
        ):
            run("ip", *command.split())
        driver = IpvsDriver([ip_network("192.0.2.0/24")])
        driver.open()
        await history(driver)
        sent = flows()
        driver.close()
    assert set(sent) == set(FLOWS)
    return sent


HISTORIES = [
    drained_later,
    ramped_then_drained,
    registered_late_and_out_of_order,
    found_after_a_restart,
    deleted_by_hand,
    service_deleted_by_hand,
]


@pytest.mark.parametrize("history", HISTORIES)
async def test_every_history_sends_every_flow_to_the_same_backend(
    require: Callable[[str], str], history: Callable[[IpvsDriver], Awaitable[None]]
) -> None:
    require("kernel")
    reference = await route(added_drained)
    assert await route(history) == reference
    assert len(set(reference.values())) == len(NAMES) - 1


async def test_the_comparison_can_tell_two_tables_apart(require: Callable[[str], str]) -> None:
    require("kernel")
    reference, other = await route(added_drained), await route(by_hand_with_weight_zero)
    differing = sum(reference[port] != other[port] for port in FLOWS)
    assert differing > len(FLOWS) // 50


async def test_draining_moves_only_the_flows_of_the_drained(require: Callable[[str], str]) -> None:
    require("kernel")

    async def all_up(driver: IpvsDriver) -> None:
        await settle(driver, state())

    before, after = await route(all_up), await route(drained_later)
    moved = {port for port in FLOWS if before[port] != after[port]}
    assert moved == {port for port in FLOWS if before[port] == str(VICTIM.address)}
    assert moved
