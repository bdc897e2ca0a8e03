"""The gates around a whole reading, decision and comparison: what they leave out, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.catalog.quarantine import read_around
from anycastlb.core.culprits import culprits
from anycastlb.core.decision import quarantine
from anycastlb.core.decision.comparison import UNCOMPARED
from anycastlb.core.decision.decide import decide_again
from anycastlb.core.decision.plan import apply
from anycastlb.core.decision.quarantine import compare_around, decide_around
from anycastlb.core.decision.remembered import FROM_SCRATCH, Remembered
from anycastlb.core.model import (
    Catalog,
    CheckState,
    Entry,
    Feed,
    Inputs,
    Memory,
    Policy,
    Result,
    State,
    Tree,
)
from anycastlb.engine.node import checks

FAULT = ZeroDivisionError("division by zero")
RANGES = (ip_network("192.0.2.0/24"),)
ODD, WEB, SHARED = map(ip_address, ("192.0.2.66", "192.0.2.1", "192.0.2.2"))


def tree(**services: dict[str, Any]) -> Tree:
    entries = {
        f"services/{name}": Entry(json.dumps({"backends": {"b": {"address": "10.0.0.1"}}, **document}).encode(), n)
        for n, (name, document) in enumerate(services.items())
    }
    return Tree(entries, 1)


def read(some: Tree) -> Catalog:
    return parse_catalog(some, Catalog(), RANGES, (), PARAMS)


def fails_with(*keys: str) -> Callable[[Tree], Catalog]:
    def of(some: Tree) -> Catalog:
        if any(key in some.entries for key in keys):
            raise FAULT
        return read(some)

    return of


def around(some: Tree, before: Catalog, reading: Callable[[Tree], Catalog]) -> Catalog:
    return read_around(some, before, reading, reading)[0]


CATALOG = {
    "odd": {"vip": str(ODD), "port": 80},
    "web": {"vip": str(WEB), "port": 80},
    "dns": {"vip": str(SHARED), "port": 53},
    "mail": {"vip": str(SHARED), "port": 25},
}


@pytest.mark.parametrize("bad", [[], [3], [0, 9], [4, 5, 6], list(range(10))])
def test_culprits_are_those_that_fail_alone(bad: list[int]) -> None:
    def works(some: Sequence[int]) -> bool:
        return not set(some) & set(bad)

    assert culprits(range(10), works) == bad


def test_nobody_is_blamed_for_what_only_two_can_do_together() -> None:
    assert culprits([1, 2, 3, 4], lambda some: not {1, 4} <= set(some)) == []


def test_a_service_that_cannot_be_read_stays_as_it_was() -> None:
    before = read(tree(**CATALOG))
    edited = tree(**CATALOG | {"odd": {"vip": str(ODD), "port": 81}, "web": {"vip": str(WEB), "port": 81}})
    catalog = around(edited, before, fails_with("services/odd"))
    assert {one.name: one.port for one in catalog.services} == {"odd": 80, "web": 81, "dns": 53, "mail": 25}
    (problem,) = catalog.problems
    assert problem.key == "services/odd" and "division by zero" in str(problem) and "report" in str(problem)
    assert catalog.good["services/odd"] == before.good["services/odd"]


def test_a_service_that_cannot_be_read_and_was_not_known_is_left_out() -> None:
    catalog = around(tree(**CATALOG), Catalog(), fails_with("services/odd"))
    assert {one.name for one in catalog.services} == {"web", "dns", "mail"} and len(catalog.problems) == 1


def test_what_somebody_else_has_got_since_is_not_kept() -> None:
    before = read(tree(odd=CATALOG["odd"]))
    now = tree(odd=CATALOG["odd"], web={"vip": str(ODD), "port": 80})
    catalog = around(now, before, fails_with("services/odd"))
    assert [one.name for one in catalog.services] == ["web"]


def test_the_drain_of_a_node_is_obeyed_though_it_cannot_be_read() -> None:
    drained = Tree({**tree(**CATALOG).entries, "drain/lb1": Entry(b"{}", 9)}, 2)
    catalog = around(drained, Catalog(), fails_with("drain/lb1"))
    assert catalog.drained == {"lb1"} and "lb1" in catalog.drains and len(catalog.services) == 4


def test_what_fails_without_any_service_is_told() -> None:
    def never(some: Tree) -> Catalog:
        raise FAULT

    with pytest.raises(ZeroDivisionError):
        around(tree(**CATALOG), Catalog(), never)


def test_what_was_set_aside_is_looked_for_no_more_until_it_can_be_read() -> None:
    odd, sizes = {"services/odd"}, []

    def reading(some: Tree) -> Catalog:
        sizes.append(len(some.entries))
        return fails_with(*odd)(some)

    before = read(tree(**CATALOG))
    catalog, aside = read_around(tree(**CATALOG), before, reading, reading)
    assert aside is not None and set(aside[0]) == {"services/odd"} and len(sizes) > 5
    sizes.clear()
    again, same = read_around(tree(**CATALOG), catalog, reading, reading, aside)
    assert sizes == [1, 3], "alone, and all others"
    assert again == catalog and same is aside
    odd.add("services/web")
    both, more = read_around(tree(**CATALOG), catalog, reading, reading, aside)
    assert more is not None and set(more[0]) == odd and len(both.problems) == 2 and len(both.services) == 4
    odd.clear()
    assert read_around(tree(**CATALOG), both, reading, reading, more) == (before, None)


def test_a_service_that_cannot_be_read_is_forgotten_when_it_is_gone() -> None:
    _, aside = read_around(tree(**CATALOG), Catalog(), *[fails_with("services/odd")] * 2)
    rest = {name: document for name, document in CATALOG.items() if name != "odd"}
    catalog, none = read_around(tree(**rest), Catalog(), read, read, aside)
    assert none is None and not catalog.problems and len(catalog.services) == 3


def inputs(catalog: Catalog) -> Inputs:
    up = CheckState(True, since=0.0, last=Result(True, "seen", 0.0, 1.0))
    return Inputs(Policy("lb1"), catalog=catalog, feed=Feed(loaded=True), health=dict.fromkeys(checks(catalog), up))


@pytest.fixture
def odd_fails(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """``decide_again`` fails while the service of this name is in the catalog."""
    name = {"is": ""}

    def decide(last: Remembered, given: Inputs, memory: Memory, now: float) -> Remembered:
        if name["is"] in {service.name for service in given.catalog.services}:
            raise FAULT
        return decide_again(last, given, memory, now)

    monkeypatch.setattr(quarantine, "decide_again", decide)
    return name


def test_a_service_that_cannot_be_decided_is_closed_and_comes_back(odd_fails: dict[str, str]) -> None:
    given = inputs(read(tree(**CATALOG)))
    first = decide_around(FROM_SCRATCH, given, Memory(), 100.0)
    assert set(first.decision.desired.routes) == {ODD, WEB, SHARED}
    odd_fails["is"] = "odd"
    made = decide_around(first, given, first.decision.memory, 101.0)
    decision = made.decision
    assert set(decision.desired.routes) == {WEB, SHARED}
    verdict = decision.verdicts[ODD]
    assert not verdict.open and verdict.since == 101.0 and "service odd, which is left out" in verdict.reason.text
    assert any(key.address == ODD for key in decision.desired.services), "its flows are served until they are drained"
    assert decision.wake_at is not None and decision.wake_at <= 111.0, "it is tried again"
    again = decide_around(made, given, decision.memory, 105.0)
    assert again.decision.verdicts[ODD].since == 101.0 and set(again.decision.desired.routes) == {WEB, SHARED}
    odd_fails["is"] = ""
    back = decide_around(again, given, again.decision.memory, 111.0)
    assert set(back.decision.desired.routes) == {ODD, WEB, SHARED} and not back.decision.faults


def test_a_service_that_is_left_out_is_tried_again_when_it_is_edited_or_due(
    odd_fails: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    real = quarantine.decide_again

    def decide(last: Remembered, given: Inputs, memory: Memory, now: float) -> Remembered:
        tried.append(len(given.catalog.services))
        return real(last, given, memory, now)

    monkeypatch.setattr(quarantine, "decide_again", decide)
    odd_fails["is"] = "odd"
    given = inputs(read(tree(**CATALOG)))
    made = decide_around(FROM_SCRATCH, given, Memory(), 100.0)
    tried.clear()
    made = decide_around(made, given, made.decision.memory, 105.0)
    assert tried == [3], "it costs nothing"
    assert made.decision.wake_at == 110.0 and list(made.decision.faults) == ["service odd"]
    made = decide_around(made, given, made.decision.memory, 110.0)
    assert 4 in tried and made.decision.wake_at == 120.0, "it is due"
    tried.clear()
    edited = inputs(read(tree(**CATALOG | {"odd": {"vip": str(ODD), "port": 81}})))
    made = decide_around(made, edited, made.decision.memory, 111.0)
    assert 4 in tried and list(made.decision.faults) == ["service odd"], "it was edited"


def test_the_services_that_changed_are_suspected_first(
    odd_fails: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FROM_SCRATCH
    for now in (100.0, 101.0):  # what is decided first is decided once more
        given = made.inputs if now > 100.0 else inputs(read(tree(**CATALOG)))
        made = decide_around(made, given, made.decision.memory if now > 100.0 else Memory(), now)
    tried: list[tuple[bool, int]] = []
    real = quarantine.decide_again

    def decide(last: Remembered, given: Inputs, memory: Memory, now: float) -> Remembered:
        tried.append((last is FROM_SCRATCH, len(given.catalog.services)))
        return real(last, given, memory, now)

    monkeypatch.setattr(quarantine, "decide_again", decide)
    odd_fails["is"] = "odd"
    edited = tuple(replace(one, port=81) if one.name == "odd" else one for one in given.catalog.services)
    given = replace(given, catalog=replace(given.catalog, services=edited))
    decision = decide_around(made, given, made.decision.memory, 102.0).decision
    assert list(decision.faults) == ["service odd"] and set(decision.desired.routes) == {WEB, SHARED}
    assert tried == [(False, 4), (False, 3), (False, 4), (False, 3)], "never from scratch"


def test_a_vip_is_closed_as_a_whole(odd_fails: dict[str, str]) -> None:
    odd_fails["is"] = "dns"
    decision = decide_around(FROM_SCRATCH, inputs(read(tree(**CATALOG))), Memory(), 100.0).decision
    assert set(decision.desired.routes) == {ODD, WEB} and not decision.verdicts[SHARED].open
    assert list(decision.faults) == ["service dns"]


def test_a_vip_that_cannot_be_compared_stays_as_it_is_but_loses_its_route(monkeypatch: pytest.MonkeyPatch) -> None:
    real = quarantine.compare_again

    def compare(last: Any, actual: State, desired: State) -> Any:
        if ODD in {*actual.addresses, *desired.addresses}:
            raise FAULT
        return real(last, actual, desired)

    monkeypatch.setattr(quarantine, "compare_again", compare)
    actual = decide_again(FROM_SCRATCH, inputs(read(tree(**CATALOG))), Memory(), 100.0).decision.desired
    given = inputs(read(tree(dns=CATALOG["dns"], odd={**CATALOG["odd"], "port": 81})))
    desired = decide_again(FROM_SCRATCH, given, Memory(), 100.0).decision.desired
    made = compare_around(UNCOMPARED, actual, State(**{t: rows for t, rows in vars_of(desired) if t != "routes"}))
    state = actual
    for change in made.changes:
        state = apply(state, change)
    assert not state.routes, "what must go is withdrawn, of every VIP"
    assert {key.address for key in state.services if key.port == 80} == {ODD}, "its rows are as they were"
    (failure,) = made.failures
    assert failure.change.key == ODD and "internal error about 192.0.2.66" in failure.reason.text


def test_a_vip_that_could_not_be_compared_is_looked_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    real, broken, sizes = quarantine.compare_again, {ODD}, []

    def compare(last: Any, actual: State, desired: State) -> Any:
        sizes.append(len({*actual.addresses, *desired.addresses}))
        if broken & {*actual.addresses, *desired.addresses}:
            raise FAULT
        return real(last, actual, desired)

    monkeypatch.setattr(quarantine, "compare_again", compare)
    actual = decide_again(FROM_SCRATCH, inputs(read(tree(**CATALOG))), Memory(), 100.0).decision.desired
    made = compare_around(UNCOMPARED, State(), actual)
    assert len(sizes) > 3 and [failure.change.key for failure in made.failures] == [ODD]
    sizes.clear()
    again = compare_around(made, State(), replace(actual))
    assert sizes == [1, 2] and again.changes == made.changes and again.failures == made.failures
    broken.clear()
    back = compare_around(again, State(), replace(actual))
    assert not back.failures and not back.left_out and back.changes == real(UNCOMPARED, State(), actual).changes


def vars_of(state: State) -> list[tuple[str, Any]]:
    return [(name, getattr(state, name)) for name in ("addresses", "services", "destinations", "routes")]
