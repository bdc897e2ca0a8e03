"""What every driver owes the reconciler: one suite for the drivers in memory and the ones that write to a kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anycastlb.adapters.drivers import Driver
from anycastlb.adapters.drivers.addresses import AddressDriver
from anycastlb.adapters.drivers.ipvs.config import ConfigDriver
from anycastlb.adapters.drivers.ipvs.driver import IpvsDriver
from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.drivers.sysctls import TAKEOVER, SysctlDriver
from anycastlb.core.decision import plan
from anycastlb.core.model import (
    Change,
    Destination,
    DestinationKey,
    Failure,
    Protocol,
    ServiceKey,
    State,
    SyncDaemon,
    VipAddress,
    VirtualService,
)
from anycastlb.engine.observation import observe
from tests.support.netns import fresh

RANGES = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")]
MARKS = [(100, 199)]
MH = VirtualService("mh", frozenset({"mh-port", "mh-fallback"}))
UP = Destination("dr", 10, 10)
DEFAULT = {"tcp_timeout": 900, "tcpfin_timeout": 120, "udp_timeout": 300}
"""A kernel's."""


@dataclass
class Machine:
    """The drivers of one machine."""

    ipvs: Driver
    addresses: Driver
    sysctls: Driver
    config: Driver


@pytest.fixture(params=["memory", "kernel"])
def machine(request: pytest.FixtureRequest, require: Callable[[str], str]) -> Iterator[Machine]:
    if request.param == "memory":
        sysctls = MemoryDriver(("sysctls",))
        sysctls.rows["sysctls"] = dict.fromkeys(TAKEOVER, "0")
        config = MemoryDriver(("config",))
        config.rows["config"] = dict(DEFAULT)
        yield Machine(MemoryDriver(("services", "destinations")), MemoryDriver(("addresses",)), sysctls, config)
        return
    require("kernel")
    with fresh():
        ipvs = IpvsDriver(RANGES, MARKS)
        ipvs.open()
        yield Machine(ipvs, AddressDriver(), SysctlDriver(), ConfigDriver(ipvs.use))
        ipvs.close()


def service(vip: str = "192.0.2.10", port: int = 80, protocol: Protocol = "tcp") -> ServiceKey:
    return ServiceKey(protocol, ip_address(vip), port)


def real(address: str, of: ServiceKey, port: int = 80) -> DestinationKey:
    return DestinationKey(of, ip_address(address), port)


def create(key: Any, row: Any) -> Change:
    tables: Mapping[type, Any] = {ServiceKey: "services", DestinationKey: "destinations"}
    return Change(tables.get(type(key), "addresses"), key, None, row)


async def look(driver: Driver) -> State:
    return State(**{str(table): rows for table, rows in (await driver.observe()).items()})


async def settle(driver: Driver, desired: State) -> list[Failure]:
    """One cycle of a reconciler with one driver."""
    changes = plan.diff(await look(driver), desired)
    return list(await driver.apply(changes))


async def write(driver: Driver, *changes: Change) -> list[Failure]:
    return list(await driver.apply(changes))


WEB, DNS, MARK = service(), service("192.0.2.10", 53, "udp"), ServiceKey("fwmark", ip_address("0.0.0.0"), 123)
WEB6, SCTP = service("2001:db8::10"), service("192.0.2.11", 9, "sctp")
MARK6 = ServiceKey("fwmark", ip_address("::"), 123)
EVERYTHING = State(
    services={
        WEB: MH,
        DNS: replace(MH, one_packet=True),
        MARK: VirtualService("wrr"),
        WEB6: VirtualService("sh", frozenset({"sh-port"}), persistence=360, persistence_prefix=64),
        SCTP: VirtualService("rr", persistence=60, persistence_prefix=24),
        MARK6: VirtualService("lc", frozenset({"flag-1", "flag-3"}), persistence=5),
    },
    destinations={
        real("10.0.0.2", WEB): UP,
        real("10.0.0.1", WEB): Destination("tunnel", 0, 7),
        real("10.0.0.3", WEB): Destination("gue", 3, 3, tunnel_port=6080),
        real("10.0.0.9", WEB): Destination("gre", 3, 3, upper=100, lower=50),
        real("10.0.0.1", DNS, 5353): Destination("nat", 1, 1),
        real("10.0.0.1", MARK, 0): UP,
        real("2001:db8:1::1", WEB6): UP,
        real("10.0.0.5", WEB6): Destination("tunnel", 1, 1),
        real("10.0.0.1", SCTP, 9): Destination("dr", 1, 1),
        real("2001:db8:1::1", MARK6): Destination("dr", 1, 1),
    },
)


