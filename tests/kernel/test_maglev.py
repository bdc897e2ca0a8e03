"""The model of the ``mh`` table against the kernel: real packets, flow by flow."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.core.decision import maglev
from anycastlb.core.model import Address, Destination, DestinationKey, ServiceKey, State, VirtualService
from tests.support.netns import fresh
from tests.support.wired import settle, wire

PORTS = (maglev.FTP_DATA, *range(20_000, 23_000))
WAYS = {4: ("192.0.2.10", "10.0.0.254", "10.0.0."), 6: ("2001:db8::10", "2001:db8:1::fe", "2001:db8:1::")}
Rows = dict[DestinationKey, Destination]


def pool(key: ServiceKey, weights: list[int], prefix: str) -> Rows:
    return {
        DestinationKey(key, ip_address(f"{prefix}{number + 1}"), 53): Destination("dr", weight, weight)
        for number, weight in enumerate(weights)
    }


def lower(rows: Rows, *numbers: int) -> Rows:
    return {key: replace(row, weight=0) if number in numbers else row for number, (key, row) in enumerate(rows.items())}


@pytest.fixture
def wires(netns: None) -> None:
    wire()


def flows(vip: str, client: str) -> dict[int, Address]:
    """Send a packet from each port; where the kernel sent it. A refused one is missing."""
    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
    for port in PORTS:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.bind((client, port))
            try:
                sender.sendto(b"x", (vip, 53))
            except OSError:
                continue
    by_port: dict[int, Address] = {}
    for line in Path("/proc/thread-self/net/ip_vs_conn").read_text().splitlines()[1:]:
        _, _, port, _, _, backend, *_ = line.split()
        text = backend.strip("[]")
        by_port[int(port, 16)] = ip_address(text) if ":" in text else ip_address(bytes.fromhex(text))
    return by_port


SCENES = {
    "ten alike": ([10] * 10, ()),
    "three of different weight": ([10, 30, 70], ()),
    "weights with many bits": ([100] * 9 + [99], ()),
    "one down": ([10] * 10, (3,)),
    "two of three down": ([10, 20, 30], (0, 2)),
    "never had a weight": ([10, 0, 10], ()),
    "one": ([7], ()),
}


async def compare(vip: str, client: str, full: Rows, service: VirtualService, down: tuple[int, ...]) -> None:
    """Every flow goes where the model says, after these backends went down."""
    (key,) = {name.service for name in full}
    driver = IpvsDriver([ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")])
    driver.open()
    await settle(driver, State(services={key: service}, destinations=full))
    rows = lower(full, *down)
    await settle(driver, State(services={key: service}, destinations=rows))
    sent = flows(vip, client)
    driver.close()
    table = maglev.build(service, rows)
    expected = {port: target.address for port in PORTS if (target := table.pick(ip_address(client), port))}
    differ = {port for port in PORTS if sent.get(port) != expected.get(port)}
    assert not differ, f"{len(differ)} of {len(PORTS)} flows"


@pytest.mark.parametrize("flags", [("mh-port", "mh-fallback"), ("mh-port",)], ids=["fallback", "no fallback"])
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("family", [4, 6])
async def test_every_flow_goes_where_the_model_says(
    wires: None, family: int, scene: str, flags: tuple[str, ...]
) -> None:
    vip, client, prefix = WAYS[family]
    weights, down = SCENES[scene]
    full = pool(ServiceKey("udp", ip_address(vip), 53), weights, prefix)
    await compare(vip, client, full, VirtualService("mh", frozenset(flags)), down)


@pytest.mark.parametrize("scene", ["three of different weight", "one down"])
@pytest.mark.parametrize(("family", "backends"), [(4, 6), (6, 4)])
async def test_backends_of_the_other_family_are_in_the_model_too(
    wires: None, family: int, backends: int, scene: str
) -> None:
    vip, client, _ = WAYS[family]
    weights, down = SCENES[scene]
    rows = pool(ServiceKey("udp", ip_address(vip), 53), weights, WAYS[backends][2])
    full = {name: replace(row, forward="tunnel") for name, row in rows.items()}
    await compare(vip, client, full, VirtualService("mh", frozenset({"mh-port", "mh-fallback"})), down)


async def flows_of(history: list[State]) -> dict[int, Address]:
    """Where flows go on a fresh node with this history."""
    with fresh():
        wire()
        driver = IpvsDriver([ip_network("192.0.2.0/24")])
        driver.open()
        for state in history:
            await settle(driver, state)
        sent = flows(*WAYS[4][:2])
        driver.close()
    return sent


@pytest.mark.parametrize("change", ["one of ten dies", "an eleventh", "one of ten removed", "a weight of ten halved"])
async def test_the_share_that_moves_is_predicted_within_one_percent(require: Callable[[str], str], change: str) -> None:
    require("kernel")
    vip, _, prefix = WAYS[4]
    key, service = ServiceKey("udp", ip_address(vip), 53), VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
    full = pool(key, [10] * 10, prefix)
    victim = list(full)[random.Random(1).randrange(10)]
    after = {
        "one of ten dies": full | {victim: replace(full[victim], weight=0)},
        "an eleventh": full | pool(key, [10] * 11, prefix),
        "one of ten removed": {name: row for name, row in full.items() if name != victim},
        "a weight of ten halved": full | {victim: replace(full[victim], weight=5, last_weight=5)},
    }[change]
    before_flows = await flows_of([State(services={key: service}, destinations=full)])
    after_flows = await flows_of([State(services={key: service}, destinations=rows) for rows in (full, after)])
    measured = sum(before_flows[port] != after_flows.get(port) for port in before_flows) / len(before_flows)
    states = [State(services={key: service}, destinations=rows) for rows in (full, after)]
    predicted = maglev.moves(*states)[key]
    assert measured == pytest.approx(predicted, abs=0.01 + 2 * (predicted * (1 - predicted) / len(PORTS)) ** 0.5)
    if change == "one of ten dies":
        assert measured <= 1.3 / 10
