"""Whatever a document asks for, the kernel comes to rest: what it shows after a plan is what was wanted.

A row that reads back otherwise than it was written would be written again in every cycle, for ever. The whole way is
ours: from the document through the catalog and ``decide`` to the driver and a real kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.decision import plan
from anycastlb.core.decision.decide import decide
from anycastlb.core.model import (
    Catalog,
    Change,
    CheckState,
    Entry,
    Failure,
    Inputs,
    Memory,
    Result,
    State,
    Tree,
)

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8:2::/64"))
MARKS = ((1, 99),)
VIP, VIP6 = "192.0.2.1", "2001:db8:2::1"
FOUR = {"a": {"address": "10.1.0.1"}, "b": {"address": "10.1.0.2"}}
SIX = {"a": {"address": "2001:db8:1::1"}, "b": {"address": "2001:db8:1::2"}}
ONE = {"address": "10.1.0.1"}


def document(backends: Any = FOUR, vip: Any = VIP, port: int | None = 80, **more: Any) -> dict[str, Any]:
    made = {"vip": vip, "port": port, "backends": backends, **more}
    return {name: value for name, value in made.items() if value is not None}


DOCUMENTS: dict[str, dict[str, Any]] = {
    "gue": document(forward="gue"),
    "gre": document(forward="gre"),
    "dr, a backend with a port": document({"a": {**ONE, "port": 8080}}, forward="dr"),
    "two ports of one address": document({"a": {**ONE, "port": 8080}, "b": {**ONE, "port": 8081}}, forward="nat"),
    "every port": document(port=0, persistence={}),
    "persistence of 1.5 s": document(persistence={"timeout": "1500ms", "netmask": "255.255.255.0"}),
    "udp": document(port=53, protocol="udp"),
    "udp, one packet, persistence": document(port=53, protocol="udp", one_packet=True, persistence={}),
    "sctp": document(protocol="sctp"),
    "fwmark": document(port=None, fwmark=7),
    "fwmark, three VIPs": document({**FOUR, "a6": SIX["a"]}, [VIP, "192.0.2.2", VIP6], None, fwmark=7),
    "v6": document(SIX, VIP6),
    "v6, persistence of networks": document(SIX, VIP6, persistence={"netmask": 64}),
    "v4 to v6": document(SIX),
    "v4 to v6, gue": document(SIX, forward="gue"),
    "v4 to v6, gre": document(SIX, forward="gre"),
    "thresholds": document({"a": {**ONE, "max_connections": 10, "min_connections": 5}}),
    "the smallest and the biggest weight": document({"a": {**ONE, "weight": 1}, "b": {**FOUR["b"], "weight": 65535}}),
    "no weight at all": document({"a": {**ONE, "weight": 0}}),
    "nat, port 0": document({"a": {**ONE, "port": 0, "check": {"type": "none"}}}, forward="nat"),
    "wrr, flags": document(scheduler="wrr", scheduler_flags=["flag-1", "flag-3"]),
    "sh, flags": document(scheduler="sh", scheduler_flags=["sh-port", "sh-fallback"]),
    "a backend that is one of our VIPs": document({"a": {"address": "192.0.2.9"}}),
    "a backend on the loopback": document({"a": {"address": "127.0.0.1"}}),
}
REFUSED: dict[str, dict[str, Any]] = {
    "gue, tunnel_port 0": document(forward="gue", tunnel_port=0),
    "gue, tunnel_port 0 of a backend": document({"a": {**ONE, "tunnel_port": 0}}, forward="gue"),
}
"""The catalog refuses them, since the kernel reads another value back."""
LINK_LOCAL = document({"a": {"address": "fe80::1"}, "b": SIX["b"]}, VIP6)


@pytest.fixture
def driver(netns: None) -> Iterator[IpvsDriver]:
    opened = IpvsDriver(RANGES, MARKS)
    yield opened
    opened.close()


def read(made: dict[str, Any]) -> Catalog:
    tree = Tree({"services/x": Entry(json.dumps(made).encode(), 1)}, 1)
    return parse_catalog(tree, Catalog(), RANGES, MARKS, PARAMS)


def wanted(catalog: Catalog, up: bool) -> State:
    """The IPVS rows that are decided while all backends are up, or all are down."""
    checks = {backend.check for service in catalog.services for backend in service.backends}
    state = CheckState(up=up, since=1.0, last=Result(up, "", 0.0, 1.0))
    inputs = Inputs(catalog=catalog, health=dict.fromkeys(checks, state))
    desired = decide(inputs, Memory(), 100.0).desired
    return State(services=desired.services, destinations=desired.destinations)


async def left(driver: IpvsDriver, desired: State) -> tuple[Change, ...]:
    """What still differs."""
    tables = await driver.observe()
    actual = State(services=tables["services"], destinations=tables["destinations"])
    return plan.diff(actual, desired)


async def cycle(driver: IpvsDriver, desired: State) -> tuple[tuple[Change, ...], list[Failure]]:
    """Apply what differs. What differs then, and what has failed."""
    failures = list(await driver.apply(await left(driver, desired)))
    return await left(driver, desired), failures


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_the_kernel_is_at_rest_after_one_cycle(driver: IpvsDriver, name: str) -> None:
    catalog = read(DOCUMENTS[name])
    assert not catalog.problems and catalog.services
    for up in (True, False, True):
        assert await cycle(driver, wanted(catalog, up)) == ((), [])


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_never_come_to_rest_is_refused_by_the_catalog(name: str) -> None:
    catalog = read(REFUSED[name])
    assert catalog.problems and not catalog.services


async def test_a_backend_that_the_kernel_refuses_fails_alone(driver: IpvsDriver) -> None:
    desired = wanted(read(LINK_LOCAL), up=True)
    (refused,) = (key for key in desired.destinations if key.address.is_link_local)
    rest = replace(desired, destinations={k: row for k, row in desired.destinations.items() if k != refused})
    for _ in range(2):
        _, failures = await cycle(driver, desired)
        assert [failure.change.key for failure in failures] == [refused]
        assert await left(driver, rest) == ()