async def test_an_untouched_machine_has_nothing_of_ours(machine: Machine) -> None:
    assert await look(machine.ipvs) == State()
    assert await look(machine.addresses) == State()


async def test_nothing_to_write_is_no_failure(machine: Machine) -> None:
    for driver in (machine.ipvs, machine.addresses, machine.sysctls):
        assert not await driver.apply([])


async def test_what_was_written_is_seen_and_then_nothing_is_left_to_do(machine: Machine) -> None:
    assert await settle(machine.ipvs, EVERYTHING) == []
    seen = await look(machine.ipvs)
    assert seen == EVERYTHING
    assert plan.diff(seen, EVERYTHING) == ()


async def test_everything_can_be_taken_down_again(machine: Machine) -> None:
    await settle(machine.ipvs, EVERYTHING)
    assert await settle(machine.ipvs, State()) == []
    assert await look(machine.ipvs) == State()


async def test_destinations_are_seen_oldest_first(machine: Machine) -> None:
    names = [real(f"10.0.0.{n}", WEB) for n in (3, 1, 9, 2)]
    await settle(machine.ipvs, State(services={WEB: MH}, destinations=dict.fromkeys(names, UP)))
    assert list((await look(machine.ipvs)).destinations) == names


async def test_a_moved_destination_is_the_newest(machine: Machine) -> None:
    names = [real(f"10.0.0.{n}", WEB) for n in (1, 2, 3)]
    await settle(machine.ipvs, State(services={WEB: MH}, destinations=dict.fromkeys(names, UP)))
    down = replace(UP, weight=0)
    assert not await machine.ipvs.apply([Change("destinations", names[0], UP, down, moved=True)])
    assert list((await look(machine.ipvs)).destinations.items()) == [(names[1], UP), (names[2], UP), (names[0], down)]


async def test_any_order_is_reached(machine: Machine) -> None:
    names = [real(f"10.0.0.{n}", WEB) for n in (1, 2, 3, 4)]
    await settle(machine.ipvs, State(services={WEB: MH}, destinations=dict.fromkeys(names, UP)))
    desired = State(
        services={WEB: MH}, destinations=dict.fromkeys([names[i] for i in (2, 0, 3)], replace(UP, weight=0))
    )
    assert await settle(machine.ipvs, desired) == []
    seen = await look(machine.ipvs)
    assert list(seen.destinations.items()) == list(desired.destinations.items())


async def test_the_weight_before_zero_is_kept(machine: Machine) -> None:
    name = real("10.0.0.1", WEB)
    await settle(machine.ipvs, State(services={WEB: MH}, destinations={name: UP}))
    row = UP
    for weight, last in [(0, 10), (4, 4), (0, 10), (0, 4), (10, 10), (0, 0), (0, 3), (3, 3)]:
        new = replace(UP, weight=weight, last_weight=last)
        assert not await machine.ipvs.apply([Change("destinations", name, row, new)])
        assert (await look(machine.ipvs)).destinations == {name: new}
        row = new


