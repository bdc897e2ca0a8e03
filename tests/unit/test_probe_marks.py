"""Which backend is probed by which firewall mark, and the rows that make it so."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb import settings
from anycastlb.adapters.checks import PARAMS, TYPES
from anycastlb.core.catalog.contradictions import Limits
from anycastlb.core.catalog.service import parse_service
from anycastlb.core.decision import probe_marks
from anycastlb.core.decision.decide import adopt, decide
from anycastlb.core.decision.vip_groups import group_vips
from anycastlb.core.model import (
    Catalog,
    Change,
    Destination,
    DestinationKey,
    Failure,
    ForwardPath,
    Inputs,
    Memory,
    Policy,
    Problem,
    Reason,
    Service,
    ServiceKey,
    SettingsError,
    Snapshot,
    State,
    VirtualService,
)
from anycastlb.settings import NodeSettings

RANGE = (1000, 1003)
LIMITS = Limits(vip_ranges=NodeSettings(name="lb1", vip_ranges=("192.0.2.0/24", "2001:db8::/64")).vip_ranges)


def via(number: int, **more: Any) -> ForwardPath:
    return ForwardPath(
        **{"address": ip_address(f"10.0.0.{number}"), "forward": "dr", "tunnel_port": 0, "family": 4, **more}
    )


def parsed(name: str = "web", **document: Any) -> Service | tuple[Problem, ...]:
    whole = {
        "vip": "192.0.2.10",
        "port": 80,
        "forward": "dr",
        "check": {"type": "tcp", "via": "forward"},
        "backends": {"b1": {"address": "10.0.0.1"}, "b2": {"address": "10.0.0.2"}},
        **document,
    }
    return parse_service(f"services/{name}", name, whole, LIMITS, PARAMS)


def service(name: str = "web", **document: Any) -> Service:
    made = parsed(name, **document)
    assert isinstance(made, Service), made
    return made


def inputs(*services: Service, **more: Any) -> Inputs:
    return Inputs(Policy(**{"marks": RANGE, **more}), Catalog(services))


def snapshot(given: Inputs, **more: Any) -> Snapshot:
    decision = decide(given, Memory(), 10.0)
    return Snapshot(**{"inputs": given, "decision": decision, "actual": decision.desired, **more})


# ---------------------------------------------------------------- who gets which


def test_marks_are_given_from_the_lowest_and_kept() -> None:
    first = probe_marks.allot([via(2), via(1)], {}, RANGE)
    assert first == {via(1): 1000, via(2): 1001}
    assert probe_marks.allot([via(0), via(1), via(2)], {via(1): 1000, via(2): 1001}, RANGE) == {**first, via(0): 1002}


def test_a_mark_that_is_freed_is_given_to_nobody_at_once() -> None:
    assert probe_marks.allot([via(1), via(3)], {via(1): 1000, via(2): 1001}, RANGE) == {via(1): 1000, via(3): 1002}


def test_who_comes_too_late_gets_none() -> None:
    marks = probe_marks.allot([via(n) for n in range(1, 7)], {via(6): 1000}, RANGE)
    assert marks == {via(6): 1000, via(1): 1001, via(2): 1002, via(3): 1003, via(4): None, via(5): None}


def test_a_mark_outside_of_a_changed_range_is_given_up() -> None:
    assert probe_marks.allot([via(1)], {via(1): 7}, RANGE) == {via(1): 1000}


# ---------------------------------------------------------------- what a decision holds


def test_each_backend_has_one_service_with_one_destination() -> None:
    desired = decide(inputs(service()), Memory(), 10.0).desired
    for number, mark in ((1, 1000), (2, 1001)):
        key = ServiceKey("fwmark", ip_address("0.0.0.0"), mark)
        assert desired.services[key] == VirtualService("rr", one_packet=True)
        rows = {k: row for k, row in desired.destinations.items() if k.service == key}
        assert rows == {DestinationKey(key, ip_address(f"10.0.0.{number}"), 0): Destination("dr", 1, 1)}


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({"forward": "nat"}, {via(1, forward="nat", port=80), via(2, forward="nat", port=80)}),
        ({"forward": "tunnel"}, {via(1, forward="tunnel"), via(2, forward="tunnel")}),
        ({"forward": "gue"}, {via(n, forward="gue", tunnel_port=6080) for n in (1, 2)}),
        ({"forward": "tunnel", "vip": "2001:db8::1"}, {via(n, forward="tunnel", family=6) for n in (1, 2)}),
        ({"check": {"type": "tcp"}}, set()),
        ({"backends": {"b1": {"address": "10.0.0.1", "port": 8080}}, "forward": "nat"},
         {via(1, forward="nat", port=8080)}),
    ],
)  # fmt: skip
def test_a_way_is_what_the_real_traffic_takes(document: dict[str, Any], wanted: set[ForwardPath]) -> None:
    assert set(group_vips((service(**document),)).paths) == wanted


def test_the_rows_of_a_way() -> None:
    six = via(1, forward="gue", tunnel_port=6080, family=6)
    services, destinations = probe_marks.rows({six: 1000, via(2): None, via(3, forward="nat", port=80): 1001})
    first, second = (ServiceKey("fwmark", ip_address(zero), mark) for zero, mark in (("::", 1000), ("0.0.0.0", 1001)))
    assert services == {first: VirtualService("rr", one_packet=True), second: VirtualService("rr")}
    assert destinations == {
        DestinationKey(first, ip_address("10.0.0.1"), 0): Destination("gue", 1, 1, tunnel_port=6080),
        DestinationKey(second, ip_address("10.0.0.3"), 80): Destination("nat", 1, 1),
    }


def test_only_marks_in_our_range_are_those_of_probes() -> None:
    keys = [ServiceKey("fwmark", ip_address("0.0.0.0"), mark) for mark in (999, 1000, 1003, 1004)]
    keys.append(ServiceKey("tcp", ip_address("192.0.2.10"), 1001))
    rows = {DestinationKey(key, ip_address(f"10.0.0.{n}"), 0): Destination("dr", 1, 1) for n, key in enumerate(keys)}
    known, rest = probe_marks.split(State(services=dict.fromkeys(keys, VirtualService("rr")), destinations=rows), RANGE)
    assert known == {via(1): 1000, via(2): 1003}
    assert list(rest.services) == [keys[0], keys[3], keys[4]] == [key.service for key in rest.destinations]


@pytest.mark.parametrize(
    ("probed", "given", "free"),
    [
        ({via(1): 1000}, {via(1): 1000}, False),
        ({via(1): 1000}, {via(1): 1000, via(2): 1001}, False),
        ({via(1): None}, {via(2): 1001}, True),
        ({via(1): None, via(2): 1001}, {via(2): 1001}, False),
    ],
)
def test_a_mark_comes_free_for_one_that_has_none(probed: Any, given: Any, free: bool) -> None:
    assert probe_marks.come_free(probed, Memory(marks=given)) is free


def test_vips_and_services_share_the_ways_to_their_backends() -> None:
    paths = group_vips((service(vip=["192.0.2.10", "192.0.2.11"]), service("api", port=443))).paths
    assert set(paths) == {via(1), via(2)}


def test_by_nat_an_answer_needs_its_connection_entry() -> None:
    desired = decide(inputs(service(forward="nat")), Memory(), 10.0).desired
    assert {row.one_packet for key, row in desired.services.items() if key.protocol == "fwmark"} == {False}


def test_a_stopping_node_has_no_probes() -> None:
    before = decide(inputs(service()), Memory(), 10.0)
    after = decide(replace(inputs(service()), stopping=True), before.memory, 11.0)
    assert not after.probe_paths and not [key for key in after.desired.services if key.protocol == "fwmark"]
    assert [key for key in after.desired.services if key.protocol == "tcp"], "the service itself drains"


def test_sysctls_for_probes_are_asked_for_only_while_there_are_any() -> None:
    needs = {"net/ipv4/conf/all/accept_local": "1"}
    assert decide(inputs(service(), probing_sysctls=needs), Memory(), 0.0).desired.sysctls == needs
    assert not decide(inputs(service(check={}), probing_sysctls=needs), Memory(), 0.0).desired.sysctls


def test_a_mark_that_is_freed_late_is_given_in_the_next_decision() -> None:
    full = inputs(service(), marks=(1000, 1001))
    before = decide(full, Memory(), 10.0)
    moved = inputs(service(backends={"b2": {"address": "10.0.0.2"}, "b3": {"address": "10.0.0.3"}}), marks=(1000, 1001))
    between = decide(moved, before.memory, 11.0)
    assert between.probe_paths == {via(2): 1001, via(3): None}
    assert between.wake_at is not None and 11.0 < between.wake_at < 11.1
    assert decide(moved, between.memory, between.wake_at).probe_paths == {via(2): 1001, via(3): 1000}


# ---------------------------------------------------------------- a restart


def test_a_new_daemon_reads_the_marks_back() -> None:
    given = inputs(service())
    before = decide(given, Memory(), 10.0)
    after = decide(given, adopt(before.desired, 0.0, RANGE), 0.0)
    assert after.probe_paths == before.probe_paths
    assert after.desired.services == before.desired.services


def test_marks_of_a_former_daemon_that_nobody_needs_go_at_once() -> None:
    left = decide(inputs(service()), Memory(), 10.0).desired
    after = decide(inputs(), adopt(left, 0.0, RANGE), 0.0)
    assert [key.protocol for key in after.desired.services] == ["tcp"], "the service drains, its probes do not"


def test_what_cannot_be_a_probe_of_ours_is_not_taken_for_one() -> None:
    def key(mark: int) -> ServiceKey:
        return ServiceKey("fwmark", ip_address("0.0.0.0"), mark)

    row, one = Destination("dr", 1, 1), ip_address("10.0.0.1")
    names = [(1000, "10.0.0.1"), (1000, "10.0.0.2"), (1001, "10.0.0.1"), (1002, "10.0.0.1"), (7, "10.0.0.9")]
    actual = State(
        services={key(mark): VirtualService("rr") for mark in (7, 1000, 1001, 1002, 1003)},
        destinations={DestinationKey(key(mark), ip_address(address), 0): row for mark, address in names},
    )
    known, rest = probe_marks.split(actual, RANGE)
    assert known == {ForwardPath(one, "dr", 0, 4, 0): 1001}
    assert list(rest.services) == [key(7)] and [k.service for k in rest.destinations] == [key(7)]


# ---------------------------------------------------------------- which of them can be used


def test_a_mark_is_usable_once_the_kernel_has_both_rows() -> None:
    given = snapshot(inputs(service()))
    assert probe_marks.usable(given) == {via(1): 1000, via(2): 1001}
    assert probe_marks.usable(replace(given, actual=State())) == {}
    without = {key: row for key, row in given.actual.destinations.items() if key.service.port != 1000}
    assert probe_marks.usable(replace(given, actual=replace(given.actual, destinations=without))) == {via(2): 1001}


def test_a_row_that_says_something_else_is_not_usable() -> None:
    given = snapshot(inputs(service()))
    other = {k: replace(row, forward="nat") for k, row in given.actual.destinations.items()}
    assert probe_marks.usable(replace(given, actual=replace(given.actual, destinations=other))) == {}
    fixed = {k: replace(row, scheduler="wrr") for k, row in given.actual.services.items()}
    assert probe_marks.usable(replace(given, actual=replace(given.actual, services=fixed))) == {}


def test_what_the_kernel_refused_is_told() -> None:
    given = snapshot(inputs(service()))
    reason = Reason("scheduler_missing", "no such scheduler")
    for table, key in (
        ("services", probe_marks.service_key(via(1), 1000)),
        ("destinations", probe_marks.destination_key(via(1), 1000)),
    ):
        failure = Failure(Change(table, key, None, "a row"), reason)  # type: ignore[arg-type]
        assert probe_marks.usable(replace(given, failures=(failure,))) == {
            via(1): "the kernel has no way for the probe: no such scheduler",
            via(2): 1001,
        }


def test_an_exhausted_range_is_told() -> None:
    found = probe_marks.usable(snapshot(inputs(service(), marks=(1000, 1000))))
    assert found[via(1)] == 1000
    assert found[via(2)] == "no firewall mark is left for the probe in 1000-1000: widen [checks] marks in node.toml"


# ---------------------------------------------------------------- documents and settings


@pytest.mark.parametrize("kind", [name for name, found in TYPES.items() if found.direct_only])
def test_a_check_that_cannot_go_through_ipvs_is_a_problem(kind: str) -> None:
    problems = parsed(check={"type": kind, "via": "forward"})
    assert isinstance(problems, tuple)
    (told,) = [problem for problem in problems if problem.path == "check.via"]
    assert told.expected.startswith(f"expected direct: {kind} cannot go through IPVS (forward is for ")
    assert "tcp" in told.expected and kind not in told.expected.split("forward is for")[1].strip(" )").split(", ")


def test_which_checks_cannot_go_through_ipvs() -> None:
    named = {name for name, found in TYPES.items() if found.direct_only}
    assert {"none", "icmp", "command"} & set(TYPES) <= named
    assert not {"tcp", "http", "https", "dns", "udp", "grpc", "agent", "syslog", "all", "any"} & named


def test_a_part_of_a_combination_that_cannot_go_through_ipvs_is_a_problem() -> None:
    problems = parsed(check={"type": "all", "via": "forward", "checks": [{"type": "tcp"}, {"type": "none"}]})
    assert isinstance(problems, tuple)
    assert [problem.path for problem in problems] == ["check.checks.1.via"] * len(problems)


NODE = '[node]\nname = "lb1"\nvip_ranges = ["192.0.2.0/24"]\n'


def test_the_range_of_marks_is_configurable() -> None:
    assert settings.parse(NODE).checks.marks == (0x414C0000, 0x414CFFFF)
    assert settings.parse(f'{NODE}[checks]\nmarks = "5000-5999"').checks.marks == (5000, 5999)


@pytest.mark.parametrize(
    "text",
    [
        'fwmark_ranges = ["5999"]\n[checks]\nmarks = "5000-5999"',
        'fwmark_ranges = ["1-4294967295"]\n',
        'fwmark_ranges = ["7", "1-10000"]\n[checks]\nmarks = "5000"',
    ],
)
def test_marks_of_probes_and_of_services_are_apart(text: str) -> None:
    with pytest.raises(SettingsError, match=r"marks for probes outside of node\.fwmark_ranges"):
        settings.parse(NODE + text)
