"""What IPVS schedules and counts, and what it does not, where that is not what its table says: seen on the kernel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.adapters.drivers.sysctls import TAKEOVER
from anycastlb.core.decision import maglev
from anycastlb.core.model import Destination, DestinationKey, ServiceKey, State, VirtualService
from tests.support.waiting import PATIENCE
from tests.support.wired import settle, wire

VIP, CLIENT = "192.0.2.10", "10.0.0.254"
MARK = 100
RUN_ESTIMATION = Path("/proc/sys/net/ipv4/vs/run_estimation")


@pytest.fixture
def driver(netns: None) -> Iterator[IpvsDriver]:
    wire()
    driver = IpvsDriver([ip_network("192.0.2.0/24")], ((MARK, MARK),))
    driver.open()
    yield driver
    driver.close()


def served(protocol: str, port: int, virtual: VirtualService, **row: int) -> State:
    address = "0.0.0.0" if protocol == "fwmark" else VIP
    key = ServiceKey(protocol, ip_address(address), port)
    rows = {DestinationKey(key, ip_address(f"10.0.0.{n}"), port): Destination("dr", 1, 1, **row) for n in (1, 2)}
    return State(services={key: virtual}, destinations=rows)


def sends(kind: int, port: int, source: int, mark: int = 0) -> None:
    with socket.socket(socket.AF_INET, kind) as client:
        if mark:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((CLIENT, source))
        with suppress(OSError):
            client.connect((VIP, port))
            client.send(b"x")


def connections() -> list[tuple[int, int]]:
    """(client's port, VIP's port) of every connection that IPVS has made, templates of persistence aside."""
    rows = [line.split() for line in Path("/proc/thread-self/net/ip_vs_conn").read_text().splitlines()[1:]]
    return [(int(row[2], 16), int(row[4], 16)) for row in rows if row[2] != "0000"]


MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
HELD = VirtualService("mh", frozenset({"mh-port"}), persistence=60)
UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
WAYS = {
    "mh": ("udp", 53, MH, UDP),
    "tcp": ("tcp", 80, MH, TCP),
    "rr": ("udp", 53, VirtualService("rr"), UDP),
    "persistence": ("udp", 53, HELD, UDP),
    "firewall mark": ("fwmark", MARK, MH, UDP),
}


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_scheduled_from_the_port_of_ftp_data(driver: IpvsDriver, way: str) -> None:
    protocol, port, virtual, kind = WAYS[way]
    await settle(driver, served(protocol, port, virtual))
    mark = port if protocol == "fwmark" else 0
    for source in (maglev.FTP_DATA, 5001):
        sends(kind, 53 if mark else port, source, mark)
    assert [source for source, _ in connections()] == [5001]


@pytest.mark.parametrize(("virtual", "taken"), [(HELD, [20, 21, 5000]), (MH, [21])], ids=["persistence", "plain"])
async def test_a_persistent_service_of_ftp_takes_the_ports_of_its_data(
    driver: IpvsDriver, virtual: VirtualService, taken: list[int]
) -> None:
    await settle(driver, served("tcp", 21, virtual))
    for number, port in enumerate((20, 21, 80, 1023, 5000)):
        sends(TCP, port, 6000 + number)
    assert sorted(port for _, port in connections()) == taken


async def test_a_full_backend_gets_no_flow_that_the_model_sends_it(driver: IpvsDriver) -> None:
    state = served("udp", 53, MH, upper=2, lower=1)
    await settle(driver, state)
    for source in range(7000, 7010):
        sends(UDP, 53, source)
    table = maglev.build(MH, state.destinations)
    assert all(table.pick(ip_address(CLIENT), source) for source in range(7000, 7010))
    assert 2 <= len(connections()) < 10


async def test_nothing_is_counted_without_estimation(driver: IpvsDriver) -> None:
    """So a node that leaves would think that nothing comes any more: it sets ``run_estimation``."""
    assert TAKEOVER["net/ipv4/vs/run_estimation"] == "1"
    RUN_ESTIMATION.write_text("0")  # before there is a service, so that the kernel has begun nothing
    state = served("udp", 53, MH)
    await settle(driver, state)
    (key,) = state.services
    sends(UDP, 53, 8000)
    for _ in range(25):  # the kernel adds up its counters every two seconds
        assert not (await driver.statistics())[key].packets_in
        await asyncio.sleep(0.1)
    RUN_ESTIMATION.write_text("1")
    async with asyncio.timeout(PATIENCE):
        while not (await driver.statistics())[key].packets_in:
            await asyncio.sleep(0.1)