async def test_a_service_is_changed_in_place(machine: Machine) -> None:
    name = real("10.0.0.1", WEB)
    desired = State(services={WEB: MH}, destinations={name: UP})
    await settle(machine.ipvs, desired)
    for row in (
        VirtualService("wlc"),
        VirtualService("sh", frozenset({"sh-fallback"})),
        VirtualService("rr", persistence=300, persistence_prefix=24),
        VirtualService("rr", persistence=300),
        VirtualService("rr"),
        replace(MH, one_packet=True),
        MH,
    ):
        # One-packet is for UDP, but the kernel keeps the flag for any service.
        assert await settle(machine.ipvs, replace(desired, services={WEB: row})) == []
        assert await look(machine.ipvs) == replace(desired, services={WEB: row})


async def test_a_destination_is_changed_in_place(machine: Machine) -> None:
    name, other = real("10.0.0.1", WEB), real("10.0.0.2", WEB)
    await settle(machine.ipvs, State(services={WEB: MH}, destinations={name: UP, other: UP}))
    for row in (Destination("tunnel", 1, 1), Destination("nat", 5, 5, upper=9, lower=3), UP):
        desired = State(services={WEB: MH}, destinations={name: row, other: UP})
        assert await settle(machine.ipvs, desired) == []
        assert list((await look(machine.ipvs)).destinations.items()) == [(name, row), (other, UP)]


async def test_deleting_a_service_takes_its_destinations(machine: Machine) -> None:
    await settle(machine.ipvs, State(services={WEB: MH, DNS: MH}, destinations={real("10.0.0.1", WEB): UP}))
    assert not await machine.ipvs.apply([Change("services", WEB, MH, None)])
    assert await look(machine.ipvs) == State(services={DNS: MH})


async def test_a_bad_change_fails_alone_and_says_which_object(machine: Machine) -> None:
    first, second = real("10.0.0.1", WEB), real("10.0.0.2", WEB)
    await settle(machine.ipvs, State(services={WEB: MH}, destinations={first: UP}))
    bad = [
        create(WEB, MH),
        create(first, UP),
        create(real("10.0.0.1", DNS), UP),
        Change("destinations", real("10.0.0.7", WEB), UP, replace(UP, weight=0)),
        Change("destinations", real("10.0.0.8", WEB), UP, None),
        Change("services", DNS, MH, replace(MH, scheduler="rr")),
        Change("services", SCTP, MH, None),
    ]
    good = create(second, UP)
    failures = await write(machine.ipvs, *bad[:4], good, *bad[4:])
    assert [failure.change for failure in failures] == bad
    for failure in failures:
        assert str(getattr(failure.change.key, "service", failure.change.key)) in failure.reason.text
    assert await look(machine.ipvs) == State(services={WEB: MH}, destinations={first: UP, second: UP})


VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")


async def test_addresses_come_and_go(machine: Machine) -> None:
    desired = State(addresses={VIP4: VipAddress(), VIP6: VipAddress()})
    assert await settle(machine.addresses, desired) == []
    assert await look(machine.addresses) == desired
    assert await settle(machine.addresses, State(addresses={VIP6: VipAddress()})) == []
    assert await look(machine.addresses) == State(addresses={VIP6: VipAddress()})


async def test_a_bad_address_change_fails_alone(machine: Machine) -> None:
    await settle(machine.addresses, State(addresses={VIP4: VipAddress()}))
    again = create(VIP4, VipAddress())
    missing = Change("addresses", ip_address("192.0.2.99"), VipAddress(), None)
    failures = await write(machine.addresses, again, missing, create(VIP6, VipAddress()))
    assert [failure.change for failure in failures] == [again, missing]
    assert all(str(failure.change.key) in failure.reason.text for failure in failures)
    assert set((await look(machine.addresses)).addresses) == {VIP4, VIP6}


async def test_sysctls_are_set(machine: Machine) -> None:
    assert set((await look(machine.sysctls)).sysctls) == set(TAKEOVER)
    await settle(machine.sysctls, State(sysctls=TAKEOVER))
    assert (await look(machine.sysctls)).sysctls == TAKEOVER


