"""Which VIPs are decided together, and which of their groups an edit leaves as they are."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.core.decision.vip_groups import NO_GROUPS, Grouping, VipGroup, group_vips
from anycastlb.core.model import (
    Address,
    Backend,
    Check,
    DestinationKey,
    ForwardPath,
    Service,
    ServiceKey,
    VirtualService,
)

ONE, TWO, THREE, FOUR = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3, 4))
MH = VirtualService("mh")


def backend(number: int, through: bool = False) -> Backend:
    address = ip_address(f"10.0.0.{number}")
    return Backend(f"b{number}", address, 80, Check("tcp", address, 80, (), 1, 1, 1, 1), through=through)


def service(name: str, *vips: Address, mark: int = 0, backends: tuple[Backend, ...] = (backend(1),)) -> Service:
    return Service(name, vips, "fwmark" if mark else "tcp", mark or 80, MH, backends)


WEB, API, DNS = service("web", ONE), service("api", TWO), service("dns", ONE)
WEB2 = replace(WEB, drain=5.0)
DNS = replace(DNS, port=53)
MARKED = service("marked", TWO, THREE, mark=7)


def vips_of(grouping: Grouping) -> list[tuple[Address, ...]]:
    return [group.vips for group in grouping.groups.values()]


@pytest.mark.parametrize(
    ("services", "groups"),
    [
        ((), []),
        ((WEB, API), [(ONE,), (TWO,)]),
        ((API, WEB), [(TWO,), (ONE,)]),
        ((service("web", ONE, TWO),), [(ONE,), (TWO,)]),
        ((WEB, DNS), [(ONE,)]),
        ((WEB, MARKED), [(ONE,), (TWO, THREE)]),
        # Two marks that share a VIP unite all that they have.
        ((service("a", ONE, TWO, mark=7), service("b", TWO, THREE, mark=8)), [(ONE, TWO, THREE)]),
        ((service("a", ONE, TWO, mark=7), service("b", THREE, FOUR, mark=8)), [(ONE, TWO), (THREE, FOUR)]),
        ((service("a", ONE, TWO, mark=7), service("b", THREE, mark=7)), [(ONE, TWO, THREE)]),
        (
            (service("a", ONE, TWO, mark=7), service("b", THREE, FOUR, mark=8), service("c", FOUR, TWO, mark=9)),
            [(THREE, FOUR, ONE, TWO)],
        ),
    ],
)
def test_which_vips_are_decided_together(services: tuple[Service, ...], groups: list[tuple[Address, ...]]) -> None:
    grouping = group_vips(services)
    assert sorted(map(sorted, vips_of(grouping))) == sorted(map(sorted, groups))
    assert grouping.vips == sum(map(len, groups))
    for group in grouping.groups.values():
        assert all(grouping.group_of(vip) is group for vip in group.vips)
        assert all(grouping.group_of(s.key(vip)) is group for s, vip in group.places)


def test_a_row_belongs_to_the_group_of_its_vip() -> None:
    grouping = group_vips((WEB, MARKED))
    web, mark = ServiceKey("tcp", ONE, 80), MARKED.key(TWO)
    for key in (ONE, web, DestinationKey(web, ip_address("10.0.0.1"), 80), ServiceKey("tcp", ONE, 9)):
        assert grouping.name_of(key) == ONE
    for key in (TWO, THREE, mark, DestinationKey(mark, ip_address("10.0.0.1"), 80), ServiceKey("tcp", THREE, 80)):
        assert grouping.name_of(key) == TWO
    for key in (FOUR, ServiceKey("tcp", FOUR, 80), ServiceKey("fwmark", ip_address("0.0.0.0"), 9), "name"):
        assert grouping.name_of(key) is None and grouping.group_of(key) is None


def test_what_a_group_is_made_of() -> None:
    straight, through, twice = backend(1), backend(2, through=True), backend(3, through=True)
    group = VipGroup.of([(replace(WEB, backends=(straight, through)), ONE), (replace(DNS, backends=()), ONE)])
    assert group.vips == (ONE,) and group.staffed == {ServiceKey("tcp", ONE, 80)}
    assert group.paths == (ForwardPath(through.address, through.forward, through.tunnel_port, 4),)
    assert len(group.checks) == 2 and group.checks[0] == straight.check
    assert group.checks[1].address == ONE, "it goes through IPVS to the VIP"
    grouping = group_vips(
        (service("a", ONE, backends=(through,)), service("b", TWO, backends=(through, twice)), service("c", THREE))
    )
    assert [path.address for path in grouping.paths] == [through.address, twice.address], "each once"


def test_a_group_wants_the_backends_that_the_catalog_names() -> None:
    group = VipGroup.of([(WEB, ONE), (replace(DNS, backends=(backend(2),)), ONE)])
    web, dns = ServiceKey("tcp", ONE, 80), ServiceKey("tcp", ONE, 53)
    first, second = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    assert group.wants(DestinationKey(web, first, 80)) and group.wants(DestinationKey(dns, second, 80))
    assert not group.wants(DestinationKey(web, second, 80)) and not group.wants(DestinationKey(dns, first, 80))
    assert not group.wants(DestinationKey(web, first, 81))
    assert not group.wants(DestinationKey(replace(web, address=TWO), first, 80))


@pytest.mark.parametrize(
    ("after", "same"),
    [
        ((WEB, API), {ONE, TWO}),
        ((replace(WEB), replace(API)), {ONE, TWO}),
        ((WEB2, API), {TWO}),
        ((WEB2, replace(API)), {TWO}),
        ((API, WEB), {ONE, TWO}),
        ((WEB,), {ONE}),
        ((replace(WEB), API, service("new", THREE)), {ONE, TWO}),
        ((WEB, API, DNS), {TWO}),
        ((WEB, replace(API, vips=(TWO, THREE))), {ONE}),
        ((replace(WEB, port=81), API), {TWO}),
        ((WEB2, replace(API, vips=(THREE,))), set()),
        ((replace(WEB, name="www"), API), {TWO}),
        ((WEB2,), set()),
    ],
)
def test_a_group_that_no_edit_concerns_is_the_same_object(after: tuple[Service, ...], same: set[Address]) -> None:
    before = group_vips((WEB, API))
    grouping = group_vips(after, before)
    assert {name for name, group in grouping.groups.items() if group is before.groups.get(name)} == same
    fresh = group_vips(after)
    assert [(name, group.places) for name, group in grouping.groups.items()] == [
        (name, group.places) for name, group in fresh.groups.items()
    ]
    assert (grouping.read, grouping.services, grouping.united, grouping.marks) == (
        after,
        fresh.services,
        fresh.united,
        fresh.marks,
    )
    assert group_vips(after, grouping) is grouping, "nothing was read anew"


def test_an_edit_of_marked_services_makes_one_group_anew() -> None:
    before = group_vips((WEB, MARKED))
    edited = replace(MARKED, drain=5.0)
    grouping = group_vips((WEB, edited), before)
    assert grouping.groups[ONE] is before.groups[ONE] and vips_of(grouping) == [(ONE,), (TWO, THREE)]
    assert {s for s, _ in grouping.groups[TWO].places} == {edited}
    assert grouping.marks == {MARKED.key(TWO): TWO} and grouping.united == {THREE: TWO}
    several = group_vips((WEB, DNS))
    assert group_vips((WEB, DNS, API), several).groups[ONE] is several.groups[ONE]
    assert group_vips((WEB2, DNS, API), several).groups[ONE] is not several.groups[ONE]
    assert group_vips((), before).groups == NO_GROUPS.groups
