"""The kernel's rows: those that a catalog asks for, and those that stay until their flows have ended."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.core.decision.handover import Handover, fwmarks, handover, vips_of
from anycastlb.core.decision.judgement import Judgement, Observed, judge
from anycastlb.core.decision.member import LATE, ObservedBackend
from anycastlb.core.decision.pool import Pool
from anycastlb.core.decision.rows import (
    Tables,
    by_service,
    cached_leaving,
    held_rows,
    leaving_rows,
    wanted_rows,
    with_leaving,
)
from anycastlb.core.model import (
    Backend,
    Check,
    Destination,
    DestinationKey,
    Leaving,
    Memory,
    Reason,
    Service,
    ServiceKey,
    ServiceVerdict,
    VipAddress,
    VirtualService,
)
from tests.support.catalogs import backend

NOW = 1000.0
VIP, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
WEB, API = ServiceKey("tcp", VIP, 80), ServiceKey("tcp", OTHER, 80)
MH = VirtualService("mh")
UP = Reason("backends_up", "1/1 backends up")


def at(number: int, service: ServiceKey = WEB) -> DestinationKey:
    return DestinationKey(service, backend(number).address, 80)


def row(weight: int = 100, last: int | None = 100, forward: str = "tunnel") -> Destination:
    return Destination(forward, weight, last)  # type: ignore[arg-type]


def tables(*numbers: int, service: ServiceKey = WEB) -> Tables:
    keys = tuple(at(number, service) for number in numbers)
    return Tables({service.address: VipAddress()}, {service: MH}, {key: row() for key in keys}, {service: keys})


# ---------------------------------------------------------------- until when rows stay


def left(memory: Memory, rows: dict | None = None, **arguments: object) -> dict:
    return leaving_rows(rows or {}, memory.rows.items(), memory, arguments.pop("idle", frozenset()), NOW, **arguments)  # type: ignore[arg-type]


def test_rows_that_nobody_asks_for_any_more_stay_for_their_drain_time() -> None:
    memory = Memory(rows={("services", WEB): (MH, 30.0), ("destinations", at(1)): (row(), 0.0)})
    assert left(memory) == {("services", WEB): Leaving(MH, NOW + 30.0, 30.0)}
    assert left(memory, rows={("services", WEB): None}) == {}
    assert left(memory, drain=False) == {}


def test_rows_that_leave_already_keep_their_end_and_are_taken_back() -> None:
    ends = {("destinations", at(n)): Leaving(row(), NOW + end, 30.0) for n, end in ((1, 5.0), (2, 0.0), (3, 90.0))}
    assert left(Memory(leaving=ends)) == {
        ("destinations", at(1)): Leaving(row(), NOW + 5.0, 30.0),
        ("destinations", at(3)): Leaving(row(), NOW + 90.0, 30.0),
    }
    assert left(Memory(leaving=ends), rows=dict.fromkeys(ends)) == {}


def test_an_idle_backend_leaves_a_living_service_at_once() -> None:
    memory = Memory(rows={("destinations", at(1)): (row(), 30.0), ("destinations", at(1, API)): (row(), 30.0)})
    idle = frozenset({at(1), at(1, API)})
    assert left(memory, {("services", WEB): None}, idle=idle).keys() == {("destinations", at(1, API))}


def test_what_is_replaced_serves_until_the_results_are_due_and_then_for_its_drain_time() -> None:
    begins = Handover(frozenset({WEB}), {WEB: NOW + 3.0}, frozenset({WEB}))
    under_way = Handover(frozenset(), {WEB: NOW + 4.0}, frozenset({WEB}))
    memory = Memory(rows={("destinations", at(1)): (row(), 30.0)})
    serving = Leaving(row(), NOW + 33.0, 30.0, serves=True)
    assert left(memory, handover=begins) == {("destinations", at(1)): serving}
    assert left(memory, handover=under_way) == {("destinations", at(1)): Leaving(row(), NOW + 30.0, 30.0)}

    begun = Memory(leaving={("destinations", at(1)): serving})
    assert left(begun, handover=under_way)["destinations", at(1)].until == NOW + 34.0
    assert left(begun) == {("destinations", at(1)): Leaving(row(), NOW + 30.0, 30.0)}
    idle = left(begun, {("services", WEB): None}, idle=frozenset({at(1)}), handover=under_way)
    assert idle["destinations", at(1)].serves, "one that serves may be without a connection for a moment"
    over = Memory(leaving={("destinations", at(1)): Leaving(row(), NOW + 5.0, 30.0)})
    assert left(over, handover=begins) == over.leaving  # what has begun to leave does not serve again


@pytest.mark.parametrize(
    ("row_id", "successor", "serves"),
    [
        (("addresses", VIP), VIP, True),
        (("addresses", VIP), WEB, False),
        (("services", WEB), VIP, True),  # the service has no backends any more: the VIP's others replace it
        (("services", API), VIP, False),
        (("destinations", at(1)), VIP, True),
        (("services", ServiceKey("fwmark", ip_address("0.0.0.0"), 7)), VIP, True),
    ],
)
def test_who_replaces_a_row(row_id: tuple, successor: object, serves: bool) -> None:
    mark = ServiceKey("fwmark", ip_address("0.0.0.0"), 7)
    memory = Memory(rows={row_id: ("row", 30.0)}, fwmarks={mark: frozenset({VIP})})
    handover = Handover(frozenset({successor}), {successor: NOW + 3.0})  # type: ignore[arg-type]
    assert left(memory, handover=handover)[row_id].serves == serves


def test_a_mark_is_known_to_serve_every_vip_that_it_ever_had() -> None:
    mark = ServiceKey("fwmark", ip_address("0.0.0.0"), 7)
    old = ServiceKey("fwmark", ip_address("0.0.0.0"), 8)
    services = [
        Service("one", (VIP, OTHER), "fwmark", 7, MH, ()),
        Service("web", (VIP,), "tcp", 80, MH, ()),
    ]
    known = fwmarks(services, Memory(fwmarks={old: frozenset({VIP}), mark: frozenset()}))
    assert known == {mark: frozenset({VIP, OTHER}), old: frozenset({VIP})}
    assert vips_of(mark, known) == {VIP, OTHER} and vips_of(WEB, known) == {VIP}
    assert vips_of(ServiceKey("fwmark", VIP, 9), known) == frozenset()


# ---------------------------------------------------------------- the tables with what leaves


def test_a_backend_that_leaves_a_living_service_keeps_its_place_and_gets_no_new_flows() -> None:
    leaving = {("destinations", at(2)): Leaving(row(50), NOW + 5.0, 30.0)}
    wanted = {("services", WEB): None}
    kernel = with_leaving(tables(1, 3), wanted, leaving, {WEB: (at(1), at(2), at(3))})
    assert list(kernel.destinations.items()) == [(at(1), row()), (at(2), row(0, 50)), (at(3), row())]
    assert kernel.order == {WEB: (at(1), at(2), at(3))}
    serving = {key: Leaving(row(50), NOW + 5.0, 30.0, serves=True) for key in leaving}
    assert with_leaving(tables(1, 3), wanted, serving, {}).destinations[at(2)] == row(50)


@pytest.mark.parametrize(("weight", "last", "kept"), [(50, 10, 50), (0, 10, 10), (0, None, 1), (0, 0, 1)])
def test_it_is_remembered_with_its_last_weight(weight: int, last: int | None, kept: int) -> None:
    leaving = {("destinations", at(2)): Leaving(row(weight, last), NOW + 5.0)}
    kernel = with_leaving(tables(1), {("services", WEB): None}, leaving, {})
    assert kernel.destinations[at(2)] == row(0, kept)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((9, 1, 8, 2), (9, 1, 8, 2)),
        ((1, 9, 8, 2), (1, 9, 8, 2)),
        ((1, 2, 9), (1, 2, 9, 8)),  # one that had no place comes last
        ((2, 9, 1, 8), (1, 8, 2, 9)),  # each follows its predecessor
        ((7, 9, 1, 2, 8), (9, 1, 2, 8)),
    ],
)
def test_what_leaves_moves_nobody(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    leaving = {("destinations", at(n)): Leaving(row(), NOW + 5.0) for n in (9, 8)}
    kernel = with_leaving(tables(1, 2), {("services", WEB): None}, leaving, {WEB: tuple(map(at, before))})
    assert [*kernel.destinations] == [at(n) for n in after]
    assert kernel.order[WEB] == tuple(at(n) for n in after)


def test_the_backends_of_a_service_that_leaves_serve_on_and_end_with_it() -> None:
    leaving = {
        ("addresses", OTHER): Leaving(VipAddress("lo"), NOW + 5.0),
        ("services", API): Leaving(MH, NOW + 5.0),
        ("destinations", at(1, API)): Leaving(row(50), NOW + 5.0),
    }
    kernel = with_leaving(tables(1), {("services", WEB): None}, leaving, {})
    assert kernel.destinations == {at(1): row(), at(1, API): row(50)}
    assert kernel.services == {API: MH, WEB: MH} and kernel.addresses == {OTHER: VipAddress("lo"), VIP: VipAddress()}
    del leaving["services", API]
    assert with_leaving(tables(1), {("services", WEB): None}, leaving, {}).destinations == {at(1): row()}
    assert with_leaving(tables(1), {}, {}, {}) == tables(1)


@pytest.mark.parametrize(
    ("service", "destination", "cached"),
    [
        (MH, row(), True),
        (VirtualService("rr"), row(), False),
        (VirtualService("mh", persistence=300), row(), False),
        (MH, row(forward="nat"), False),
    ],
)
def test_flows_of_what_leaves_need_their_entries_too(
    service: VirtualService, destination: Destination, cached: bool
) -> None:
    leaving = {("services", WEB): Leaving(service, 0.0), ("destinations", at(1)): Leaving(destination, 0.0)}
    assert cached_leaving({**leaving, ("addresses", VIP): Leaving(VipAddress(), 0.0)}) == cached


# ---------------------------------------------------------------- after a fault


def test_what_could_not_be_judged_keeps_its_rows() -> None:
    web = Service("web", (VIP,), "tcp", 80, MH, (backend(1),))
    rows = {
        ("addresses", VIP): (VipAddress(), 1.0),
        ("addresses", OTHER): (VipAddress(), 1.0),
        ("services", WEB): (MH, 1.0),
        ("services", API): (MH, 1.0),
        ("destinations", at(1)): (row(), 1.0),
        ("destinations", at(1, API)): (row(), 1.0),
    }
    kept = held_rows([(web, VIP)], Memory(rows=rows), [])
    assert kept == {row_id: rows[row_id] for row_id in rows if row_id[1] in (VIP, WEB, at(1))}
    weighed = (
        Judgement(replace(web, name="api"), OTHER, ServiceVerdict("api", API, True, 1, 1, 1, UP), ()),
        Pool({}, {}),
    )
    api = replace(web, name="api", vips=(OTHER,))
    assert held_rows([(web, VIP), (api, OTHER)], Memory(rows=rows), [weighed]) == kept


def test_the_rows_of_a_catalog_stay_as_long_as_their_service_drains() -> None:
    def pool(name: str, port: int, drain: float) -> tuple[Judgement, Pool]:
        key = ServiceKey("tcp", VIP, port)
        service = Service(name, (VIP,), "tcp", port, MH, (), drain=drain)
        judged = Judgement(service, VIP, ServiceVerdict(name, key, True, 1, 1, 1, UP), ())
        return judged, Pool({}, {at(1, key): row()})

    dns = ServiceKey("tcp", VIP, 53)
    assert wanted_rows([pool("web", 80, 30.0), pool("dns", 53, 0.0)]) == {
        ("addresses", VIP): (VipAddress(), 30.0),
        ("services", WEB): (MH, 30.0),
        ("destinations", at(1)): (row(), 30.0),
        ("services", dns): (MH, 0.0),
        ("destinations", at(1, dns)): (row(), 0.0),
    }
    assert wanted_rows([pool("dns", 53, 0.0)])["addresses", VIP] == (VipAddress(), 0.0)


# ---------------------------------------------------------------- what waits for new backends


def waits(name: str, proving: float, needed: bool, members: int = 1) -> Judgement:
    """A service of which the slowest first result is due in so many seconds; does it need that backend?"""
    address = backend(1).address
    check = Check("tcp", address, 80, (), proving - LATE, 0.0, 1, 1)
    document = Backend("b1", address, 80, check)
    service = Service(name, (VIP,), "tcp", 80, MH, (document,) * members)
    observed = Observed((ObservedBackend(),) * members, announced=needed)
    return judge(service, VIP, observed, NOW)


def test_what_waits_for_the_first_results_of_new_backends() -> None:
    assert handover([], NOW) == Handover()
    needed = handover([waits("web", 5.0, True)], NOW)
    assert needed == Handover(frozenset({WEB, VIP}), {WEB: NOW + 5.0, VIP: NOW + 5.0}, frozenset({WEB}))
    assert handover([waits("web", 5.0, False)], NOW) == replace(needed, begins=frozenset())
    assert handover([waits("web", 5.0, True, members=0)], NOW) == Handover()
    both = handover([waits("web", 5.0, True), waits("api", 3.0, True)], NOW)
    assert both.ends == {WEB: NOW + 5.0, VIP: NOW + 5.0}


def test_the_last_of_those_that_replace_a_row_ends_its_service() -> None:
    both = Handover(frozenset({WEB}), {WEB: NOW + 3.0, API: NOW + 5.0})
    assert both.end((WEB, API), begun=True) == NOW + 5.0
    assert both.end((WEB, API), begun=False) == NOW + 3.0
    assert both.end((API,), begun=False) is None and both.end((VIP,), begun=True) is None


def test_destinations_are_grouped_in_their_order() -> None:
    keys = [at(2), at(1, API), at(1)]
    assert by_service(keys) == {WEB: (at(2), at(1)), API: (at(1, API),)}