async def test_an_unknown_sysctl_fails_alone(machine: Machine) -> None:
    unknown = Change("sysctls", "net/ipv4/vs/no_such_thing", "0", "1")
    failures = await write(machine.sysctls, unknown, Change("sysctls", "net/ipv4/vs/sloppy_tcp", "0", "1"))
    assert [failure.change for failure in failures] == [unknown]
    assert "no_such_thing" in failures[0].reason.text
    assert (await look(machine.sysctls)).sysctls["net/ipv4/vs/sloppy_tcp"] == "1"


SYNC = SyncDaemon("lo", 7, ip_address("224.0.0.81"), 8848)


async def test_settings_are_set_one_by_one_and_given_back(machine: Machine) -> None:
    assert (await look(machine.config)).config == DEFAULT
    for wanted in ({"udp_timeout": 30}, {"tcp_timeout": 300, "tcpfin_timeout": 60}, dict(DEFAULT)):
        assert await settle(machine.config, State(config=wanted)) == []
        assert plan.diff(await look(machine.config), State(config=wanted)) == ()
    assert (await look(machine.config)).config == DEFAULT


async def test_sync_daemons_start_change_and_stop(machine: Machine) -> None:
    for row in (SYNC, replace(SYNC, sync_id=255, port=1234, ttl=8, group=ip_address("239.1.2.3"))):
        for names in (("sync_master",), ("sync_master", "sync_backup")):
            wanted = dict.fromkeys(names, row)
            assert await settle(machine.config, State(config=wanted)) == []
            assert plan.diff(await look(machine.config), State(config=wanted)) == ()
    assert await settle(machine.config, State(config={"sync_master": None})) == []
    assert (await look(machine.config)).config == {**DEFAULT, "sync_backup": row}
    assert await settle(machine.config, State(config={"sync_master": None, "sync_backup": None})) == []
    assert (await look(machine.config)).config == DEFAULT


async def test_settings_nobody_asks_for_stay(machine: Machine) -> None:
    await settle(machine.config, State(config={"sync_backup": SYNC}))
    assert plan.diff(await look(machine.config), State()) == ()


async def test_a_bad_setting_fails_alone(machine: Machine) -> None:
    again = Change("config", "sync_master", None, SYNC)
    missing = Change("config", "sync_backup", SYNC, None)
    assert await write(machine.config, again) == []
    failures = await write(machine.config, again, missing, Change("config", "udp_timeout", 300, 20))
    assert [failure.change for failure in failures] == [again, missing]
    assert all(failure.change.key in failure.reason.text for failure in failures)
    assert (await look(machine.config)).config == {**DEFAULT, "udp_timeout": 20, "sync_master": SYNC}


# ---------------------------------------------------------------- the one in memory is like the other

few_services = st.dictionaries(
    st.sampled_from([WEB, DNS, WEB6]), st.sampled_from([MH, VirtualService("rr"), VirtualService("none")]), max_size=3
)
weights = st.sampled_from([(0, 10), (0, 3), (3, 3), (10, 10), (0, 0)])


@st.composite
def states(draw: st.DrawFn) -> State:
    rows: dict[DestinationKey, Destination] = {}
    services = draw(few_services)
    for key in services:
        for last in draw(st.lists(st.integers(1, 4), unique=True, max_size=4)):
            weight, last_weight = draw(weights)
            address = f"10.0.0.{last}" if key.address.version == 4 else f"2001:db8:1::{last}"
            rows[real(address, key)] = Destination(draw(st.sampled_from(["dr", "nat"])), weight, last_weight)
    return State(services=services, destinations=rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(states(), min_size=1, max_size=4), cut=st.integers(0, 8))
async def test_memory_and_kernel_go_the_same_way(require: Callable[[str], str], path: list[State], cut: int) -> None:
    """Through any states, with every plan broken off somewhere and begun again, both end where they should."""
    require("kernel")
    memory = MemoryDriver(("services", "destinations"))
    with fresh():
        kernel = IpvsDriver(RANGES, MARKS)
        kernel.open()
        try:
            for desired in path:
                for most in (cut, None, None, None):
                    changes = plan.diff(await look(kernel), desired)[:most]
                    assert await write(memory, *changes) == await write(kernel, *changes) == []
                    assert plan.diff(await look(memory), await look(kernel)) == ()
                assert plan.diff(await look(kernel), desired) == ()
        finally:
            kernel.close()


# ---------------------------------------------------------------- what a look omits, and a machine that was edited


async def test_that_a_row_exists_or_is_missing_is_said_by_these_codes(machine: Machine) -> None:
    """The engine looks again on these, and closes no gate."""
    name, other = real("10.0.0.1", WEB), real("10.0.0.2", WEB)
    await settle(machine.ipvs, State(services={WEB: MH}, destinations={name: UP}))
    await settle(machine.addresses, State(addresses={VIP4: VipAddress()}))
    services = await write(machine.ipvs, create(WEB, MH), Change("services", DNS, MH, None))
    changed = await write(machine.ipvs, Change("services", DNS, MH, replace(MH, scheduler="rr")))
    destinations = await write(
        machine.ipvs,
        create(name, UP),
        Change("destinations", other, UP, replace(UP, weight=0)),
        Change("destinations", other, UP, None),
        create(real("10.0.0.1", DNS), UP),
    )
    addresses = await write(machine.addresses, create(VIP4, VipAddress()))
    codes = [failure.reason.code for failure in (*services, *changed, *destinations, *addresses)]
    assert codes == ["exists", "missing", "missing", "exists", "missing", "missing", "service_missing", "exists"]


def skipping(*omitted: Any, looks: int) -> MemoryDriver:
    """A machine that has everything, whose first looks show these rows not."""
    driver = MemoryDriver(
        ("services", "destinations"), omits=lambda table, key: key in omitted and driver.looks <= looks
    )
    driver.rows = {"services": dict(EVERYTHING.services), "destinations": dict(EVERYTHING.destinations)}
    return driver


@pytest.mark.parametrize("omitted", [(WEB, real("10.0.0.2", WEB)), (real("10.0.0.1", WEB),), (MARK6,)])
@pytest.mark.parametrize("known", [EVERYTHING, None])
async def test_what_one_look_omits_is_not_lost(omitted: tuple[Any, ...], known: State | None) -> None:
    seen = await observe([skipping(*omitted, looks=1)], known)
    assert plan.diff(seen.state, EVERYTHING) == () and not seen.errors


async def test_what_two_looks_omit_is_lost_and_no_order_is_changed() -> None:
    gone = real("10.0.0.1", WEB)
    seen = await observe([skipping(gone, looks=2)], EVERYTHING)
    assert [change.key for change in plan.diff(seen.state, EVERYTHING) if not change.moved] == [gone]
    first, second = real("10.0.0.2", WEB), real("10.0.0.9", WEB)
    driver = MemoryDriver(
        ("services", "destinations"), omits=lambda table, key: key == (first, second)[driver.looks - 1]
    )
    driver.rows = skipping(looks=0).rows
    seen = await observe([driver], EVERYTHING)
    assert list(seen.state.destinations) == list(EVERYTHING.destinations), "each look omitted another row"


async def test_a_complete_look_is_taken_once_and_the_first_of_all_twice() -> None:
    driver = skipping(looks=0)
    await observe([driver], EVERYTHING)
    assert driver.looks == 1
    await observe([driver], None)
    assert driver.looks == 3


async def test_a_weight_before_zero_outlives_a_look_that_omits_the_destination(machine: Machine) -> None:
    name = real("10.0.0.1", WEB)
    down = replace(UP, weight=0)
    await settle(machine.ipvs, State(services={WEB: MH}, destinations={name: down}))
    driver = machine.ipvs
    if isinstance(driver, IpvsDriver):
        driver._view._forget({})  # as after a dump that has skipped it
    assert (await look(driver)).destinations == {name: down}
